"""An exported model: ONNX files that do what the model does, and a card that says how to run them.

A folder gets `encoder_step.onnx` and `decoder_step.onnx`, which take the next frames of a stream
and its state as named inputs and outputs; `encoder.onnx` and `decoder.onnx` for whole signals; the
same with `_int8`, if speech to calibrate by is given; and `card.json`. All have any batch and any
number of frames. The quantizer is inside: the encoder gives codes of all codebooks, of which the
first n are those of n codebooks, and the decoder takes -1 for those that are not used.

The graphs are written layer by layer (`export_layers`), not traced: torch.onnx turns a `step` into
a graph for one number of frames, channel-major and full of transposes, that takes longer to run.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import infer.export_voice  # noqa: F401 - registers the layers of a voice
from codec.codec import Codec
from codec.errors import SottoError
from infer import export_check, export_layers
from infer.export_check import Agreement
from infer.export_graph import OPSET, Graph, Scale
from infer.export_int8 import find_scales, loss, loudness
from infer.new_folder import new_folder
from infer.runtime.card import CARD, TABLES, Card, OnnxFile, digest
from infer.runtime.session import Array, Session

Wave = NDArray[np.float32]
Report = Callable[[str], None]


@dataclass(frozen=True)
class _Made:
    """A file of the export and its content."""

    file: OnnxFile
    content: bytes

    @property
    def session(self) -> Session:
        """Ready to run."""
        return Session(self.file, self.content)


def export(
    codec: Codec,
    target: str | os.PathLike[str],
    *,
    calibration: Sequence[Wave] = (),
    replace: bool = False,
    report: Report = lambda line: None,
) -> Card:
    """Writes an export and compares all of it with PyTorch; what differs is not kept.

    Args:
        codec: the model; one that is not causal gets no steps.
        target: the folder to make.
        calibration: speech (samples,) of whole hops at the model's rate, two pieces or more; int8
            files are written if there is any. A quarter of it measures what int8 costs.
        replace: an export that is there.
        report: told what was found, line by line.

    Raises:
        SottoError: a file differs from PyTorch by more than rounding, in int8 too little is left,
            a layer cannot be exported, or the target is there. Nothing is left behind.
        OSError: the target cannot be written.
    """
    if len(calibration) == 1:
        raise SottoError("one recording is too few to calibrate int8 by: give two or more")
    with new_folder(Path(target), mark=CARD, what="an export", replace=replace) as folder:
        made = _make(codec, "fp32", {})
        checks = _check(codec, made, report)
        if calibration:
            int8 = _make(codec, "int8", _scales(codec, made, calibration))
            checks |= _check_int8(codec, made, int8, calibration, report)
            made += int8
        for one in made:
            (folder / one.file.name).write_bytes(one.content)
        if codec.tables is not None:
            arrays: dict[str, Any] = codec.tables.tensors()
            np.savez(folder / TABLES, **arrays)
            report(f"{TABLES}: {(folder / TABLES).stat().st_size / 1e6:.2f} MB, for compact files")
        card = _card(codec, made, checks)
        (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    return card


def _builders(codec: Codec) -> dict[str, Callable[[Graph], None]]:
    autoencoder = export_layers.autoencoder_of(codec)
    quantizer = autoencoder.quantizer
    return {
        "encoder": partial(export_layers.encode, encoder=autoencoder.encoder, quantizer=quantizer),
        "decoder": partial(export_layers.decode, decoder=autoencoder.decoder, quantizer=quantizer),
    }


def _make(codec: Codec, precision: str, scales: dict[str, list[Scale]]) -> list[_Made]:
    """All files of a precision."""
    made = []
    for part, build in _builders(codec).items():
        for streaming in (True, False) if codec.config.causal else (False,):
            graph = Graph(part, streaming=streaming, scales=scales.get(part))
            build(graph)
            content = graph.model({"sotto.fingerprint": codec.fingerprint})
            name = f"{part}{'_step' * streaming}{'_int8' * (precision == 'int8')}.onnx"
            states = tuple(graph.states)
            file = OnnxFile(name, part, streaming, precision, len(content), digest(content), states)
            made.append(_Made(file, content))
    return made


def _check(codec: Codec, made: Sequence[_Made], report: Report) -> dict[str, dict[str, float]]:
    """Compares files in fp32 with PyTorch."""
    waves = export_check.probe_waves(codec)
    generator = np.random.default_rng(0)
    shape = (codec.n_quantizers, 64)
    codes = [codec.encode(wave).cpu().numpy() for wave in waves]
    codes.append(generator.integers(codec.codebook_size, size=shape))
    checks = {}
    for one in made:
        session = one.session
        agreement: Agreement
        if one.file.part == "encoder":
            agreement = export_check.check_encoder(codec, session, waves)
            line = f"{agreement.compared} codes as in PyTorch, {agreement.ties} ties apart"
        else:
            agreement = export_check.check_decoder(codec, session, codes)
            of = "level" if export_check.has_memory(codec) else "peak"
            line = f"{agreement.largest_difference:.1e} of the {of} from PyTorch at most"
        report(f"{one.file.name}: {one.file.size / 1e6:.2f} MB, {line}")
        checks[one.file.name] = dataclasses.asdict(agreement)
    return checks


def _scales(
    codec: Codec, made: Sequence[_Made], calibration: Sequence[Wave]
) -> dict[str, list[Scale]]:
    """Scales for both networks, by the speech that is not kept for measuring."""
    encode = _whole(made, "encoder")
    waves = [wave[None, None] for wave in _shares(calibration)[0]]
    inputs = {"encoder": waves, "decoder": [encode.step(wave)[0] for wave in waves]}
    return {
        part: find_scales(build, part, inputs[part]) for part, build in _builders(codec).items()
    }


def _check_int8(
    codec: Codec,
    fp32: Sequence[_Made],
    int8: Sequence[_Made],
    calibration: Sequence[Wave],
    report: Report,
) -> dict[str, dict[str, float]]:
    """Measures, on speech not calibrated by, what int8 changes."""
    waves = [wave[None, None] for wave in _shares(calibration)[1]]
    codes = [_whole(fp32, "encoder").step(wave)[0] for wave in waves]
    decode = _whole(fp32, "decoder")
    has_memory = export_check.has_memory(codec)

    def heard(wave: Array) -> Array:
        return loudness(wave, codec.hop_length) if has_memory else wave

    decoded = [heard(decode.step(item)[0]) for item in codes]
    checks = {}
    for one in int8:
        session = one.session
        if one.file.part == "decoder":
            given = [heard(export_check.decode_with(codec, session, item)) for item in codes]
            snr = loss(decoded, given)
            checks[one.file.name] = {"snr_db": snr}
            line = f"{snr:.1f} dB from fp32 to its difference{', of loudness' * has_memory}"
        else:
            given = [export_check.encode_with(codec, session, wave) for wave in waves]
            first = [np.mean(a[:, 0] == b[:, 0]) for a, b in zip(codes, given, strict=True)]
            equal = float(np.mean(first))
            checks[one.file.name] = {"first_codebook_equal": equal}
            line = f"{equal:.1%} of the first codebook's codes as in fp32"
        report(f"{one.file.name}: {one.file.size / 1e6:.2f} MB, {line}")
    return checks


def _shares(calibration: Sequence[Wave]) -> tuple[list[Wave], list[Wave]]:
    """What is calibrated by, and a quarter to measure on."""
    measured = max(1, len(calibration) // 4)
    return list(calibration[measured:]), list(calibration[:measured])


def _whole(made: Sequence[_Made], part: str) -> Session:
    return next(m.session for m in made if m.file.part == part and not m.file.streaming)


def _card(codec: Codec, made: Sequence[_Made], checks: dict[str, dict[str, float]]) -> Card:
    lookahead = codec.config.lookahead
    return Card(
        fingerprint=codec.fingerprint,
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        n_quantizers=codec.n_quantizers,
        codebook_size=codec.codebook_size,
        default_kbps=codec.default_kbps,
        causal=codec.config.causal,
        latency_samples=(1 + lookahead) * codec.hop_length if codec.config.causal else None,
        opset=OPSET,
        files=tuple(one.file for one in made),
        tables=None if codec.tables is None else codec.tables.fingerprint,
        lookahead=lookahead,
        checks=checks,
    )

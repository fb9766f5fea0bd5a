"""Judges that were learnt from what people said, or that imitate their ears; packages of `metrics`.

Each carries its weights in its wheel: nothing is downloaded. They hear 16 kHz, and are loaded when
they are first asked, once in a process, to run on one thread where torch or ONNX Runtime would take
all of them.
"""

import contextlib
import io
import logging
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.evaluation.judges import EXTRA
from codec.evaluation.pairs import SCORED_RATE, Wave, judging, remembering
from codec.extras import needing

_DNSMOS_SECONDS = 9.01
_DNSMOS_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # what the network says to an opinion


@judging(shortest=0.5)
def distillmos(reference: Wave, decoded: Wave) -> float:
    """DistillMOS (Stahl & Gamper 2025): what listeners would say of a recording, 1 to 5.

    A small network distilled from one that judges by XLS-R's features; it hears no reference.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s.
    """
    with torch.inference_mode():
        score = _distillmos()(torch.from_numpy(decoded)[None])
    return float(score.reshape(()))


@lru_cache(maxsize=1)
def _distillmos() -> Any:
    # It prints where its weights are from.
    with needing(EXTRA), contextlib.redirect_stdout(io.StringIO()):
        from distillmos import ConvTransformerSQAModel

        return ConvTransformerSQAModel().eval()


@judging(shortest=0.5)
def visqol(reference: Wave, decoded: Wave) -> float:
    """ViSQOL v3 (Chinen et al. 2020) for speech: similarity of gammatone spectrograms, 1 to 5.

    Similarity becomes opinion by the lattice that ViSQOL's own program has had since version 3.3;
    without `ai-edge-litert` the package would take a polynomial instead, which says 3.8 where the
    lattice says 2.4, so it is asked for the lattice or nothing.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s, or
    where no stretch of the reference is loud enough to compare.
    """
    try:
        result = _visqol().measure_from_arrays(
            reference.astype(np.float64), decoded.astype(np.float64), SCORED_RATE
        )
    except (ValueError, IndexError):  # what it says, or does, where it finds no patch to compare
        return float("nan")
    return float(result.moslqo)


@lru_cache(maxsize=1)
def _visqol() -> Any:
    logging.getLogger("visqol").setLevel(logging.ERROR)
    with needing(EXTRA):
        from ai_edge_litert import interpreter  # noqa: F401  (an ImportError of visqol's names none)
        from visqol import VisqolApi
    judge = VisqolApi()
    judge.create(mode="speech", use_lattice_model=True)
    return judge


@judging(shortest=0.5)
def dnsmos(reference: Wave, decoded: Wave) -> float:
    """DNSMOS (Reddy et al. 2022): P.835's overall opinion of a recording, 1 to 5; no reference.

    The mean over windows of 9 s, a second apart; short recordings are repeated until they fill one.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s.
    """
    size = int(_DNSMOS_SECONDS * SCORED_RATE)
    wave = _within_one(decoded)
    while len(wave) < size:
        wave = np.append(wave, wave)
    hops = int(len(wave) // SCORED_RATE - _DNSMOS_SECONDS) + 1
    windows = [wave[start : start + size] for start in range(0, hops * SCORED_RATE, SCORED_RATE)]
    raw = [
        _dnsmos().run(None, {"input_1": window[None]})[0][0][2]  # signal, background, overall
        for window in windows
        if len(window) == size
    ]
    return float(np.polyval(_DNSMOS_OVERALL, raw).mean())


@lru_cache(maxsize=1)
def _dnsmos() -> Any:
    """The package's network without the package's code, which asks another one too, at a cost."""
    with needing(EXTRA):
        import speechmos
    return _one_thread(Path(speechmos.__path__[0]) / "dnsmos_models" / "sig_bak_ovr.onnx")


@judging(shortest=0.5)
def plcmos(reference: Wave, decoded: Wave) -> float:
    """PLCMOS v2 (Diener et al. 2023): opinion of a recording that packets were lost of, 1 to 5.

    It hears no reference. Raters are drawn at random, here the same ones for every recording.
    Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or under 0.5 s.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        return float(_plcmos()(_within_one(decoded))["plcmos"])
    finally:
        np.random.set_state(state)


@lru_cache(maxsize=1)
def _plcmos() -> Any:
    with needing(EXTRA):
        from speechmos import plcmos as package
    judge = package.PLCMOS()
    judge.session = _one_thread(Path(judge.model_path))
    return judge


def _one_thread(model: Path) -> Any:
    with needing(EXTRA):
        import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _within_one(wave: Wave) -> Wave:
    """Clipped as a file of it would be: both judges refuse more."""
    return np.clip(wave, -1.0, 1.0)


@judging(shortest=0.5)
def speaker(reference: Wave, decoded: Wave) -> float:
    """Whether it sounds like the same person: cosine of two embeddings by Resemblyzer.

    Embeddings are GE2E's (Wan et al. 2018), of what the package's own voice detector lets pass.

    Returns:
        0 to 1. Arguments and errors as `codec.evaluation.metrics.pesq_nb`; NaN where silent or
        under 0.5 s, or where no speech is found.
    """
    original, made = _voice(reference), _voice(decoded)
    if original is None or made is None:
        return float("nan")
    return float(original @ made)


@remembering(last=4)
def _voice(wave: Wave) -> NDArray[np.float32] | None:
    """Embedding (256,) of length 1 of what is speech in (samples,); none where nothing is."""
    encoder, preprocess = _voice_encoder()
    speech = preprocess(wave)
    if not len(speech):
        return None
    embedding: NDArray[np.float32] = encoder.embed_utterance(speech)
    return embedding


@lru_cache(maxsize=1)
def _voice_encoder() -> tuple[Any, Any]:
    with needing(EXTRA), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pkg_resources and scipy's old names
        from resemblyzer import VoiceEncoder, preprocess_wav

        return VoiceEncoder("cpu", verbose=False), preprocess_wav

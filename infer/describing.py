"""What a file is, in rows of a name and a value: encoded, a model, an export, or audio."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from codec.errors import SottoError
from infer.planning import PIPE
from infer.reporting import count, duration

if TYPE_CHECKING:
    from infer.bitstream import Header, Reader

Rows = list[tuple[str, str]]


def file_rows(file: BinaryIO, path: Path, model: Path | None) -> Rows:
    """What a file says of itself, read as little as that takes.

    Args:
        file: open for reading bytes, at its start; can seek.
        path: of the file.
        model: which tells more of a `.sc` file of version 0, if there is one.

    Raises:
        SottoError: it is none of what Sotto knows, or cannot be read as that.
        OSError: it cannot be read.
    """
    start = file.read(9)
    file.seek(0)
    from infer.header import is_sc

    if is_sc(start):
        return _rows_of_encoded(file, model)
    if start[8:] == b"{":  # safetensors: the length of a JSON header in 8 bytes, then the header
        if path == PIPE:
            raise SottoError("a model is read from a file, not from stdin")
        return _rows_of_model(path)
    if path.name == "card.json":  # whatever it holds, nobody else names a file so
        return _rows_of_export(path)
    return _rows_of_audio(file)


def _rows_of_encoded(file: BinaryIO, model: Path | None) -> Rows:
    from infer.bitstream import Reader

    reader = Reader(file)
    header, complete, held = reader.header, reader.complete, None
    if not complete:
        held = _frames_before_the_cut(reader)
    rows = [("kind", f"encoded speech, .sc version {header.version}")]
    if header.version == 0:
        rows += _rows_by_model(header, model)
    else:
        rows += _rows_of_version_1(header)
    rows.append(("model", header.fingerprint))
    if not complete:
        held = header.frames if held is None else held
        rows.append(("damaged", f"cut: {_frames(held)} of {_frames(header.frames)} are there"))
    return rows


def _frames_before_the_cut(reader: "Reader") -> int | None:
    for _ in reader.records():
        pass
    return next((damage.first_frame for damage in reader.damage if damage.frames is None), None)


def _rows_of_version_1(header: "Header") -> Rows:
    seconds, kbps = header.seconds, header.kbps
    channels = f", {header.channels} channels" if header.channels > 1 else ""
    coding = "compact: less than at the fixed rate" if header.compact else "fixed rate"
    rows = [
        ("duration", "unknown" if seconds is None else duration(seconds)),
        ("bitrate", f"{kbps:g} kbps, {coding}"),
        ("frames", f"{_frames(header.frames)}, {header.frame_rate:g} a second{channels}"),
        ("codebooks", f"{header.n_quantizers} of {header.bits} bits"),
        ("sample rate", f"{header.sample_rate:,} Hz"),
    ]
    if header.frame_rate is not None:
        block = header.block_frames / header.frame_rate
        rows.append(("blocks", f"of {block:g} s, each with its checksum"))
    if header.source_rate is not None:
        source = f"{header.source_rate:,} Hz"
        if header.source_channels is not None:
            source += f", {count(header.source_channels, 'channel')}"
        if header.source_samples is not None:
            source += f", {header.source_samples:,} samples"
        rows.append(("source", source))
    if header.gain_db:
        rows.append(("gain", f"{header.gain_db:+.3f} dB before encoding"))
    return rows


def _rows_by_model(header: "Header", model: Path | None) -> Rows:
    rows = [
        ("frames", _frames(header.frames)),
        ("codebooks", f"{header.n_quantizers} of {header.bits} bits"),
    ]
    from infer.models import load_model

    try:
        codec = load_model(model)
    except SottoError:
        if model is not None:
            raise
        return [*rows, ("duration", "known to the model only: name it with --model")]
    if codec.fingerprint != header.fingerprint:
        state = f"unknown: the model is another one, {codec.fingerprint}"
        return [*rows, ("duration", state)]
    seconds = (header.frames or 0) / codec.frame_rate
    kbps = codec.kbps(header.n_quantizers)
    return [*rows, ("duration", duration(seconds)), ("bitrate", f"{kbps:g} kbps")]


def _rows_of_model(path: Path) -> Rows:
    from infer.models import load_model

    codec = load_model(path)
    lowest, highest = codec.kbps(1), codec.kbps(codec.n_quantizers)
    ahead = codec.config.lookahead if codec.config.causal else None
    rows = [
        ("kind", "model"),
        ("fingerprint", codec.fingerprint),
        ("parameters", f"{codec.n_parameters:,}"),
        ("sample rate", f"{codec.sample_rate:,} Hz"),
        ("frames", f"{codec.frame_rate:g} a second, of {codec.hop_length} samples"),
        ("latency", latency(1 / codec.frame_rate, ahead)),
        ("codebooks", f"{codec.n_quantizers} of {codec.codebook_size} entries"),
        ("bitrates", f"{lowest:g} to {highest:g} kbps, {codec.default_kbps:g} by default"),
    ]
    if codec.tables is not None:
        rows.append(("tables", f"for compact files, {codec.tables.fingerprint}"))
    return rows


def latency(frame: float, lookahead: int | None) -> str:
    """How long a sample takes at the least, frames of `frame` seconds, none ahead for streams."""
    if lookahead is None:
        return "none: it takes whole signals"
    ahead = f" ({1000 * frame:g} ms frame, {1000 * lookahead * frame:g} ms look-ahead)"
    return f"{1000 * (1 + lookahead) * frame:g} ms{ahead if lookahead else ', a frame'}"


def _rows_of_export(path: Path) -> Rows:
    from infer.runtime.card import read_card

    card = read_card(path.parent)
    frame = card.hop_length / card.sample_rate
    precisions = sorted({file.precision for file in card.files})
    rows = [
        ("kind", f"exported model, {', '.join(precisions)}"),
        ("fingerprint", card.fingerprint),
        ("sample rate", f"{card.sample_rate:,} Hz"),
        ("frames", f"{1 / frame:g} a second, of {card.hop_length} samples"),
        ("latency", latency(frame, card.lookahead if card.causal else None)),
        ("codebooks", f"{card.n_quantizers} of {card.codebook_size} entries"),
        ("bitrate", f"{card.default_kbps:g} kbps by default"),
    ]
    if card.tables is not None:
        rows.append(("tables", f"for compact files, {card.tables}"))
    return rows


def _rows_of_audio(file: BinaryIO) -> Rows:
    from codec.audio import probe

    found = probe(file)
    return [
        ("kind", f"audio, {found.codec}"),
        ("duration", "unknown" if found.seconds is None else duration(found.seconds)),
        ("sample rate", f"{found.sample_rate:,} Hz"),
        ("channels", str(found.channels)),
    ]


def _frames(frames: int | None) -> str:
    return "an unknown number of" if frames is None else f"{frames:,}"

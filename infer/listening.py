"""A listening page: recordings and what codecs make of them, in a folder that a browser opens."""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import torch
from matplotlib.image import imsave

from codec.audio import write_wav
from codec.errors import SottoError
from codec.evaluation.contenders import Contender
from codec.evaluation.intervals import Interval
from codec.evaluation.judges import METRICS, Scores, learnt_from
from codec.evaluation.pairs import Wave
from codec.evaluation.report import read_recording
from codec.evaluation.results import Evaluation, RateSummary, Row
from codec.spectra import stft
from infer.new_folder import check_new_folder, new_folder

PAGE = "index.html"
LONGEST_CLIP = 30.0
"""Seconds of a recording that is put on a page."""

_TEMPLATE = Path(__file__).with_name("listening.html")
_WINDOW_SECONDS, _HOP_SECONDS = 0.032, 0.008
_DYNAMIC_RANGE = 80.0  # dB


@dataclass(frozen=True)
class Version:
    """What one recording sounds like: `scores` are few for the original, or none."""

    name: str
    kbps: float | None
    wave: Wave
    scores: Scores


def check_page(target: Path, *, replace: bool) -> None:
    """Refuses a folder that is there, before any work.

    Raises:
        SottoError: it is, and is no page, or `replace` is not wanted.
    """
    check_new_folder(target, mark=PAGE, what="a page", replace=replace)


def choose_clips(evaluation: Evaluation, count: int) -> list[Path]:
    """At most `count` of the recordings scored, evenly spaced, none longer than `LONGEST_CLIP`.

    Raises:
        SottoError: all of them are longer.
    """
    short = {row.file: None for row in evaluation.rows if row.seconds <= LONGEST_CLIP}
    if not short:
        raise SottoError(f"no recording is of {LONGEST_CLIP:g} s or less: cut some for the page")
    files = list(short)
    number = min(count, len(files))
    return [Path(files[index * len(files) // number]) for index in range(number)]


def write_page(
    target: Path,
    evaluation: Evaluation,
    contenders: Sequence[Contender],
    clips: Sequence[Path],
    *,
    sample_rate: int,
    title: str,
    about: str,
    replace: bool,
    report: Callable[[], None],
) -> None:
    """Makes the folder of a page: `index.html`, the plot, and audio and spectrograms of clips.

    Args:
        target: The folder to make.
        evaluation: What the contenders scored, the clips among the rest.
        contenders: As they were scored.
        clips: Recordings to listen to, as `choose_clips` gives them.
        sample_rate: Hz, of the contenders.
        title: Of the page.
        about: One sentence under it.
        replace: A page that is there.
        report: Called after each clip.

    Raises:
        SottoError: The target is there, or cannot be written. Nothing is left behind.
    """
    with new_folder(target, mark=PAGE, what="a page", replace=replace) as folder:
        evaluation.plot(folder / "rate-quality.png")
        sections = []
        for number, path in enumerate(clips, start=1):
            name = f"{number:02}"
            versions = list(_versions(evaluation, contenders, path, sample_rate))
            sections.append(_section(folder, name, path, versions, sample_rate))
            report()
        page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
            title=html.escape(title),
            about=html.escape(about),
            top_khz=f"{sample_rate / 2000:g}",
            n_files=len({row.file for row in evaluation.rows}),
            headings="".join(_headings(evaluation)),
            means="\n".join(_means(evaluation)),
            note=html.escape(learnt_from(evaluation.metrics, evaluation.losses) or ""),
            clips="\n".join(sections),
        )
        (folder / PAGE).write_text(page, encoding="utf-8")


def _versions(
    evaluation: Evaluation, contenders: Sequence[Contender], path: Path, sample_rate: int
) -> Iterator[Version]:
    original = read_recording(path, sample_rate)
    known = (one.scores for one in evaluation.originals if one.file == str(path))
    yield Version("Original", None, original, next(known, {}))
    rows = {(row.codec, row.kbps): row for row in evaluation.rows if row.file == str(path)}
    for contender in contenders:
        for decoding in contender.decodings(original):
            row: Row = rows[contender.name, decoding.kbps]
            yield Version(contender.name, row.real_kbps, decoding.wave, row.scores)


def _section(
    folder: Path, name: str, path: Path, versions: Sequence[Version], sample_rate: int
) -> str:
    """Writes the files of a recording, and gives its part of the page."""
    (folder / name).mkdir()
    pictures = [_decibels(version.wave, sample_rate) for version in versions]
    top = float(pictures[0].max())
    figures = []
    for number, (version, picture) in enumerate(zip(versions, pictures, strict=True), start=1):
        rate = "" if version.kbps is None else f" {version.kbps:.1f} kbps"
        stem = f"{name}/{number}-{(version.name + rate).lower().replace(' ', '-')}"
        write_wav(folder / f"{stem}.wav", version.wave, sample_rate)
        imsave(
            folder / f"{stem}.png",
            picture,
            cmap="magma",
            vmin=top - _DYNAMIC_RANGE,
            vmax=top,
            origin="lower",
        )
        figures.append(_figure(version, version.name + rate, stem, number))
    seconds = len(versions[0].wave) / sample_rate
    heading = f'{html.escape(path.name)} <span class="soft">{seconds:.1f} s</span>'
    return (
        f'<section class="clip">\n<h2>{heading}</h2>\n<div class="versions">\n'
        + "\n".join(figures)
        + "\n</div>\n</section>"
    )


def _figure(version: Version, label: str, stem: str, number: int) -> str:
    label, stem = html.escape(label), html.escape(stem)
    caption = "what the others are compared with"
    if version.scores:
        caption = " · ".join(
            f"{METRICS[name].heading} {value:.{METRICS[name].decimals}f}"
            for name, value in version.scores.items()
        )
    key = f"<kbd>{number}</kbd>" if number <= 9 else ""
    return (
        f'<figure><button type="button">{label}{key}</button>'
        f'<img src="{stem}.png" alt="Spectrogram: {label}" loading="lazy">'
        f'<audio controls preload="metadata" src="{stem}.wav" aria-label="{label}"></audio>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _headings(evaluation: Evaluation) -> Iterator[str]:
    """The table's columns of scores; what each means is told by the pointer."""
    for name in evaluation.metrics:
        meaning, heading = html.escape(METRICS[name].meaning), html.escape(evaluation.heading(name))
        yield f'<th scope="col" title="{meaning}">{heading}</th>'


def _means(evaluation: Evaluation) -> Iterator[str]:
    """The rows of the table."""
    for rate in evaluation.with_originals():
        cells = [rate.codec, "–" if rate.real_kbps is None else f"{rate.real_kbps:.2f}"]
        cells += [_mean(rate, name) for name in evaluation.metrics]
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _mean(rate: RateSummary, name: str) -> str:
    interval: Interval | None = rate.intervals.get(name)
    if interval is None:
        return "–"
    if interval.n == 0:
        return "undefined"
    decimals = METRICS[name].decimals
    text = f"{interval.mean:.{decimals}f}"
    return text + (f" ± {interval.half_width:.{decimals}f}" if interval.n > 1 else "")


def _decibels(wave: Wave, sample_rate: int) -> np.ndarray:
    """Short-time spectrum of (samples,) in dB, (bins, frames) float32."""
    n_fft = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
    hop_length = max(1, round(_HOP_SECONDS * sample_rate))
    spectrum = stft(torch.from_numpy(wave)[None], n_fft=n_fft, hop_length=hop_length)[0]
    return (20 * torch.log10(spectrum.abs().clamp(min=1e-6))).numpy()

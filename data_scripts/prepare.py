"""What the corpus scripts share: utterances in, 16 kHz FLAC files and a manifest out.

A script only says which utterances there are. This module converts them, goes on where an
interrupted run stopped, reports damaged files at the end and keeps the manifest whole.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from codec.atomic import replacing
from codec.audio import NAMELESS, AudioReader, to_mono, write_flac
from codec.data.manifest import MANIFEST_NAME, Entry, manifest_line
from codec.errors import AudioError, DataError, SottoError
from codec.resampling import resample

SAMPLE_RATE = 16000


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of a corpus.

    Attributes:
        key: its name in the corpus, unique, with ``/`` between folders.
        load: gives the bytes of its audio file, or where it is; may raise AudioError.
        split: ``train``, ``valid`` or ``test``.
        speaker: in one split only.
        lang: code of the language.
        text: what is said, if known already.
    """

    key: str
    load: Callable[[], bytes | Path]
    split: str
    speaker: str
    lang: str
    text: str | None = None


@dataclass(slots=True)
class Report:
    """What a run did.

    Attributes:
        manifest: the manifest written.
        written: files converted now.
        kept: files that an earlier run had converted.
        seconds: of audio in the whole corpus.
        problems: one line for each damaged file or archive passed over.
    """

    manifest: Path
    written: int = 0
    kept: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def prepare(
    utterances: Iterable[Utterance],
    out: Path,
    *,
    source: str,
    texts: Mapping[str, str] | None = None,
    problems: list[str] | None = None,
    hours: float | None = None,
    sample_rate: int = SAMPLE_RATE,
    progress: Progress | None = None,
) -> Report:
    """Convert utterances to mono FLAC files and list them in ``out/manifest.jsonl``.

    A file appears whole or not at all and its manifest line follows it, so that a run that was
    stopped anywhere is continued by running it again.

    Args:
        utterances: may be lazy; ``load`` is called before the next one is taken.
        out: folder of the new corpus.
        source: name of the corpus, for the manifest.
        texts: transcripts by key that the enumeration finds on its way, in any order.
        problems: what the enumeration could not read; it may go on adding to it.
        hours: stop when the corpus holds this much audio.
        sample_rate: of the files, Hz.
        progress: counts the files.

    Raises:
        DataError: nothing usable, or ``out`` cannot be written.
    """
    manifest = out / MANIFEST_NAME
    lines = _resume(manifest)
    report = Report(manifest, problems=[] if problems is None else problems)
    report.seconds = sum(line["seconds"] for line in lines.values())
    budget = float("inf") if hours is None else hours * 3600
    task = None if progress is None else progress.add_task(source, total=None)
    seen: set[str] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with manifest.open("a", encoding="utf-8", newline="\n") as file:
            for utterance, path, seconds in _converted(utterances, out, lines, seen, sample_rate):
                if isinstance(seconds, str):
                    report.problems.append(seconds)
                elif seconds is None:
                    report.kept += 1
                else:
                    text = _line(utterance, path, seconds, source, out)
                    file.write(text + "\n")
                    file.flush()
                    lines[path] = json.loads(text)
                    report.written += 1
                    report.seconds += seconds
                if progress is not None and task is not None:
                    progress.advance(task)
                if report.seconds >= budget:
                    break
        if not lines:
            why = f": {report.problems[0]}" if report.problems else ""
            raise DataError(f"{source}: no usable recordings found{why}")
        _finish(manifest, lines, texts or {})
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        if not lines:
            manifest.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or never made
                out.rmdir()
    return report


def run(
    out: Path,
    source: str,
    enumerate_into: Callable[[dict[str, str], list[str]], Iterable[Utterance]],
    hours: float | None,
) -> None:
    """``prepare`` with a progress bar and a report; the body of every corpus script.

    Exits with 1 and one line on an error, with 130 on Ctrl-C.
    """
    console = Console(stderr=True)
    texts: dict[str, str] = {}
    problems: list[str] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            utterances = enumerate_into(texts, problems)
            report = prepare(
                utterances,
                out,
                source=source,
                texts=texts,
                problems=problems,
                hours=hours,
                progress=progress,
            )
    except SottoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    for problem in report.problems:
        print(f"passed over: {problem}", file=sys.stderr)
    print(
        f"{report.manifest}: {report.seconds / 3600:.2f} hours; {report.written} files new, "
        f"{report.kept} there before, {len(report.problems)} problems"
    )


def split_of_speaker(speaker: str, share: float = 0.03) -> str:
    """``train``, or with probability ``share`` each ``valid`` or ``test``, by a hash."""
    digest = hashlib.sha256(speaker.encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "valid" if place < share else "test" if place < 2 * share else "train"


def safe_path(key: str) -> str:
    """A key as a relative path that stays in its folder and is legal on every platform."""
    parts = [re.sub(r"[^\w.-]", "_", part).lstrip(".") for part in re.split(r"[/\\]", key)]
    parts = [part for part in parts if part]
    if not parts:
        raise ValueError(f"no file name can be made of {key!r}")
    return "/".join(parts) + ".flac"


def convert(audio: bytes | Path, target: Path, sample_rate: int) -> float:
    """One recording to a mono 16-bit FLAC file; its duration in seconds.

    Raises:
        AudioError: it cannot be decoded, not from beginning to end.
        DataError: the target cannot be written.
    """
    with AudioReader(audio if isinstance(audio, Path) else io.BytesIO(audio)) as reader:
        info, wave = reader.info, to_mono(reader.read())
        damaged = reader.damaged > 0
        if info.samples is not None:
            # Only a header of PCM or FLAC is exact; those of MP3 may be estimates.
            slack = 0.0 if info.seeks_exactly else 0.1 * info.sample_rate + 0.02 * info.samples
            damaged = damaged or wave.shape[1] < info.samples - slack
    if damaged:
        raise AudioError("damaged or cut: does not decode from beginning to end")
    wave = resample(wave, info.sample_rate, sample_rate)
    if not wave.shape[1]:
        raise AudioError("holds no audio")
    try:
        write_flac(target, wave, sample_rate)
    except AudioError as error:  # a full disk is no fault of the recording
        raise DataError(str(error)) from error
    return float(wave.shape[1] / sample_rate)


def _converted(
    utterances: Iterable[Utterance],
    out: Path,
    lines: Mapping[str, Any],
    seen: set[str],
    sample_rate: int,
) -> Iterator[tuple[Utterance, str, float | str | None]]:
    """Utterances in order with the path of their file, and its duration in seconds.

    In place of the duration: None for a file that was there, a message for a damaged one.
    """
    workers = os.cpu_count() or 1
    waiting: deque[tuple[Utterance, str, Future[float] | None]] = deque()

    def finish() -> tuple[Utterance, str, float | str | None]:
        utterance, path, future = waiting.popleft()
        try:
            return utterance, path, None if future is None else future.result()
        except AudioError as error:
            return utterance, path, f"{utterance.key}: {str(error).removeprefix(NAMELESS + ': ')}"

    with ThreadPoolExecutor(workers) as pool:
        for utterance in utterances:
            path = safe_path(utterance.key)
            if path in seen:
                continue
            seen.add(path)
            future = None
            if path not in lines:
                try:
                    future = pool.submit(convert, utterance.load(), out / path, sample_rate)
                except AudioError as error:
                    future = Future()
                    future.set_exception(error)
            waiting.append((utterance, path, future))
            if len(waiting) > 2 * workers:
                yield finish()
        while waiting:
            yield finish()


def _line(utterance: Utterance, path: str, seconds: float, source: str, out: Path) -> str:
    details = {"lang": utterance.lang, "source": source, "text": utterance.text}
    entry = Entry(out / path, seconds, utterance.split, utterance.speaker, details)
    return manifest_line(entry, out.absolute())


def _resume(manifest: Path) -> dict[str, dict[str, Any]]:
    """The lines of an earlier run by path; cut ones and those without their file are removed."""
    if not manifest.exists():
        return {}
    lines: dict[str, dict[str, Any]] = {}
    text = manifest.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            values = json.loads(line)
            path, whole = values["path"], values["seconds"] > 0
        except (ValueError, KeyError, TypeError):
            continue
        if whole and (manifest.parent / path).is_file():
            lines[path] = values
    _write(manifest, lines.values())
    return lines


def _finish(manifest: Path, lines: Mapping[str, dict[str, Any]], texts: Mapping[str, str]) -> None:
    """The final manifest: sorted by path, with the transcripts that turned up."""
    by_path = {safe_path(key): text for key, text in texts.items()}
    for path, line in lines.items():
        if line.get("text") is None:
            line["text"] = by_path.get(path)
    _write(manifest, (lines[path] for path in sorted(lines)))


def _write(manifest: Path, lines: Iterable[dict[str, Any]]) -> None:
    with replacing(manifest) as temporary:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8", newline="\n")

import csv
import math
import os

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from codec.audio import write_wav
from codec.data.manifest import Entry
from codec.errors import DataError, SottoError
from codec.evaluation.contenders import Decoding
from codec.evaluation.judges import METRICS
from codec.evaluation.report import evaluate
from codec.evaluation.results import Evaluation
from codec.evaluation.score_files import write_scores

RATE = 16_000
KBPS = (32.0, 64.0, 128.0)
SCORED = ("pesq_nb", "pesq_wb", "stoi", "mel_distance", "buzz")


class ResidualPCM:
    """A real nested codec: each codebook refines four samples a frame by two bits each."""

    sample_rate = RATE
    hop_length = 4
    bits_per_code = 8
    n_quantizers = 4

    def kbps(self, n_quantizers: int) -> float:
        return 32.0 * n_quantizers

    def n_quantizers_for(self, kbps: float) -> int:
        if kbps not in (32, 64, 96, 128):
            raise SottoError(f"{kbps:g} kbps is not a rate of this model; possible: 32, 64, 96")
        return int(kbps // 32)

    def encode(self, wave: Tensor, n_quantizers: int | None = None) -> Tensor:
        frames = torch.nn.functional.pad(wave, (0, -len(wave) % 4)).view(-1, 4)
        residual, step, codes = (frames.clamp(-1, 1) + 1) / 2, 0.25, []
        for _ in range(n_quantizers or self.n_quantizers):
            digits = (residual / step).floor().clamp(0, 3)
            codes.append((digits @ torch.tensor([64.0, 16.0, 4.0, 1.0])).long())
            residual, step = residual - digits * step, step / 4
        return torch.stack(codes)

    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        wave, step = torch.zeros(codes.shape[1], 4), 0.25
        for book in codes:
            wave += step * torch.stack([book // 64, book // 16 % 4, book // 4 % 4, book % 4], 1)
            step /= 4
        wave = 2 * (wave + 2 * step) - 1
        return wave.flatten()[:length]


class Broken(ResidualPCM):
    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        return super().decode(codes, length) * math.nan


class Halver:
    """A codec beside it: keeps the loudness of nothing, at rates of its own."""

    name = "Halver"
    kbps = (7.0, 9.0)

    def decodings(self, wave: np.ndarray):
        for kbps in self.kbps:
            yield Decoding(kbps, None, round(1000 * len(wave) / RATE), wave / kbps)


def speechlike(seconds: float, seed: int) -> np.ndarray:
    """Bursts of a coloured noise, so that every metric is defined."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.convolve(rng.standard_normal(len(time)), np.hanning(12) / 4, "same")
    return (0.2 * noise * (np.sin(2 * np.pi * 1.4 * time) > -0.3)).astype(np.float32)


def save(folder, name: str, wave: np.ndarray) -> Entry:
    write_wav(folder / name, wave[None], RATE)
    return Entry(path=folder / name, seconds=len(wave) / RATE)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Entry]:
    folder = tmp_path_factory.mktemp("recordings")
    return [save(folder, f"{seed}.wav", speechlike(0.9 + seed / 10, seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def evaluation(files) -> Evaluation:
    return evaluate(ResidualPCM(), files, kbps=KBPS, metrics=SCORED)


def shown(evaluation: Evaluation) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(evaluation.table())
    return capture.get()


@pytest.mark.parametrize("metric", [name for name in SCORED if name != "buzz"])
def test_more_codebooks_score_better(evaluation, metric):
    means = [rate.intervals[metric].mean for rate in evaluation.summaries()]
    assert len(means) == 3
    assert means == sorted(means, reverse=METRICS[metric].better == "less")
    assert means[0] != means[-1]


def test_a_row_for_each_file_and_rate(evaluation, files):
    got = {(row.file, row.n_quantizers) for row in evaluation.rows}
    assert got == {(str(entry.path), n) for entry in files for n in (1, 2, 4)}
    assert len(evaluation.rows) == 9


def test_the_real_rate_counts_the_padded_frame(tmp_path):
    wave = speechlike(1, 0)[:4001]  # 1001 frames of a byte, of which 1000.25 are sound
    rows = evaluate(ResidualPCM(), [save(tmp_path, "a.wav", wave)], kbps=[32]).rows
    assert rows[0].kbps == 32
    assert rows[0].real_kbps == pytest.approx(8 * 1001 / (4001 / RATE) / 1000)


def test_a_codec_beside_is_scored_on_the_same_files(evaluation, files, tmp_path):
    both = evaluate(ResidualPCM(), files, kbps=KBPS, beside=[Halver()], metrics=SCORED)
    assert [row for row in both.rows if row.codec == "Sotto"] == evaluation.rows
    others = [row for row in both.rows if row.codec == "Halver"]
    assert [(row.file, row.kbps) for row in others] == [
        (str(entry.path), kbps) for entry in files for kbps in Halver.kbps
    ]
    assert all(row.real_kbps == pytest.approx(1, abs=0.01) for row in others)
    named = [(rate.codec, rate.kbps) for rate in both.summaries()]
    assert named == [*(("Sotto", kbps) for kbps in KBPS), ("Halver", 7), ("Halver", 9)]
    assert shown(both).count("Halver") == 2 and shown(both).count("Sotto") == 3
    both.plot(tmp_path / "plot.png")
    write_scores(both, tmp_path / "scores.csv")
    with (tmp_path / "scores-summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["n_quantizers"] for line in lines] == ["1", "2", "4", "", ""]


def test_passes_in_tandem_stand_beside_one(evaluation, files):
    """What this codec decoded it encodes as it was, so that more passes change nothing."""
    both = evaluate(ResidualPCM(), files, kbps=[32, 64], tandem=[2, 5], metrics=["mel_distance"])
    names = ("Sotto", "Sotto ×2", "Sotto ×5")
    named = [(rate.codec, rate.kbps) for rate in both.summaries()]
    assert named == [(name, kbps) for name in names for kbps in KBPS[:2]]
    once, twice, _ = ([row for row in both.rows if row.codec == name] for name in names)
    for one, two in zip(once, twice, strict=True):
        assert two.scores["mel_distance"] == pytest.approx(one.scores["mel_distance"])
        assert two.real_kbps == one.real_kbps


def test_a_rate_asked_for_twice_is_scored_once(files):
    assert len(evaluate(ResidualPCM(), files[:1], kbps=[32, 32.0]).rows) == 1


def test_two_processes_give_what_one_gives(evaluation, files):
    assert evaluate(ResidualPCM(), files, kbps=KBPS, metrics=SCORED, workers=2) == evaluation


def test_a_silent_file_is_counted_as_undefined(files, tmp_path):
    silent = save(tmp_path, "silent.wav", np.zeros(RATE, np.float32))
    evaluation = evaluate(ResidualPCM(), [files[0], silent], kbps=[128])
    interval = evaluation.summaries()[0].intervals["pesq_wb"]
    assert (interval.n, interval.undefined) == (1, 1)
    assert interval.mean == evaluation.rows[0].scores["pesq_wb"]
    assert "1 undefined" in shown(evaluation)


def test_a_table_of_nothing_but_silence_says_so(tmp_path):
    silent = save(tmp_path, "silent.wav", np.zeros(RATE, np.float32))
    evaluation = evaluate(ResidualPCM(), [silent], kbps=[32, 64])
    assert "all 1 undefined" in shown(evaluation)
    evaluation.plot(tmp_path / "plot.png")


def test_unusable_files_are_passed_over_and_named(files, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("this is no audio")
    short = save(tmp_path, "short.wav", np.full(3, 0.1, np.float32))
    missing = tmp_path / "missing.wav"
    entries = [Entry(path=text, seconds=1), short, Entry(path=missing, seconds=1), files[0]]
    evaluation = evaluate(ResidualPCM(), entries, kbps=[64])
    assert {row.file for row in evaluation.rows} == {str(files[0].path)}
    assert [item.file for item in evaluation.skipped] == [
        str(path) for path in (text, short.path, missing)
    ]
    assert all("\n" not in item.reason and item.reason for item in evaluation.skipped)
    assert "3 files passed over" in shown(evaluation)


def test_no_usable_file_is_an_error(tmp_path):
    short = save(tmp_path, "short.wav", np.full(3, 0.1, np.float32))
    with pytest.raises(DataError, match=r"none of 1 files can be scored.*short\.wav: shorter"):
        evaluate(ResidualPCM(), [short], kbps=[64])
    with pytest.raises(DataError, match="none of 0 files"):
        evaluate(ResidualPCM(), [], kbps=[64])


@pytest.mark.parametrize(("kbps", "words"), [([33], "33 kbps"), ([], "no bit rate")])
def test_an_impossible_rate_is_an_error(files, kbps, words):
    with pytest.raises(SottoError, match=words):
        evaluate(ResidualPCM(), files, kbps=kbps)


def test_a_codec_that_gives_nan_is_an_error_naming_the_file(files):
    with pytest.raises(SottoError, match=r"0\.wav: decodes to NaN"):
        evaluate(Broken(), files, kbps=[64])


def test_plot_is_a_png(evaluation, tmp_path):
    evaluation.plot(tmp_path / "plot.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("write", [write_scores, Evaluation.plot], ids=["csv", "plot"])
def test_a_place_that_cannot_be_written_is_an_error(evaluation, tmp_path, write):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SottoError, match="cannot be written"):
        write(evaluation, tmp_path / "file" / "out.file")


@pytest.mark.parametrize("write", [write_scores, Evaluation.plot], ids=["csv", "plot"])
def test_a_failure_leaves_the_old_file(evaluation, tmp_path, write, monkeypatch):
    target = tmp_path / "out.file"
    target.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(SottoError, match="No space left on device"):
        write(evaluation, target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.file"]
    assert target.read_text() == "old"

import math
import socket

import numpy as np
import pytest
import torch

from codec.evaluation.judges import METRICS, Settings
from codec.spectra import resample
from data_scripts.espeak import Prompt, say
from tests.support.syllables import RATE, noisy, voiced

LEARNT = [name for name, metric in METRICS.items() if metric.packages]
judges = pytest.mark.parametrize("name", LEARNT)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Weights come in wheels: whoever opens a connection fails."""

    def refused(*_: object) -> None:
        raise AssertionError("a judge wants the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


def score(name: str, reference: np.ndarray, decoded: np.ndarray, sample_rate: int = RATE) -> float:
    metric = METRICS[name]
    if package := metric.missing():
        pytest.skip(f"{package} is not installed")
    return metric.score(reference, decoded, sample_rate, Settings())


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    return noisy(voiced(3), 1e-4)


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """What judges that learnt from speech take for speech."""
    pytest.importorskip("espeakng_loader", reason="espeakng-loader (extra 'data') is not installed")
    samples, rate = say(Prompt("The birch canoe slid on the smooth planks.", "en-us+f3"))
    wave = torch.from_numpy((samples / 65536).astype(np.float32))
    return resample(wave[None], rate, RATE)[0].numpy()


@judges
def test_noise_is_heard_and_scores_are_in_their_range(name, spoken, capfd):
    wave = spoken
    same, worse = score(name, wave, wave), score(name, wave, noisy(wave, 0.03))
    lowest, highest = (0, 1.0001) if name == "speaker" else (0.9, 5.01)
    assert lowest <= worse <= highest and lowest <= same <= highest
    assert same > worse
    assert score(name, wave, wave) == same  # nothing is left to chance
    assert capfd.readouterr().out == ""


@judges
def test_what_is_silent_or_short_is_undefined(name, wave):
    silent = np.zeros(RATE, np.float32)
    assert math.isnan(score(name, wave[:RATE], silent))
    assert math.isnan(score(name, silent, silent))
    assert math.isnan(score(name, wave[:1000], wave[:1000]))


@pytest.mark.parametrize("samples", [8_000, 8_100])
def test_half_a_second_of_one_click_ends_nothing(samples):
    click = np.zeros(samples, np.float32)
    click[samples // 2] = 0.5
    for name in LEARNT:
        value = score(name, click, click)
        assert math.isnan(value) or 0 <= value <= 5.01


def test_what_was_random_before_is_so_after_plcmos(wave):
    np.random.seed(3)
    expected = np.random.normal()
    np.random.seed(3)
    score("plcmos", wave, wave)
    assert np.random.normal() == expected


def test_a_rate_of_other_than_16_khz_is_resampled():
    slow, fast = (noisy(voiced(2, rate), 1e-4) for rate in (16_000, 24_000))
    assert score("distillmos", fast, fast, 24_000) == pytest.approx(
        score("distillmos", slow, slow), abs=0.5
    )


def test_too_loud_is_clipped_as_a_file_would_be(wave):
    loud = (20 * wave).astype(np.float32)
    assert np.abs(loud).max() > 1
    assert 1 <= score("dnsmos", loud, loud) <= 5

import numpy as np
import pytest

from infer.live.meter import SILENCE, Level, Load, bar, decibels

RATE = 8000


def sine(amplitude: float, seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * 400 * times)).astype(np.float32)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("pieces", [1, 50])
def test_a_sine_has_its_level(amplitude: float, pieces: int) -> None:
    level = Level(RATE)
    for piece in np.split(sine(amplitude, 3), pieces):
        level.push(piece)
    assert level.peak == pytest.approx(decibels(amplitude), abs=0.1)
    assert level.rms == pytest.approx(decibels(amplitude) - 3.01, abs=0.1)


def test_levels_fall_back_after_a_sound() -> None:
    level = Level(RATE)
    assert (level.peak, level.rms) == (SILENCE, SILENCE)
    level.push(sine(1.0, 1))
    silence = np.zeros(RATE // 50, np.float32)
    for _ in range(50):
        level.push(silence)
    assert level.peak == pytest.approx(-20, abs=0.5)
    assert -40 < level.rms < -12
    for _ in range(500):
        level.push(silence)
    assert (level.peak, level.rms) == (SILENCE, SILENCE)
    level.push(silence[:0])


def test_a_load_is_the_share_of_a_frame() -> None:
    load = Load(0.02)
    assert load.mean == load.now == 0
    for _ in range(50):
        load.push(0.005)
    assert load.now == load.mean == pytest.approx(0.25)
    for _ in range(1000):
        load.push(0.01)
    assert load.now == pytest.approx(0.5, abs=0.01)
    assert load.highest == pytest.approx(0.5)
    assert load.mean == pytest.approx((50 * 0.25 + 1000 * 0.5) / 1050)


@pytest.mark.parametrize(
    ("rms", "peak", "expected"),
    [
        (-90, -90, "··········"),
        (-30, -30, "█████·····"),
        (-30, -12, "█████··│··"),
        (0, 0, "██████████"),
        (-54, 6, "█········│"),
    ],
)
def test_bars(rms: float, peak: float, expected: str) -> None:
    assert bar(rms, peak, width=10) == expected

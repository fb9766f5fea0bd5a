"""Loudness against the standard's figures, FFmpeg's meter, and itself in pieces."""

import io
import math
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import sosfreqz

from codec.audio import to_mono, write_wav
from codec.errors import AudioError
from codec.loudness import Loudness, k_weighting, measure
from codec.resampling import resample

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000]


def tone(level: float, seconds: float, rate: int, frequency: float = 997.0) -> np.ndarray:
    """One channel of a sine whose peak has that level, in dBFS."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 10 ** (level / 20) * np.sin(2 * np.pi * frequency * time)
    return wave.astype(np.float32)[None]


def lufs(wave: np.ndarray, rate: int) -> float:
    meter = Loudness(rate, wave.shape[0])
    meter.push(wave)
    return meter.lufs()


def ebur128(wave: np.ndarray, rate: int, layout: str) -> float:
    """FFmpeg's integrated loudness."""
    graph = Graph()
    source = graph.add_abuffer(format="flt", sample_rate=rate, layout=layout, time_base=f"1/{rate}")
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found = math.nan
    for begin in range(0, wave.shape[1], rate):
        piece = np.ascontiguousarray(wave[:, begin : begin + rate].T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
        frame.sample_rate, frame.pts = rate, begin
        graph.push(frame)
        while True:
            try:
                found = float(graph.pull().metadata.get("lavfi.r128.I", found))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return found


def test_the_weighting_is_the_standards_at_48_khz() -> None:
    shelf, high_pass = k_weighting(48000)
    np.testing.assert_allclose(
        shelf,
        [
            1.53512485958697,
            -2.69169618940638,
            1.19839281085285,
            1,
            -1.69065929318241,
            0.73248077421585,
        ],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        high_pass, [1, -2, 1, 1, -1.99004745483398, 0.99007225036621], atol=1e-12
    )


@pytest.mark.parametrize("rate", RATES)
def test_the_weighting_is_much_the_same_at_any_rate(rate: int) -> None:
    frequencies = np.geomspace(20, min(0.35 * rate, 15000), 200)
    gains = [
        20 * np.log10(np.abs(sosfreqz(k_weighting(one), frequencies, fs=one)[1]))
        for one in (rate, 48000)
    ]
    assert np.abs(gains[0] - gains[1]).max() < 0.6
    low = frequencies < 0.12 * rate
    assert np.abs(gains[0] - gains[1])[low].max() < 0.15


@pytest.mark.parametrize("rate", RATES)
def test_the_calibration_tone(rate: int) -> None:
    wave = tone(0, 5, rate)
    assert lufs(wave, rate) == pytest.approx(-3.01, abs=0.01)
    assert lufs(np.repeat(wave, 2, axis=0), rate) == pytest.approx(0.0, abs=0.01)


# EBU Tech 3341, minimum requirements, cases 1 to 5: stereo sines of 1 kHz, (dBFS, seconds).
SEQUENCES = {
    "1": ([(-23, 20)], -23),
    "2": ([(-33, 20)], -33),
    "3": ([(-36, 10), (-23, 60), (-36, 10)], -23),
    "4": ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
    "5": ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
}


@pytest.mark.parametrize("case", SEQUENCES)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_sequences_of_ebu_tech_3341(case: str, rate: int) -> None:
    parts, expected = SEQUENCES[case]
    meter = Loudness(rate, 2)
    for level, seconds in parts:
        meter.push(np.repeat(tone(level, seconds, rate, 1000.0), 2, axis=0))
    assert meter.lufs() == pytest.approx(expected, abs=0.1)


def test_the_surrounds_of_5_1_weigh_more_and_the_low_channel_nothing() -> None:
    # EBU Tech 3341, case 6: -28 dBFS left and right, -24 centre, -30 in the surrounds.
    levels = [-28, -28, -24, None, -30, -30]
    wave = np.zeros((6, 48000 * 20), np.float32)
    for channel, level in enumerate(levels):
        wave[channel] = tone(0 if level is None else level, 20, 48000, 1000.0)
    assert lufs(wave, 48000) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize(
    ("layout", "channels"), [("mono", 1), ("stereo", 2), ("3.0", 3), ("quad", 4), ("5.1", 6)]
)
@pytest.mark.parametrize("rate", [44100, 48000])
def test_ffmpeg_measures_the_same(layout: str, channels: int, rate: int) -> None:
    random = np.random.default_rng(channels)
    swell = np.repeat(random.uniform(0.01, 0.5, 12) ** 2, rate)
    wave = (random.standard_normal((channels, swell.size)) * swell).clip(-1, 1)
    assert lufs(wave, rate) == pytest.approx(ebur128(wave, rate, layout), abs=0.02)


@pytest.mark.parametrize(("rate", "within"), [(8000, 0.2), (16000, 0.05), (44100, 0.01)])
def test_resampled_noise_is_as_loud(rate: int, within: float) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 20000)).astype(np.float32)
    wave = resample(np.clip(noise * 0.1, -1, 1), 4000, 48000)
    assert lufs(resample(wave, 48000, rate), rate) == pytest.approx(lufs(wave, 48000), abs=within)


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 20000), max_size=30),
    rate=st.sampled_from([8000, 11025, 22050]),
    channels=st.integers(1, 3),
)
def test_how_it_is_cut_makes_no_difference(cuts: list[int], rate: int, channels: int) -> None:
    random = np.random.default_rng(rate)
    wave = (random.uniform(-1, 1, (channels, 20000)) * np.linspace(0, 1, 20000)).astype(np.float32)
    meter = Loudness(rate, channels)
    for piece in np.split(wave, sorted(cuts), axis=1):
        meter.push(piece)
    assert meter.lufs() == lufs(wave, rate)
    assert (meter.samples, meter.peak) == (20000, np.abs(wave).max())


@pytest.mark.parametrize("gain", [-30.0, -6.0, 0.25, 6.0])
def test_a_gain_moves_it_by_as_much(gain: float) -> None:
    wave = np.random.default_rng(0).uniform(-0.4, 0.4, (1, 48000))
    louder = lufs(wave * 10 ** (gain / 20), 16000)
    assert louder - lufs(wave, 16000) == pytest.approx(gain, abs=1e-6)


@pytest.mark.parametrize("samples", [0, 1, 5000, 60000])
def test_silence_has_no_loudness(samples: int) -> None:
    assert lufs(np.zeros((1, samples), np.float32), 16000) == -math.inf
    assert lufs(tone(-75, samples / 16000, 16000), 16000) == -math.inf


def test_less_than_a_block_counts_as_a_block() -> None:
    assert lufs(tone(-20, 0.35, 16000), 16000) == pytest.approx(-23.0, abs=0.1)
    assert lufs(tone(-20, 0.05, 16000), 16000) == pytest.approx(-23.0, abs=0.3)


def test_what_makes_no_sense_is_refused() -> None:
    for rate, channels in ((9, 1), (16000, 0)):
        with pytest.raises(ValueError, match="expected at least"):
            Loudness(rate, channels)
    with pytest.raises(ValueError, match=r"expected \(2, n\) samples, got \(1, 5\)"):
        Loudness(16000, 2).push(np.zeros((1, 5), np.float32))


@pytest.mark.parametrize("channels", [None, 1])
def test_a_file_is_measured_in_one_pass(channels: int | None, tmp_path: Path) -> None:
    left, right = tone(-20, 2.55, 44100), tone(-12, 2.55, 44100, 400.0)
    wave = np.concatenate((left, right))
    write_wav(tmp_path / "a.wav", wave, 44100)
    seconds: list[float] = []
    found = measure(tmp_path / "a.wav", channels=channels, progress=seconds.append)
    heard = wave if channels is None else to_mono(wave)
    assert found.lufs == pytest.approx(lufs(heard, 44100), abs=1e-3)
    assert found.peak == pytest.approx(np.abs(heard).max(), abs=1e-4)
    assert (found.samples, found.sample_rate, found.channels, found.damaged) == (
        wave.shape[1],
        44100,
        2,
        0,
    )
    assert seconds == [1.0, 2.0, wave.shape[1] / 44100]


def test_what_is_no_audio_is_refused() -> None:
    with pytest.raises(AudioError, match="not an audio file"):
        measure(io.BytesIO(b"no sound" * 100))

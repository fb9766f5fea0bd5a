import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codec import audio
from codec.errors import AudioError
from infer.live.sinks import Speaker, open_file
from infer.planning import PIPE
from tests.support.live import Clock, SimulatedSpeaker


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize("ending", ["wav", "flac", "opus"])
def test_a_file_appears_when_it_is_whole(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    with open_file(path, 16000, None) as sink:
        sink.write(noise(8000))
        sink.rest(100)
        sink.write(noise(8000))
        assert (sink.ahead(), sink.name) == (0, str(path))
        assert not path.exists()
    assert audio.read(path, sample_rate=16000)[0].shape == (1, 16000)
    with pytest.raises(RuntimeError), open_file(tmp_path / "y.wav", 16000, None) as sink:
        sink.write(noise(10))
        raise RuntimeError
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_no_number_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError), open_file(tmp_path / "x.wav", 16000, None) as sink:
        sink.write(np.array([np.nan], np.float32))


def test_a_pipe_gets_every_piece_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        flushed = 0

        def seekable(self) -> bool:
            return False

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    for raw in (None, 8000):
        pipe = Pipe()
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe))
        with open_file(PIPE, 8000, raw) as sink:
            for _ in range(3):
                sink.write(noise(80))
                assert pipe.flushed == len(pipe.getvalue()) >= 160
        data = pipe.getvalue()
        if raw is None:
            wave, rate = audio.read(io.BytesIO(data))
            assert (wave.shape, rate) == ((1, 240), 8000)
        else:
            wave = np.frombuffer(data, "<i2")[None] / 32768
        np.testing.assert_allclose(wave[0], np.tile(noise(80), 3), atol=1e-4)


def test_raw_samples_go_out_at_another_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe))
    with open_file(PIPE, 8000, 48000) as sink:
        sink.write(noise(800))
    assert len(pipe.getvalue()) == 2 * 4800


def test_a_speaker_is_resampled_and_drained() -> None:
    clock = Clock()
    card = SimulatedSpeaker(clock, sample_rate=48000, block=480)
    speaker = Speaker(card, 8000, clock=clock, sleep=clock.sleep)
    speaker.write(noise(8000))
    assert speaker.ahead() == pytest.approx(1.0, abs=0.02)
    speaker.drain()
    assert speaker.ahead() == 0
    assert clock.now == pytest.approx(1.0, abs=0.05)
    assert speaker.underruns == 0


def test_a_card_that_stands_still_is_not_waited_for() -> None:
    clock = Clock()
    card = SimpleNamespace(
        name="x",
        sample_rate=8000,
        underruns=0,
        queued=lambda: 800,
        ending=lambda: None,
        write=lambda wave: None,
    )
    Speaker(card, 8000, clock=clock, sleep=clock.sleep).drain()
    assert clock.now < 3

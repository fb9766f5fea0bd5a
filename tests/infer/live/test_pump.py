import numpy as np
import pytest

from codec.errors import AudioError
from infer.live.models import Decoder, Encoder
from infer.live.pump import Between, Following, Pump
from infer.live.sinks import Clocked, FileSink, Speaker
from infer.live.sources import Microphone, Paced
from tests.support.live import Clock, PretendedCodec, SimulatedMicrophone, SimulatedSpeaker

RATE, HOP = 8000, 160
CODEC = PretendedCodec()


class Listed:
    """A source of given pieces."""

    name, overruns = "a list", 0

    def __init__(self, *pieces: np.ndarray) -> None:
        self._pieces = list(pieces)

    def read(self) -> np.ndarray | None:
        return self._pieces.pop(0) if self._pieces else None


def ramp(frames: int) -> np.ndarray:
    """Frames that the pretended codec gives back as they are."""
    return np.repeat((np.arange(frames) % 61 - 30) / 32, HOP).astype(np.float32)


def through_cards(
    seconds: float,
    *,
    mic_ppm: float = 0,
    speaker_ppm: float = 0,
    jitter: float = 0.0,
    lookahead: int = 0,
) -> tuple[Between, SimulatedSpeaker, SimulatedMicrophone, list[float]]:
    """From a microphone to a speaker whose clocks differ: the taker, the cards, what was ahead."""
    clock = Clock()
    signal = ramp(round(seconds * 50))
    mic = SimulatedMicrophone(clock, signal, ppm=mic_ppm, jitter=jitter)
    card = SimulatedSpeaker(clock, ppm=speaker_ppm)
    speaker = Speaker(card, RATE, clock=clock, sleep=clock.sleep)
    taker = Between(Decoder(PretendedCodec(lookahead)), speaker, latency=0.06)
    pump = Pump(Microphone(mic, RATE), Encoder(CODEC, 4), RATE, clock)
    ahead: list[float] = []
    pump.run(taker, lambda: mic.ended, lambda: ahead.append(speaker.ahead()))
    return taker, card, mic, ahead


@pytest.mark.parametrize("lookahead", [0, 1, 4])
def test_equal_clocks_play_every_frame_once(lookahead: int) -> None:
    taker, card, mic, _ = through_cards(20, lookahead=lookahead)
    assert (card.underruns, mic.overruns, taker.filled_in, taker.left_out) == (0, 0, 0, 0)
    played = np.concatenate(card.played)
    signal = ramp(1000)
    start = np.flatnonzero(played == signal[0])[0]  # the speaker was kept ahead by silence first
    assert 0 < start <= 0.08 * RATE + lookahead * HOP
    np.testing.assert_array_equal(played[start : start + signal.size], signal)


@pytest.mark.parametrize("ppm", [-4000, 4000])
def test_clocks_that_differ_cost_a_frame_now_and_then_and_no_gap(ppm: int) -> None:
    seconds = 60
    taker, card, mic, ahead = through_cards(
        seconds, mic_ppm=ppm / 2, speaker_ppm=-ppm / 2, jitter=0.004
    )
    assert (card.underruns, mic.overruns) == (0, 0)
    apart = seconds * abs(ppm) * 1e-6 / 0.02  # frames
    changed, other = taker.left_out, taker.filled_in
    if ppm < 0:
        changed, other = other, changed
    assert apart - 4 <= changed <= apart + 2
    assert other <= 2
    assert min(ahead) >= 0 and max(ahead) < 0.16


def test_a_speaker_that_ran_dry_is_kept_ahead_again() -> None:
    clock = Clock()
    card = SimulatedSpeaker(clock)
    speaker = Speaker(card, RATE, clock=clock, sleep=clock.sleep)
    taker = Between(Decoder(CODEC), speaker, latency=0.06)
    codes = np.full(4, 40)
    for _ in range(50):
        taker.put(codes)
        clock.sleep(0.02)
    assert card.underruns == 0
    clock.sleep(0.5)
    taker.put(codes)
    assert card.underruns == 1
    assert speaker.ahead() >= 0.06
    assert taker.filled_in == 2


def test_a_file_waits_for_the_speaker_and_is_heard_whole() -> None:
    clock = Clock()
    card = SimulatedSpeaker(clock, ppm=500)
    speaker = Speaker(card, RATE, clock=clock, sleep=clock.sleep)
    signal = ramp(200)
    taker = Following(
        Decoder(CODEC),
        speaker,
        latency=0.06,
        stop=lambda: False,
        tick=lambda: None,
        clock=clock,
        sleep=clock.sleep,
    )
    pump = Pump(Listed(signal[:1000], signal[1000:]), Encoder(CODEC, 4), RATE, clock)
    pump.run(taker, lambda: False, lambda: None)
    assert card.underruns == 0
    np.testing.assert_array_equal(np.concatenate(card.played), signal)
    assert 3.9 < clock.now < 4.2
    assert pump.load.mean < 0.01  # waiting is no work
    assert pump.frames == 200


@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("samples", [1, HOP, HOP + 1, 5 * HOP - 1])
def test_a_file_sink_gets_whole_frames(samples: int, lookahead: int) -> None:
    out: list[np.ndarray] = []
    taker = Following(
        Decoder(PretendedCodec(lookahead)),
        FileSink("x", out.append),
        latency=0.06,
        stop=lambda: False,
        tick=lambda: None,
        sleep=lambda _: pytest.fail("a file does not wait"),
    )
    pump = Pump(Listed(np.full(samples, 0.5, np.float32)), Encoder(CODEC, 2), RATE)
    pump.run(taker, lambda: False, lambda: None)
    assert sum(wave.size for wave in out) == -(-samples // HOP) * HOP
    assert all(wave.size for wave in out)
    assert pump.level.peak == pytest.approx(-6.02, abs=0.01)


def test_nothing_at_all_is_an_error_unless_it_was_stopped() -> None:
    taker = Following(
        Decoder(CODEC),
        FileSink("x", lambda wave: None),
        latency=0,
        stop=lambda: False,
        tick=lambda: None,
    )
    with pytest.raises(AudioError, match="a list: holds no audio"):
        Pump(Listed(), Encoder(CODEC, 2), RATE).run(taker, lambda: False, lambda: None)
    pump = Pump(Listed(np.zeros(0, np.float32)), Encoder(CODEC, 2), RATE)
    pump.run(taker, lambda: True, lambda: None)
    assert pump.frames == 0


def test_a_frame_that_has_begun_is_coded_when_it_is_stopped() -> None:
    out: list[np.ndarray] = []
    stopped: list[bool] = []
    pump = Pump(Listed(ramp(3)[: 2 * HOP + 5], ramp(9)), Encoder(CODEC, 2), RATE)
    taker = Following(
        Decoder(CODEC),
        FileSink("x", out.append),
        latency=0,
        stop=lambda: bool(stopped),
        tick=lambda: None,
    )
    pump.run(taker, lambda: bool(stopped), lambda: stopped.append(True))
    assert len(out) == 3


def test_a_paced_source_gives_nothing_too_soon() -> None:
    clock = Clock()
    source = Paced(Listed(*np.split(ramp(50), 10)), RATE, clock=clock, sleep=clock.sleep)
    given = 0
    while (wave := source.read()) is not None:
        given += wave.size
        assert given <= clock.now * RATE + 1
    assert given == ramp(50).size
    assert clock.now == pytest.approx(1.0, abs=0.01)


def test_a_clocked_file_hears_a_second_in_a_second() -> None:
    clock = Clock()
    out: list[np.ndarray] = []
    sink = Clocked(FileSink("x", out.append), RATE, clock)
    sink.write(np.zeros(4000, np.float32))
    assert sink.ahead() == pytest.approx(0.5)
    clock.sleep(0.75)
    assert sink.ahead() == pytest.approx(-0.25)
    sink.rest(2000)
    assert sink.ahead() == pytest.approx(0.0)
    assert len(out) == 1

"""The jitter buffer against simulated networks. Codes say which frame they are."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer.live.jitter import JitterBuffer, Kind, Turn
from infer.live.packets import Packet

T = 0.02


def packet(
    number: int,
    *,
    frames: int = 1,
    stream: int = 1,
    start: int = 0,
    sequence: int = 0,
    redundancy: int = 0,
) -> Packet:
    """Packet `number` of a stream whose numbers begin at `start` and `sequence`."""
    first = number * frames
    again = min(redundancy, first)
    return Packet(
        stream=stream,
        sequence=(sequence + number) % 2**16,
        first_frame=(start + first) % 2**32,
        bits=10,
        fingerprint="00" * 16,
        codes=codes_of(range(first, first + frames)),
        earlier=codes_of(range(first - again, first))[:1],
    )


def codes_of(frames: Iterable[int]) -> np.ndarray:
    return np.array([(i % 1000, i // 1000) for i in frames], np.uint16).reshape(-1, 2).T


def end(number: int, frames: int, stream: int = 1) -> Packet:
    none = np.zeros((2, 0), np.uint16)
    return Packet(stream, number, frames, 10, "00" * 16, none)


@dataclass
class Heard:
    """What came of a simulation."""

    turns: list[Turn] = field(default_factory=list)
    most_held: int = 0

    @property
    def numbers(self) -> list[int]:
        """Of the frames that were played."""
        codes = [turn.codes for turn in self.turns if turn.kind is Kind.FRAME]
        # A frame from redundancy has its first codebook alone.
        return [int(c[0]) + (1000 * int(c[1]) if len(c) > 1 else 0) for c in codes if c is not None]

    def number_of(self, kind: Kind) -> int:
        return sum(turn.kind is kind for turn in self.turns)


def simulate(
    buffer: JitterBuffer,
    arrivals: list[tuple[float, Packet]],
    seconds: float,
    *,
    first_pop: float = 0.0,
    ppm: float = 0.0,
) -> Heard:
    """Pushes packets at their times; pops every T by a clock that is `ppm` fast."""
    heard = Heard()
    waiting = sorted(arrivals, key=lambda arrival: arrival[0])[::-1]
    count = int(seconds / T)
    for index in range(count):
        now = first_pop + index * T / (1 + ppm * 1e-6)
        while waiting and waiting[-1][0] <= now:
            at, one = waiting.pop()
            buffer.push(one, at)
            heard.most_held = max(heard.most_held, len(buffer))
        heard.turns.append(buffer.pop(now))
    return heard


fates = st.lists(
    st.tuples(
        st.floats(0, 0.3),  # delay
        st.sampled_from([0, 1, 1, 1, 1, 1, 2]),  # copies
        st.floats(0, 0.3),  # between copies
    ),
    min_size=1,
    max_size=120,
)


def network(
    given_fates: list[tuple[float, int, float]], frames: int, **options: int
) -> list[tuple[float, Packet]]:
    arrivals = []
    for number, (delay, copies, apart) in enumerate(given_fates):
        for copy in range(copies):
            at = (number + 1) * frames * T + delay + copy * apart
            arrivals.append((at, packet(number, frames=frames, **options)))
    return arrivals


@given(fates=fates, frames=st.integers(1, 4), redundancy=st.integers(0, 3))
@settings(deadline=None, max_examples=80)
def test_whatever_the_network_does_frames_are_heard_once_and_in_order(
    fates: list[tuple[float, int, float]], frames: int, redundancy: int
) -> None:
    arrivals = network(fates, frames, redundancy=redundancy)
    buffer = JitterBuffer(T)
    heard = simulate(buffer, arrivals, (len(fates) * frames + 150) * T)
    counts = buffer.counts
    played = [turn for turn in heard.turns if turn.kind is Kind.FRAME]
    assert all(a < b for a, b in zip(heard.numbers, heard.numbers[1:], strict=False))
    for turn, number in zip(played, heard.numbers, strict=True):
        assert turn.codes is not None
        np.testing.assert_array_equal(turn.codes, codes_of([number])[: len(turn.codes), 0])
    assert counts.played == len(played)
    assert counts.concealed + counts.filled_in == heard.number_of(Kind.MISSING)
    assert counts.packets + counts.duplicates == len(arrivals)
    sent = {one.sequence for _, one in arrivals}
    assert counts.packets == len(sent)
    assert counts.lost == (max(sent) - min(sent) + 1 - len(sent) if sent else 0)
    # What there is room for: the longest delay and the jump that is taken for one.
    assert heard.most_held <= (0.5 + 2.0) / T + 5
    assert len(buffer) == 0 and buffer.pop(1e6).kind is Kind.IDLE


@given(fates=fates, start=st.integers(2**32 - 60, 2**32 - 1), sequence=st.integers(65_450, 65_535))
@settings(deadline=None, max_examples=40)
def test_numbers_that_wrap_around_change_nothing(
    fates: list[tuple[float, int, float]], start: int, sequence: int
) -> None:
    seconds = (len(fates) + 100) * T
    plain = simulate(JitterBuffer(T), network(fates, 1), seconds)
    buffer = JitterBuffer(T)
    wrapped = simulate(buffer, network(fates, 1, start=start, sequence=sequence), seconds)
    assert wrapped.numbers == plain.numbers
    assert [turn.kind for turn in wrapped.turns] == [turn.kind for turn in plain.turns]


@given(
    delays=st.lists(st.floats(0, 0.035), min_size=60, max_size=150),
    first_pop=st.floats(0, T),
)
@settings(deadline=None, max_examples=40)
def test_unevenness_below_the_shortest_delay_is_not_heard(
    delays: list[float], first_pop: float
) -> None:
    arrivals = [((i + 1) * T + delay, packet(i)) for i, delay in enumerate(delays)]
    buffer = JitterBuffer(T, shortest=0.06)
    heard = simulate(buffer, arrivals, (len(delays) + 20) * T, first_pop=first_pop)
    missing = [turn.kind for turn in heard.turns[: len(delays)]].count(Kind.MISSING)
    # Until the quickest packet is known, the delay may be taken for one too short or too long.
    assert missing <= 2
    assert heard.numbers[0] == 0
    assert len(heard.numbers) >= len(delays) - 2
    assert buffer.counts.late == 0


def test_an_even_network_is_played_without_a_gap_at_the_shortest_delay() -> None:
    buffer = JitterBuffer(T, shortest=0.04)
    arrivals = [((i + 1) * T + 0.1, packet(i)) for i in range(500)]
    heard = simulate(buffer, arrivals, 505 * T, first_pop=0.001)
    assert heard.numbers == list(range(len(heard.numbers))) and len(heard.numbers) >= 495
    assert heard.number_of(Kind.MISSING) == 0
    assert 0.04 <= buffer.counts.mean_delay <= 0.06


def test_the_delay_grows_with_the_unevenness_and_shrinks_after_it() -> None:
    random = np.random.default_rng(0)
    uneven = [((i + 1) * T + random.uniform(0, 0.15), packet(i)) for i in range(600)]
    even = [((i + 1) * T, packet(i)) for i in range(600, 1500)]
    buffer = JitterBuffer(T)
    simulate(buffer, uneven, 600 * T)
    assert 0.13 < buffer.target < 0.18
    missing = buffer.counts.concealed
    assert missing < 60  # most of them while the delay was learned
    rest = [one for one in uneven if one[0] > 599 * T]
    heard = simulate(buffer, rest + even, 890 * T, first_pop=600 * T)
    assert buffer.target == 0.04
    assert heard.number_of(Kind.MISSING) < 5
    assert 4 <= buffer.counts.left_out <= 9


@pytest.mark.parametrize("ppm", [-1000, 1000])
def test_clocks_that_differ_are_followed(ppm: int) -> None:
    random = np.random.default_rng(1)
    seconds = 200
    arrivals = [((i + 1) * T + random.uniform(0, 0.03), packet(i)) for i in range(seconds * 50)]
    buffer = JitterBuffer(T)
    heard = simulate(buffer, arrivals, seconds - 1, ppm=ppm)
    counts = buffer.counts
    apart = seconds * abs(ppm) * 1e-6 / T
    changed, other = (counts.filled_in, counts.left_out)[:: 1 if ppm > 0 else -1]
    assert apart - 3 <= changed <= apart + 5
    assert other <= 4
    assert counts.late <= 5 and counts.concealed <= 5
    assert counts.mean_delay < 0.09
    assert len(heard.numbers) > seconds * 50 * 0.99


def test_lost_frames_are_asked_for_and_carried_ones_take_their_place() -> None:
    lost = {7, 20, 21, 22, 40}
    for redundancy, recovered in ((0, 0), (1, 3), (3, 5)):
        arrivals = [
            ((i + 1) * T, packet(i, redundancy=redundancy)) for i in range(60) if i not in lost
        ]
        buffer = JitterBuffer(T, shortest=0.1)
        heard = simulate(buffer, arrivals, 62 * T)
        assert buffer.counts.lost == 5
        assert buffer.counts.recovered == recovered
        assert buffer.counts.concealed >= 5 - recovered
        missing = lost - set(heard.numbers)
        assert len(missing) == 5 - recovered


def test_a_whole_frame_takes_the_place_of_what_was_carried_once_more() -> None:
    buffer = JitterBuffer(T)
    for number, at in ((0, 0.0), (2, 0.001), (1, 0.002)):
        buffer.push(packet(number, redundancy=2), at)
    heard = simulate(buffer, [], 0.2)
    assert heard.numbers == [0, 1, 2]
    assert buffer.counts.recovered == 0
    assert buffer.counts.reordered == 1


def test_another_sender_takes_over_and_what_is_left_of_the_first_is_ignored() -> None:
    buffer = JitterBuffer(T)
    first = [((i + 1) * T, packet(i)) for i in range(30)]
    straggler = [(0.75, packet(30)), (0.76, packet(31))]
    second = [(0.7 + (i + 1) * T, packet(i, stream=2, start=5, sequence=9)) for i in range(30)]
    heard = simulate(buffer, first + straggler + second, 1.6)
    assert buffer.counts.streams == 2
    assert heard.numbers[-30:] == list(range(30))
    assert [turn.stream for turn in heard.turns if turn.kind is Kind.FRAME][-30:] == [2] * 30
    assert buffer.counts.late == 2


def test_the_end_is_told_once_all_is_played() -> None:
    buffer = JitterBuffer(T)
    arrivals = [((i + 1) * T, packet(i)) for i in range(30)]
    arrivals += [(31 * T, end(30 + i, 30)) for i in range(3)]
    heard = simulate(buffer, arrivals, 1.0)
    kinds = [turn.kind for turn in heard.turns if turn.kind is not Kind.IDLE]
    assert kinds == [Kind.FRAME] * 30 + [Kind.END]
    assert buffer.counts.late == buffer.counts.lost == 0


def test_a_stream_shorter_than_the_delay_is_played_too() -> None:
    buffer = JitterBuffer(T, shortest=0.4)
    buffer.push(packet(0), 0.0)
    buffer.push(end(1, 1), 0.0)
    assert [buffer.pop(0.0).kind, buffer.pop(0.02).kind] == [Kind.FRAME, Kind.END]


def test_an_end_alone_is_no_stream() -> None:
    buffer = JitterBuffer(T)
    buffer.push(packet(0), 0.0)
    buffer.push(end(0, 7, stream=3), 0.0)
    assert buffer.counts.streams == 1
    assert simulate(buffer, [], 0.2).numbers == [0]


def test_a_burst_after_an_outage_is_late_and_play_goes_on() -> None:
    outage = range(100, 140)
    arrivals = [(3.0 if i in outage else (i + 1) * T, packet(i)) for i in range(300)]
    buffer = JitterBuffer(T)
    heard = simulate(buffer, arrivals, 299 * T)
    assert buffer.counts.lost == 0
    assert buffer.counts.late >= 30
    assert heard.numbers[-100:] == list(range(heard.numbers[-1] - 99, heard.numbers[-1] + 1))


def test_a_pause_is_waited_for_in_silence() -> None:
    arrivals = [((i + 1) * T, packet(i)) for i in range(50)]
    arrivals += [(5 + (i + 1) * T, packet(i)) for i in range(50, 100)]  # its clock stood still
    buffer = JitterBuffer(T, timeout=1.0)
    heard = simulate(buffer, arrivals, 8.5)
    assert heard.numbers == list(range(100))
    assert heard.number_of(Kind.MISSING) == pytest.approx(2.0 / T, abs=8)
    assert buffer.counts.pauses == 2  # the second at the end


@pytest.mark.parametrize("jump", [0.8, 4.0], ids=["below-the-timeout", "above-it"])
def test_a_clock_that_jumped_is_followed(jump: float) -> None:
    arrivals = [((i + 1) * T, packet(i)) for i in range(100)]
    arrivals += [((i + 1) * T + jump, packet(i)) for i in range(100, 300)]
    buffer = JitterBuffer(T)
    heard = simulate(buffer, arrivals, 7 + jump)
    # Only what came late for 0.2 s was not heard.
    assert len(set(range(300)) - set(heard.numbers)) <= 12


def test_stragglers_do_not_bring_back_what_was_played() -> None:
    # Two that come late, 0.2 s apart, and nothing else: no clock has jumped.
    arrivals = [(0.02, packet(0)), (0.1025, packet(1)), (0.31, packet(2)), (0.08, packet(3))]
    buffer = JitterBuffer(T)
    assert simulate(buffer, arrivals, 3.0).numbers == [0, 3]
    assert (buffer.counts.late, buffer.counts.resyncs) == (2, 0)
    ahead = [(0.1, packet(0)), (0.12, packet(9000)), (0.13, packet(1)), (0.14, packet(9001))]
    assert simulate(JitterBuffer(T), ahead, 3.0).numbers == [9000, 9001]


def test_frames_far_ahead_begin_anew() -> None:
    arrivals = [((i + 1) * T, packet(i)) for i in range(50)]
    arrivals += [((i + 1) * T, packet(i + 10_000)) for i in range(50, 100)]
    buffer = JitterBuffer(T)
    heard = simulate(buffer, arrivals, 2.2)
    assert buffer.counts.resyncs == 1
    assert heard.numbers[-50:] == list(range(10_050, 10_100))


def test_what_piled_up_while_this_end_stood_still_is_passed_over() -> None:
    buffer = JitterBuffer(T)
    arrivals = [((i + 1) * T, packet(i)) for i in range(300)]
    simulate(buffer, [one for one in arrivals if one[0] <= 2.0], 2.0)
    heard = simulate(buffer, [one for one in arrivals if one[0] > 2.0], 2.0, first_pop=3.4)
    assert buffer.counts.left_out > 50
    assert heard.numbers[-1] > 250
    late = 5.4 - (heard.numbers[-1] + 1) * T
    assert late < 0.12


@pytest.mark.parametrize(
    "wrong", [{"shortest": 0.2, "longest": 0.1}, {"shortest": -1}, {"timeout": 0}]
)
def test_impossible_delays_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="delays from"):
        JitterBuffer(T, **wrong)

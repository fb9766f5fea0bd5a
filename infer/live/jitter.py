"""The jitter buffer: packets come when they come, and frames leave at an even pace.

A pure data structure: time is an argument, in seconds, from any clock that never goes back.

Frame i, were the network even, would arrive at i · T + transit, where T is a frame's duration; the
least transit of the last seconds is the base, and what a packet takes longer is its lateness. The
frame is played at i · T + offset. So it is there in time if offset >= its transit, and

    target offset = base + clip(98th percentile of the lateness + T / 2, shortest, longest)

The offset moves towards its target a frame at a time: one is left out where it is too large, one
is filled in where it is too small. As both are taken from what came and what was played, this also
makes up for clocks that differ, and for a network whose path changes.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from infer.live.numbering import Arrivals, Unwrapped
from infer.live.packets import FRAME_BITS, SEQUENCE_BITS, Packet

Codes = NDArray[np.uint16]

_WINDOW = 200  # packets whose transits are remembered
_QUANTILE = 0.98
_SMOOTH = 0.1  # weight of each new offset: speakers take samples in blocks
_TOO_LARGE, _TOO_SMALL = 1.25, -0.5  # frames off target: more than one apart, or it would swing
_SPACING = 10  # frames between two that are left out or filled in
_FAR = 4  # frames off target from which every frame may be one
_LATE_SECONDS = 0.2  # with nothing but late packets: the sender's clock must have jumped
_AHEAD_SECONDS = 2.0  # beyond the longest delay: more is a jump, too
_BEFORE_ALL = -(1 << 62)  # frames before the first that came may still come: they are negative
_RETIRED = 8  # streams that ended, whose last packets may still come


class Kind(Enum):
    """What is to be played next."""

    FRAME = "frame"
    MISSING = "missing"  # to be filled in
    IDLE = "idle"  # nothing: no stream has begun, or it paused
    END = "end"  # nothing more of this stream


@dataclass(frozen=True, eq=False)
class Turn:
    """What is to be played for one frame's duration.

    Attributes:
        kind: what it is.
        codes: (n_quantizers,) of a frame.
        stream: that it belongs to, from 1 up: another number is another signal.
    """

    kind: Kind
    codes: Codes | None = None
    stream: int = 0


@dataclass
class Counts:
    """What became of packets and frames.

    Attributes:
        packets: that came, copies not counted.
        lost: packets that did not come.
        duplicates: copies of packets.
        reordered: packets that a later one overtook.
        late: packets all of whose frames had been played or filled in.
        played: frames.
        recovered: of these, from what a later packet carried once more.
        concealed: frames filled in because they were not there.
        filled_in: frames, because the delay was too short.
        left_out: frames, because it was too long.
        streams: that began.
        pauses: times that nothing came for so long that a stream was waited for.
        resyncs: times that a stream's clock jumped.
        waited: seconds between arrival and playing, of all frames together.
    """

    packets: int = 0
    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    late: int = 0
    played: int = 0
    recovered: int = 0
    concealed: int = 0
    filled_in: int = 0
    left_out: int = 0
    streams: int = 0
    pauses: int = 0
    resyncs: int = 0
    waited: float = 0.0

    @property
    def mean_delay(self) -> float:
        """Seconds that a frame waited to be played."""
        return self.waited / self.played if self.played else 0.0


@dataclass(frozen=True, eq=False)
class _Held:
    codes: Codes
    arrived: float
    whole: bool


@dataclass
class _Schedule:
    """When the frames of a stream came, and when they are played; begins anew after a jump."""

    next: int  # frame to be played
    end: int | None = None  # frames of the stream, once it has said so
    frames: dict[int, _Held] = field(default_factory=dict)
    transits: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    offset: float | None = None  # smoothed; none: not begun to play
    since_change: int = 0
    late_since: float | None = None  # of packets that were all late
    base: float = 0.0  # the least transit
    target: float = 0.0  # delay beyond it

    def hold(self, first: int, packet: Packet, now: float) -> None:
        """Keeps a packet's frames, but what has been played or is here in full."""
        again = packet.earlier.shape[1]
        for index in range(again):
            number = first - again + index
            if number >= self.next and number not in self.frames:
                self.frames[number] = _Held(packet.earlier[:, index], now, False)
        for index in range(packet.codes.shape[1]):
            held = self.frames.get(first + index)
            if first + index >= self.next and not (held and held.whole):
                self.frames[first + index] = _Held(packet.codes[:, index], now, True)


class JitterBuffer:
    """Takes packets as they come, and gives a frame, or word that it is missing, at each `pop`.

    Whoever speaks last is heard: another stream takes the place of the one before it.

    Attributes:
        counts: what became of packets and frames.
    """

    def __init__(
        self,
        frame_seconds: float,
        *,
        shortest: float = 0.04,
        longest: float = 0.5,
        timeout: float = 1.0,
    ) -> None:
        """Times in seconds.

        Args:
            frame_seconds: a frame's duration.
            shortest: delay that is kept however even the network is.
            longest: delay that is never passed for it.
            timeout: without a packet, after which the stream pauses.

        Raises:
            ValueError: the shortest is longer than the longest, or a time is no duration.
        """
        if not (frame_seconds > 0 and 0 <= shortest <= longest and timeout > 0):
            raise ValueError(f"delays from {shortest} to {longest} s, timeout {timeout} s")
        self.counts = Counts()
        self._frame, self._timeout = frame_seconds, timeout
        self._shortest, self._longest = shortest, longest
        self._stream: int | None = None
        self._retired: deque[int] = deque(maxlen=_RETIRED)
        self._arrivals = Arrivals()
        self._sequences, self._numbers = Unwrapped(SEQUENCE_BITS), Unwrapped(FRAME_BITS)
        self._origin: int | None = None
        self._schedule: _Schedule | None = None
        self._last_arrival = 0.0
        self._heard = _BEFORE_ALL  # frames of the stream up to the last that was played

    def __len__(self) -> int:
        """Frames that wait."""
        return len(self._schedule.frames) if self._schedule else 0

    @property
    def target(self) -> float:
        """Seconds that the delay should be, over the quickest packet's."""
        return self._schedule.target if self._schedule else self._shortest

    def push(self, packet: Packet, now: float) -> None:
        """Takes a packet that came at `now`."""
        count = packet.codes.shape[1]
        if packet.stream in self._retired:
            self.counts.late += count > 0  # the end is said more than once
            return
        if packet.stream != self._stream:
            if not count:
                return
            self._begin(packet.stream)
        if not self._take(packet.sequence):
            return
        self._last_arrival = now
        # Counted from the first that came: small numbers keep times exact.
        number = self._numbers(packet.first_frame)
        self._origin = number if self._origin is None else self._origin
        first = number - self._origin
        if not count:
            self._schedule = self._schedule or _Schedule(first)
            self._schedule.end = first
            return
        schedule = self._fitting(first, count, now)
        self._learn(schedule, now - first * self._frame)
        schedule.hold(first, packet, now)

    def pop(self, now: float) -> Turn:
        """What to play for the next frame's duration, which begins at `now`."""
        schedule = self._schedule
        if schedule is None:
            return Turn(Kind.IDLE)
        stream = self.counts.streams
        if schedule.end is not None and schedule.next >= schedule.end:
            self._retire()
            return Turn(Kind.END, stream=stream)
        if not schedule.transits:
            return Turn(Kind.IDLE)
        offset = now - schedule.next * self._frame
        wanted = schedule.base + schedule.target
        if schedule.offset is None:
            if offset < wanted and schedule.end is None:
                return Turn(Kind.IDLE)
            schedule.offset = offset
        if not schedule.frames and now - self._last_arrival > self._timeout:
            self._schedule = None
            self.counts.pauses += 1
            return Turn(Kind.IDLE)
        schedule.offset += _SMOOTH * (offset - schedule.offset)
        if schedule.end is None and self._adjust(schedule, schedule.offset - wanted):
            self.counts.filled_in += 1
            return Turn(Kind.MISSING, stream=stream)
        held = schedule.frames.pop(schedule.next, None)
        schedule.next += 1
        if held is None:
            self.counts.concealed += 1
            return Turn(Kind.MISSING, stream=stream)
        self.counts.played += 1
        self._heard = schedule.next
        self.counts.recovered += not held.whole
        self.counts.waited += now - held.arrived
        return Turn(Kind.FRAME, held.codes, stream)

    def _adjust(self, schedule: _Schedule, error: float) -> bool:
        """Leaves frames out where the offset is too large; whether to fill one in instead."""
        assert schedule.offset is not None
        frames = error / self._frame
        schedule.since_change += 1
        if schedule.since_change < _SPACING and abs(frames) < _FAR:
            return False
        if frames > _TOO_LARGE:
            # What no delay can be is caught up with at once: this end had stood still.
            count = int(frames) if error > self._longest else 1
            for number in range(schedule.next, schedule.next + count):
                schedule.frames.pop(number, None)
            schedule.next += count
            schedule.offset -= count * self._frame
            self.counts.left_out += count
        elif frames < _TOO_SMALL:
            schedule.offset += self._frame
        else:
            return False
        schedule.since_change = 0
        return frames < 0

    def _learn(self, schedule: _Schedule, transit: float) -> None:
        """Chooses the delay anew, by one more packet's transit."""
        schedule.transits.append(transit)
        ordered = sorted(schedule.transits)
        lateness = ordered[round(_QUANTILE * (len(ordered) - 1))] - ordered[0]
        # Half a frame more, as the offset may be so much off its target.
        wanted = max(self._shortest, lateness + self._frame / 2)
        schedule.base, schedule.target = ordered[0], min(self._longest, wanted)

    def _take(self, sequence: int) -> bool:
        """Counts a packet; whether it is new."""
        before = self._arrivals.lost, self._arrivals.duplicates, self._arrivals.reordered
        new = self._arrivals.take(self._sequences(sequence))
        after = self._arrivals.lost, self._arrivals.duplicates, self._arrivals.reordered
        self.counts.packets += new
        self.counts.lost += after[0] - before[0]
        self.counts.duplicates += after[1] - before[1]
        self.counts.reordered += after[2] - before[2]
        return new

    def _fitting(self, first: int, count: int, now: float) -> _Schedule:
        """The schedule that these frames belong to: a new one if the sender's clock jumped."""
        most = (self._longest + _AHEAD_SECONDS) / self._frame
        schedule = self._schedule
        if schedule is None:
            self._schedule = schedule = _Schedule(max(first, self._heard))
        begun = schedule.offset is not None
        late = first + count <= (schedule.next if begun else schedule.next - most)
        self.counts.late += late
        if not late:
            schedule.late_since = None
        elif schedule.late_since is None:
            schedule.late_since = now
        # A burst that an outage held back is late as well, but comes at once. What has been
        # played, if only in part, is never played again.
        late_for = 0.0 if schedule.late_since is None else now - schedule.late_since
        jumped = late_for >= _LATE_SECONDS and first >= self._heard
        if jumped or first - schedule.next > most:
            self.counts.resyncs += 1
            self._schedule = schedule = _Schedule(first)
        elif not begun and not late:
            schedule.next = max(min(schedule.next, first), self._heard)
        return schedule

    def _begin(self, stream: int) -> None:
        self._retire()
        self._stream = stream
        self._arrivals = Arrivals()
        self._sequences, self._numbers = Unwrapped(SEQUENCE_BITS), Unwrapped(FRAME_BITS)
        self._origin, self._heard = None, _BEFORE_ALL
        self.counts.streams += 1

    def _retire(self) -> None:
        if self._stream is not None:
            self._retired.append(self._stream)
        self._stream, self._schedule = None, None

"""Numbers that wrap around, and which of them have come: RFC 3550's bookkeeping for packets."""

from dataclasses import dataclass, field

_REMEMBERED = 1024  # packets back that a copy is known of


class Unwrapped:
    """Turns numbers modulo 2^bits into ones that go on: the nearest to the highest so far."""

    def __init__(self, bits: int) -> None:
        self._modulus = 1 << bits
        self._highest: int | None = None

    def __call__(self, number: int) -> int:
        """The number, unwrapped; the first is as it is, and earlier ones may be negative."""
        if self._highest is None:
            self._highest = number
        half = self._modulus // 2
        found = self._highest + (number - self._highest + half) % self._modulus - half
        self._highest = max(self._highest, found)
        return found


@dataclass
class Arrivals:
    """Which packets of a stream came, by unwrapped sequence numbers.

    Attributes:
        came: packets, copies not counted.
        duplicates: copies.
        reordered: packets that came after one with a higher number.
    """

    came: int = 0
    duplicates: int = 0
    reordered: int = 0
    _first: int = 0
    _highest: int = -1
    _seen: set[int] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """Packets between the first and the last that did not come."""
        return max(0, self._highest - self._first + 1 - self.came)

    def take(self, sequence: int) -> bool:
        """Notes a packet; False: it is a copy, or as old as one that cannot be told from a copy."""
        if not self.came:
            self._first = self._highest = sequence
        elif sequence in self._seen or sequence <= self._highest - _REMEMBERED:
            self.duplicates += 1
            return False
        self.came += 1
        self.reordered += sequence < self._highest
        self._first = min(self._first, sequence)
        self._highest = max(self._highest, sequence)
        self._seen.add(sequence)
        if len(self._seen) > 2 * _REMEMBERED:
            self._seen = {one for one in self._seen if one > self._highest - _REMEMBERED}
        return True

"""What the outputs of convolutional layers read, as numbers alone.

Every description answers the same three questions. `length(n)`: how many outputs n inputs give.
`input_span(first, last, length)`: which inputs have to be there for the outputs `first` to `last`
to be what they are for the whole signal. `unit` and `hop`: by how many inputs a signal must be
shifted for the outputs to shift by whole ones, and by how many they then do.

Indices count from the signal's start. A layer pads at the signal's true ends only, so spans are
clipped to the signal: to 0 on the left, to `length` inputs on the right where the end is known. An
end that is reflected makes outputs near it read inputs on their other side, further than elsewhere.
A span also has the inputs without which an output would not exist, which is more than it reads
where a layer throws outputs away.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

Edge = Literal["zeros", "reflect", "replicate"]
"""What a layer puts before and after a signal."""

# Long enough that two descriptions of different lengths differ, whatever their strides.
_LONG = 10_000


class Layers(Protocol):
    """A description of one layer or of many."""

    @property
    def unit(self) -> int:
        """Inputs by which a signal can be shifted."""

    @property
    def hop(self) -> int:
        """Outputs by which its result is shifted then."""

    def length(self, n: int) -> int:
        """Outputs for n inputs; none for none."""

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """First and last input that outputs `first` to `last` need, of a signal of `length`.

        Without a length the signal goes on: nothing is read from behind its end.
        """


@dataclass(frozen=True)
class Convolution:
    """Output t reads the inputs t * stride - left + k * dilation for k = 0 ... kernel_size - 1.

    Also padding by itself (`kernel_size` 1), and, where `left` or `right` is negative, cutting off.

    Attributes:
        left: inputs that are put before the signal.
        right: inputs that are put after it.
        edge: what these are.
    """

    kernel_size: int = 1
    stride: int = 1
    dilation: int = 1
    left: int = 0
    right: int = 0
    edge: Edge = "zeros"

    @property
    def unit(self) -> int:
        """A stride."""
        return self.stride

    @property
    def hop(self) -> int:
        """One output."""
        return 1

    @property
    def extent(self) -> int:
        """Inputs from the first to the last that an output reads."""
        return (self.kernel_size - 1) * self.dilation + 1

    def length(self, n: int) -> int:
        """One output for every place where the filter fits into the padded signal."""
        room = n + self.left + self.right - self.extent
        return room // self.stride + 1 if n > 0 and room >= 0 else 0

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """See `Layers`."""
        low, high = first * self.stride, last * self.stride
        start, stop = low - self.left, high - self.left + self.extent - 1
        low, high = min(start, low), max(stop, stop - self.right)
        if self.edge == "reflect" and start < 0:
            high = max(high, self.left)  # a signal has to be longer than what is reflected of it
        if self.edge == "reflect" and length is not None and stop >= length:
            low = min(low, length - 1 - self.right)
        return clipped(low, high, length)


@dataclass(frozen=True)
class Transposed:
    """Output t, counted before `left` are cut off, gets input i at tap (t - i * stride) / dilation.

    Attributes:
        left: outputs that are cut off at the start.
        right: outputs that are cut off at the end; a negative number adds some (output_padding).
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1
    left: int = 0
    right: int = 0

    @property
    def unit(self) -> int:
        """One input."""
        return 1

    @property
    def hop(self) -> int:
        """A stride."""
        return self.stride

    @property
    def extent(self) -> int:
        """Outputs from the first to the last that an input reaches."""
        return (self.kernel_size - 1) * self.dilation + 1

    def length(self, n: int) -> int:
        """What the last input reaches, without what is cut off."""
        return max(0, (n - 1) * self.stride + self.extent - self.left - self.right) if n else 0

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """See `Layers`."""
        low = -(-(first + self.left - self.extent + 1) // self.stride)
        high = (last + self.left) // self.stride
        existing = -(-(last + 1 + self.left + self.right - self.extent) // self.stride)
        return clipped(min(low, first // self.stride), max(high, existing), length)


@dataclass(frozen=True)
class Chain:
    """Layers one after the other; none at all pass everything through."""

    layers: tuple[Layers, ...] = ()

    @property
    def unit(self) -> int:
        """The fewest inputs that are whole units of every layer."""
        return self._unit_and_hop()[0]

    @property
    def hop(self) -> int:
        """Outputs of so many inputs."""
        return self._unit_and_hop()[1]

    def _unit_and_hop(self) -> tuple[int, int]:
        unit = hop = 1
        for layer in self.layers:
            times = layer.unit // math.gcd(hop, layer.unit)
            unit, hop = unit * times, hop * times // layer.unit * layer.hop
        return unit, hop

    def length(self, n: int) -> int:
        """Outputs of the last layer."""
        for layer in self.layers:
            n = layer.length(n)
        return n

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """From the last layer back to the first."""
        lengths = [length]
        for layer in self.layers[:-1]:
            before = lengths[-1]
            lengths.append(None if before is None else layer.length(before))
        for layer, known in zip(reversed(self.layers), reversed(lengths), strict=False):
            first, last = layer.input_span(first, last, known)
        return first, last


@dataclass(frozen=True)
class Sum:
    """Branches side by side whose outputs are added, such as a residual unit and what passes by.

    Raises:
        ValueError: the branches do not give equally many outputs.
    """

    branches: tuple[Layers, ...]

    def __post_init__(self) -> None:
        unit = self.unit
        lengths = {branch.length(_LONG * unit) for branch in self.branches}
        if len(lengths) > 1 or len({unit // b.unit * b.hop for b in self.branches}) > 1:
            raise ValueError(f"branches that give {lengths} outputs cannot be added")

    @property
    def unit(self) -> int:
        """The fewest inputs that are whole units of every branch."""
        return math.lcm(*(branch.unit for branch in self.branches))

    @property
    def hop(self) -> int:
        """Outputs of so many inputs."""
        return self.unit // self.branches[0].unit * self.branches[0].hop

    def length(self, n: int) -> int:
        """Outputs of each branch."""
        return self.branches[0].length(n)

    def input_span(self, first: int, last: int, length: int | None = None) -> tuple[int, int]:
        """What any branch needs."""
        spans = [branch.input_span(first, last, length) for branch in self.branches]
        return min(low for low, _ in spans), max(high for _, high in spans)


def clipped(low: int, high: int, length: int | None) -> tuple[int, int]:
    """The span within the signal; where it lies outside altogether, the input next to it."""
    low = max(0, low)
    high = max(low, high)
    return (low, high) if length is None else (min(low, length - 1), min(high, length - 1))

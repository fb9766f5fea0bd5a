"""A convolutional network run over a stream, window by window, as if over the whole signal.

The outputs of a window are computed from every input that they need (`Layers.input_span`) and no
other; what the same run gives beyond them is thrown away. At a cut a network pads where the stream
has inputs, which reaches thrown-away outputs only; at the stream's own ends it pads as it does for
the whole. So outputs are those of one run over everything up to float rounding. Windows lie on a
fixed grid: outputs do not depend on how the stream was pushed, to the bit.

`codec.chunking` does this for Sotto's own models, whose frames are whole hops and whose layers pad
with zeros, with equal codes as its aim. Here a window's inputs are asked of the layers each time,
as other networks reflect their signal's ends, and end in fewer or more samples than whole hops.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from codec.errors import ForeignCodecError
from codec.foreign.layers import Layers

# A window that is further from the stream's start than any layer sees.
_FAR = 10**9


class Stage(Protocol):
    """A part of a decoder that takes (batch, channels, time) in pieces."""

    hop: int
    """Outputs an input, in the long run."""

    def push(self, x: Tensor) -> Tensor:
        """Outputs that the next inputs complete."""

    def finish(self) -> Tensor:
        """All other outputs; nothing can be pushed any more."""

    def needed(self, outputs: int) -> int:
        """Inputs that have to come in before the first `outputs` outputs have come out."""

    def length(self, n: int) -> int:
        """Outputs of n inputs in all."""


class Chunked:
    """A `Stage` of a network that sees a bounded piece of its input at a time.

    Attributes:
        window: units whose outputs come out at a time; a unit is the network's smallest step, one
            frame of a decoder.
        unit: inputs a unit.
        hop: outputs a unit.
        before: units before a window that it is run on, far from the stream's start.
        after: units after it; negative where outputs lag behind.
        delay: inputs that have to come in, counted from a window's first one, before the window's
            outputs come out.
        start: the same for the first window: more than `delay` where layers reflect the start.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        layers: Layers,
        *,
        window: int,
        out_channels: int = 1,
    ) -> None:
        """`network` maps (batch, channels, inputs) to (batch, out_channels, outputs).

        Raises:
            ValueError: `window` is not positive.
        """
        if window < 1:
            raise ValueError(f"window = {window}: give 1 or more")
        self.window, self.unit, self.hop = window, layers.unit, layers.hop
        self._network, self._layers = network, layers
        self._out_channels = out_channels
        self._inputs, self._outputs = window * self.unit, window * self.hop  # of a window
        first, stop = self._span(_FAR)
        self.before = (_FAR * self._inputs - first) // self.unit
        self.delay = stop - _FAR * self._inputs
        self.after = -(-self.delay // self.unit) - window
        self.start = self._span(0)[1]
        self._back = max(self.before * self.unit, self._back_at_end())
        self._held: Tensor | None = None  # inputs from `_held_from` on
        self._held_from = self._received = self._next = 0
        self._wanted = self._span(0)  # by the next window
        self._finished = False

    def _span(self, window: int) -> tuple[int, int]:
        """Inputs that a window is run on, the last one exclusive, while the stream goes on."""
        first = window * self._outputs
        low, high = self._layers.input_span(first, first + self._outputs - 1)
        return low // self.unit * self.unit, high + 1

    def _back_at_end(self) -> int:
        """Inputs before a window that its outputs may read if the stream ends in it.

        Reflected ends reach further back the sooner after the window's start they come.
        """
        start, first = _FAR * self._inputs, _FAR * self._outputs
        end = start
        while self._layers.length(end) > first:
            end -= 1
        while self._layers.length(end) <= first:
            end += 1
        low, _ = self._layers.input_span(first, self._layers.length(end) - 1, end)
        return start - low // self.unit * self.unit

    def needed(self, outputs: int) -> int:
        """See `Stage`."""
        if outputs <= 0:
            return 0
        return max(self.start, self._span(-(-outputs // self._outputs) - 1)[1])

    def length(self, n: int) -> int:
        """See `Stage`."""
        return self._layers.length(n)

    def push(self, x: Tensor) -> Tensor:
        """Takes the next inputs, any number of them, and returns the outputs that are ready.

        Args:
            x: (batch, channels, inputs).

        Returns:
            (batch, out_channels, outputs), often of 0 outputs.

        Raises:
            ForeignCodecError: the network does not give as many outputs as its description says.
            ValueError: the stream is finished.
        """
        if self._finished:
            raise ValueError("this stream is finished: make a new one for the next signal")
        held = x if self._held is None else torch.cat([self._held, x], dim=-1)
        self._received += x.shape[-1]
        ready = []
        while self._wanted[1] <= self._received:
            ready.append(self._run(held, *self._wanted)[..., : self._outputs])
            self._next += 1
            self._wanted = self._span(self._next)
        keep = min(self._received, self._next * self._inputs - self._back)
        keep = max(self._held_from, keep)
        self._held = held[..., keep - self._held_from :].clone()
        self._held_from = keep
        return self._together(ready, x)

    def finish(self) -> Tensor:
        """Ends the stream and returns all outputs that are left, (batch, out_channels, outputs).

        Raises:
            ForeignCodecError: as `push`.
            ValueError: the stream is finished already, or nothing was ever pushed.
        """
        if self._finished or self._held is None:
            raise ValueError("this stream is finished already, or nothing was ever pushed")
        self._finished = True
        held, end = self._held, self._received
        first, total = self._next * self._outputs, self._layers.length(end)
        if total <= first:
            return self._together([], held)
        low, _ = self._layers.input_span(first, total - 1, end)
        return self._together([self._run(held, low // self.unit * self.unit, end)], held)

    def _run(self, held: Tensor, start: int, stop: int) -> Tensor:
        """Outputs from the next window's first one on, of a run on the inputs start to stop - 1."""
        # A copy has one layout in memory however the stream was pushed: kernels are chosen by it.
        piece = held[..., start - self._held_from : stop - self._held_from].clone()
        with torch.inference_mode():
            y = self._network(piece)
        expected = self._layers.length(stop - start)
        if y.shape[-2:] != (self._out_channels, expected):
            raise ForeignCodecError(
                f"the network gave {tuple(y.shape[-2:])} channels and outputs for {stop - start} "
                f"inputs, by its description it gives {(self._out_channels, expected)}"
            )
        return y[..., self._next * self._outputs - start // self.unit * self.hop :]

    def _together(self, outputs: list[Tensor], like: Tensor) -> Tensor:
        """An ordinary tensor, that gradients may be taken of."""
        return torch.cat([like.new_zeros(like.shape[0], self._out_channels, 0), *outputs], dim=-1)

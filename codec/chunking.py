"""Coding streams of any length in pieces of any size, to the bit as if they were whole.

A network's rounding depends on the shapes it is run on, and a changed last bit can flip a code. So
codes are made equal by construction: a stream is always cut into the same windows, on a fixed grid
of frames that depends on the model alone, each window is run by itself, and whole signals go the
same way. Equal to the bit holds on one machine with one PyTorch, whatever its number of threads.

A window is run with as many frames before and after it as its outputs depend on (the receptive
field, from the layers' `input_span`), whose own outputs are thrown away: at a cut, the layers pad
with zeros where the stream has samples, and that reaches these frames only. The stream's own
beginning and end lie at the edge of their windows, where every layer pads by itself as it does in
`forward`; what windows give is therefore `forward`'s up to float rounding. If nothing looks ahead,
the last window is filled with zeros up to one of few lengths: what lies behind a stream then
changes nothing in it, and a shape that was not met before costs the set-up of every convolution.

Batching windows or channels would save some time on very short signals only, and change their
rounding with the batch's size; each is run by itself, on one thread, and as many side by side as
PyTorch has threads. A piece that completes several windows keeps several cores busy.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from codec.errors import AudioError, BitstreamError
from codec.nn.autoencoder import Autoencoder
from codec.side_by_side import side_by_side

# Seconds a window lasts. On a CPU, shorter ones waste more on context and set-up; longer ones
# bring nothing, and once activations pass 32 MB, malloc fetches fresh pages for every layer: a
# minute at once took twice as long.
_SECONDS = 2.0
# A window is at least so many times as long as its context.
_CONTEXTS = 8
# Lengths to which a causal model's last window is filled up, so many to a window.
_FILLED_LENGTHS = 4


@dataclass(frozen=True)
class Grid:
    """Where the windows of every stream lie, in frames.

    Window k has the outputs of frames k * window to (k + 1) * window - 1; it is run on `before`
    more frames on the left and `after` on the right, where the stream has them.
    """

    window: int
    before: int
    after: int


class _SpannedCoder(Protocol):
    hop_length: int

    def input_span(self, first: int, last: int) -> tuple[int, int]: ...


def encoder_grid(encoder: _SpannedCoder, window: int) -> Grid:
    """Grid of `window` frames for encoding, its context whole hops that cover the input span."""
    hop = encoder.hop_length
    first, last = encoder.input_span(0, window - 1)
    return Grid(window, max(0, -(first // hop)), max(0, last // hop + 1 - window))


def decoder_grid(decoder: _SpannedCoder, window: int) -> Grid:
    """Grid of `window` frames for decoding."""
    first, last = decoder.input_span(0, window * decoder.hop_length - 1)
    return Grid(window, max(0, -first), max(0, last + 1 - window))


def window_frames(autoencoder: Autoencoder, frame_rate: float) -> int:
    """Frames of a window for this model, of `frame_rate` Hz: 2 s, or 8 times the context."""
    contexts = [
        grid.before + grid.after
        for grid in (encoder_grid(autoencoder.encoder, 1), decoder_grid(autoencoder.decoder, 1))
    ]
    return max(1, round(_SECONDS * frame_rate), _CONTEXTS * max(contexts))


@dataclass
class _Window:
    """A piece of the stream to run: `frames` outputs are wanted after the first `context` ones."""

    piece: Tensor
    context: int
    frames: int


class _Cutter:
    """Cuts a stream (..., length) into the grid's windows, however it comes.

    A frame is `unit` items of the stream. Memory is one window's.
    """

    def __init__(self, grid: Grid, unit: int, buffer: Tensor) -> None:
        """`buffer` is (..., at least (before + window + after) * unit) of any content."""
        self._grid = grid
        self._unit = unit
        self._buffer = buffer
        self._filled = 0
        self._context = 0  # frames at the buffer's start that belong to earlier windows

    def push(self, stream: Tensor) -> Iterator[_Window]:
        """Windows that the next items complete; each piece is to be used before the next is."""
        grid = self._grid
        at = 0
        while True:
            full = (self._context + grid.window + grid.after) * self._unit
            taken = min(full - self._filled, stream.shape[-1] - at)
            self._buffer[..., self._filled : self._filled + taken] = stream[..., at : at + taken]
            self._filled += taken
            at += taken
            if self._filled < full:
                return
            yield _Window(self._buffer[..., :full], self._context, grid.window)
            context = min(grid.before, self._context + grid.window)
            kept = (context + grid.after) * self._unit
            self._buffer[..., :kept] = self._buffer[..., full - kept : full].clone()
            self._filled, self._context = kept, context

    def finish(self) -> Iterator[_Window]:
        """The window that the stream's end cuts short, if there is one."""
        grid, unit = self._grid, self._unit
        frames = -(-self._filled // unit) - self._context
        if frames <= 0:
            return
        length = self._filled
        if grid.after == 0:
            step = -(-grid.window // _FILLED_LENGTHS)
            length = (self._context + min(grid.window, -(-frames // step) * step)) * unit
            self._buffer[..., self._filled : length] = 0
        yield _Window(self._buffer[..., :length], self._context, frames)


class _Stream:
    """What both directions share: a stream is pushed until it is finished."""

    def __init__(self, channels: int, grid: Grid) -> None:
        if channels < 1:
            raise ValueError(f"channels = {channels}: give 1 or more")
        _reuse_large_blocks()
        self.channels = channels
        self.window_frames = grid.window
        self._grid = grid
        self._finished = False

    def _require_open(self) -> None:
        if self._finished:
            raise ValueError("this stream is finished: make a new one for the next signal")


class ChunkedEncoder(_Stream):
    """Codes one signal that comes in pieces; `Codec.encoder` makes it.

    All pieces' codes one after the other are those that `Codec.encode` gives for the whole signal,
    bit for bit, wherever it was cut: ceil(samples / hop_length) frames.

    Attributes:
        channels: signals that are coded side by side, each by itself.
        window_frames: frames that come out at a time.
        delay: samples that have to come in, counted from a window's first one, before the window's
            codes come out; no more than so many are ever held back.
    """

    def __init__(
        self, autoencoder: Autoencoder, *, channels: int, n_quantizers: int, window: int
    ) -> None:
        """`window` in frames; `n_quantizers` codebooks are used.

        Raises:
            ValueError: a size is not positive.
        """
        encoder = autoencoder.encoder
        super().__init__(channels, encoder_grid(encoder, window))
        self.delay = (self._grid.window + self._grid.after) * encoder.hop_length
        self.n_quantizers = n_quantizers
        self._encoder = encoder
        self._quantizer = autoencoder.quantizer
        self._device = next(autoencoder.parameters()).device
        length = self._grid.before * encoder.hop_length + self.delay
        buffer = torch.zeros(channels, length, device=self._device)
        self._cutter = _Cutter(self._grid, encoder.hop_length, buffer)

    def push(self, wave: Tensor | np.ndarray) -> Tensor:
        """Takes the next samples, any number of them, and returns the codes that are ready.

        Args:
            wave: float in [-1, 1] at the model's sample rate, (channels, samples).

        Returns:
            int64 (channels, n_quantizers, frames), often of 0 frames.

        Raises:
            AudioError: NaN or infinite samples, or another shape or type; nothing was taken.
            ValueError: the stream is finished.
        """
        self._require_open()
        wave = torch.as_tensor(wave)
        if wave.ndim != 2 or wave.shape[0] != self.channels or not wave.is_floating_point():
            raise AudioError(
                f"a piece of shape {tuple(wave.shape)}, {wave.dtype}: expected floats of shape "
                f"({self.channels}, samples)"
            )
        if not torch.isfinite(wave).all():
            raise AudioError("the signal has NaN or infinite samples")
        return self._run(self._cutter.push(wave))

    def finish(self) -> Tensor:
        """Ends the signal and returns the remaining codes, (channels, n_quantizers, frames).

        Raises:
            ValueError: the stream is finished already.
        """
        self._require_open()
        self._finished = True
        return self._run(self._cutter.finish())

    def _run(self, windows: Iterator[_Window]) -> Tensor:
        nothing = torch.zeros(self.channels, self.n_quantizers, 0, device=self._device)
        codes = [nothing.to(torch.int64)]
        codes += _run_windows(windows, self._codes, self._device)
        return torch.cat(codes, dim=-1)  # an ordinary tensor, that training may take

    def _codes(self, row: Tensor, window: _Window) -> Tensor:
        latent = self._encoder(row[None, None])
        wanted = latent[..., window.context : window.context + window.frames]
        return self._quantizer.encode(wanted, self.n_quantizers)


class ChunkedDecoder(_Stream):
    """Turns the codes of one signal, which come in pieces, into speech; `Codec.decoder` makes it.

    All pieces' waves one after the other are what `Codec.decode` gives for the whole, bit for bit,
    wherever the codes were cut: frames * hop_length samples. Of a decoder with memory, windows give
    what that takes, and it goes through them one after the other.

    Attributes:
        channels: signals that are decoded side by side, each by itself.
        window_frames: frames whose samples come out at a time.
        delay: frames that have to come in, counted from a window's first one, before the window's
            samples come out; no more than so many are ever held back.
    """

    def __init__(self, autoencoder: Autoencoder, *, channels: int, window: int) -> None:
        """`window` in frames.

        Raises:
            ValueError: a size is not positive.
        """
        decoder = autoencoder.decoder
        super().__init__(channels, decoder_grid(decoder, window))
        self.delay = self._grid.window + self._grid.after + decoder.lookahead
        self._decoder = decoder
        self._early = decoder.lookahead * decoder.hop_length  # samples before the signal's first
        memory = decoder.memory
        self._memory = [memory.initial_state(1) for _ in range(channels)] if memory else []
        self._quantizer = autoencoder.quantizer
        self._device = next(autoencoder.parameters()).device
        self._n_quantizers: int | None = None  # known from the first piece on
        self._cutter: _Cutter | None = None
        self._last: Tensor | None = None  # frame, (channels, n, 1)

    def push(self, codes: Tensor | np.ndarray) -> Tensor:
        """Takes the next frames, any number of them, and returns the samples that are ready.

        Args:
            codes: integers in [0, codebook_size), (channels, n, frames) with any n from 1 to the
                model's number of codebooks, the same in all pieces.

        Returns:
            float32 (channels, samples), often of 0 samples.

        Raises:
            BitstreamError: codes of another shape or out of range; nothing was taken.
            ValueError: the stream is finished.
        """
        self._require_open()
        codes = self._checked(torch.as_tensor(codes))
        if self._cutter is None:
            self._n_quantizers = codes.shape[1]
            length = self._grid.before + self._grid.window + self._grid.after
            shape = (*codes.shape[:2], length)
            buffer = torch.zeros(shape, dtype=torch.int64, device=self._device)
            self._cutter = _Cutter(self._grid, 1, buffer)
        if codes.shape[-1]:
            self._last = codes[..., -1:].clone()
        return self._run(self._cutter.push(codes))

    def finish(self) -> Tensor:
        """Ends the signal and returns the remaining samples, (channels, samples).

        Raises:
            ValueError: the stream is finished already.
        """
        self._require_open()
        self._finished = True
        if self._cutter is None or self._last is None:
            return self._run(iter(()))
        held = self._last.expand(-1, -1, self._decoder.lookahead)  # as the decoder's forward does
        return self._run(chain(self._cutter.push(held), self._cutter.finish()))

    def _run(self, windows: Iterator[_Window]) -> Tensor:
        waves = [torch.zeros(self.channels, 0, device=self._device)]
        waves += [self._remembered(y) for y in _run_windows(windows, self._window, self._device)]
        wave = torch.cat(waves, dim=-1)
        early = min(self._early, wave.shape[-1])
        self._early -= early
        return wave[:, early:]

    def _window(self, row: Tensor, window: _Window) -> Tensor:
        """(1, channels, n) of the frames that are wanted."""
        y = self._decoder.windowed(self._quantizer.decode(row[None]))
        unit = y.shape[-1] // row.shape[-1]
        return y[..., window.context * unit : (window.context + window.frames) * unit]

    def _remembered(self, windowed: Tensor) -> Tensor:
        """The wave (channels, samples) of all channels' next window."""
        memory = self._decoder.memory
        if memory is None:
            return windowed[:, 0]
        waves = []
        with torch.inference_mode():
            for channel, state in enumerate(self._memory):
                wave, self._memory[channel] = memory.step(windowed[channel : channel + 1], state)
                waves.append(wave[:, 0])
        return torch.cat(waves)

    def _checked(self, codes: Tensor) -> Tensor:
        most = self._quantizer.n_quantizers
        n = self._n_quantizers
        fits = codes.ndim == 3 and codes.shape[0] == self.channels
        fits = fits and (1 <= codes.shape[1] <= most if n is None else codes.shape[1] == n)
        if not fits or codes.is_floating_point() or codes.is_complex():
            wanted = f"n from 1 to {most}" if n is None else f"n = {n} as before"
            raise BitstreamError(
                f"codes of shape {tuple(codes.shape)}, {codes.dtype}: expected integers of shape "
                f"({self.channels}, n, frames) with {wanted}"
            )
        codes = codes.to(torch.int64)  # of NumPy's unsigned types, PyTorch has no minimum
        size = self._quantizer.codebook_size
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise BitstreamError(
                f"codes from {int(codes.min())} to {int(codes.max())}: this model's lie in 0 to "
                f"{size - 1}"
            )
        return codes


def _run_windows(
    windows: Iterator[_Window], run: Callable[[Tensor, _Window], Tensor], device: torch.device
) -> Iterator[Tensor]:
    """What `run` makes of every channel of every window, (channels, ...) each.

    What is done with one before the next is asked for has one thread as well.
    """

    def together(rows: list[Tensor], window: _Window) -> Tensor:
        with torch.inference_mode():
            return torch.cat([run(row, window) for row in rows])

    # A copy has the same alignment in memory for every channel, and stays when the window moves on.
    tasks = (partial(together, [row.clone() for row in w.piece], w) for w in windows)
    with _reproducible():
        yield from side_by_side(tasks) if device.type == "cpu" else (task() for task in tasks)


def _reproducible() -> AbstractContextManager[None]:
    """On CUDA: no TF32, which would flip codes, and no kernels chosen by timing."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


@cache
def _reuse_large_blocks() -> None:
    """Has glibc keep freed activations for the next layer instead of returning them each time.

    Getting fresh pages from the system costs up to a quarter of a window's time. Its malloc learns
    from the largest block below 32 MB that it has freed; this one is never written to. Of no
    consequence for other allocators.
    """
    torch.empty(31 << 20, dtype=torch.uint8)

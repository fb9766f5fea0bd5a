"""Encoder and decoder of a voice: ConvNeXt layers beside linear paths that analysis can begin."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.convnext import ChannelNorm, check_lists, stack
from codec.nn.convolution import Chain, Conv1d, ConvTranspose1d, State, StreamingLayer
from codec.nn.features import FEATURES, VoiceFeatures
from codec.nn.halves import WaveDecoder, WaveEncoder
from codec.nn.noise import LatentNoise
from codec.nn.parameters import APERIODICITY, ENVELOPE
from codec.nn.voice import REACH, Controls, VoiceSynthesis

ENVELOPE_SCALE = 10.0
"""Latents of the linear paths are an envelope's principal components over this."""
# Networks begin as next to nothing beside what the linear paths say.
_CORRECTION_GAIN = 0.01
_TYPICAL_ENVELOPE = -14.0  # log power of the middle of speech
_TYPICAL_APERIODICITY = -2.0  # 10 dB


class Sum(StreamingLayer):
    """Layers side by side on the same input, whose outputs are added up."""

    def __init__(self, *branches: StreamingLayer) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.state_size = sum(branch.state_size for branch in branches)

    def _streaming(self) -> list[StreamingLayer]:
        return [branch for branch in self.branches if isinstance(branch, StreamingLayer)]

    def forward(self, x: Tensor) -> Tensor:
        """Pass a whole signal (batch, in_channels, time) through all branches."""
        first, *others = (branch(x) for branch in self.branches)
        for y in others:
            first = first + y
        return first

    def initial_state(self, batch_size: int) -> State:
        """Return all branches' initial states, end to end."""
        states = [branch.initial_state(batch_size) for branch in self._streaming()]
        return tuple(tensor for state in states for tensor in state)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Pass the next piece through all branches."""
        outputs: list[Tensor] = []
        new_state: State = ()
        start = 0
        for branch in self._streaming():
            y, new = branch.step(x, state[start : start + branch.state_size])
            start += branch.state_size
            outputs.append(y)
            new_state += new
        total = outputs[0]
        for y in outputs[1:]:
            total = total + y
        return total, new_state

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Return the widest span."""
        spans = [branch.input_span(first, last) for branch in self._streaming()]
        return min(span[0] for span in spans), max(span[1] for span in spans)


class VoiceEncoder(WaveEncoder):
    """wave (batch, 1, samples) -> latent (batch, dimension, frames), frames = ceil(samples / hop).

    `VoiceFeatures` every `strides[0]` samples; on these a network of ConvNeXt blocks as in
    `ConvNeXtEncoder`, and beside it one convolution of kernel 2 * stride to the latent, which may
    begin as principal components of the envelope. The latent is their sum.

    Raises:
        ValueError: lists of unequal length, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        strides: Sequence[int] = (80, 4),
        channels: Sequence[int] = (128, 224),
        blocks: Sequence[int] = (2, 2),
        dimension: int = 64,
        kernel_size: int = 7,
        expansion: int = 3,
    ) -> None:
        check_lists(strides, channels, blocks)
        layers: list[nn.Module] = [Conv1d(FEATURES, channels[0], 1)]
        for i, (stride, width, depth) in enumerate(zip(strides, channels, blocks, strict=True)):
            if i:
                layers.append(Conv1d(channels[i - 1], width, 2 * stride, stride=stride))
            layers += stack(depth, width, kernel_size, expansion, True)
        layers.append(ChannelNorm(channels[-1]))
        layers.append(Conv1d(channels[-1], dimension, 1, gain=_CORRECTION_GAIN))
        frame = math.prod(strides[1:])
        linear = Conv1d(FEATURES, dimension, 2 * frame, stride=frame)
        super().__init__(
            [VoiceFeatures(sample_rate, strides[0]), Sum(linear, Chain(layers))],
            hop_length=math.prod(strides),
            dimension=dimension,
        )

    @property
    def linear(self) -> Conv1d:
        """The linear path."""
        return self.get_submodule("layers.1.branches.0")  # type: ignore[return-value]


class VoiceTrunk(StreamingLayer):
    """Latent (batch, dimension, frames) -> controls (batch, rows, frames * product of strides[1:]).

    See `codec.nn.voice.Controls` for the rows. ConvNeXt blocks as in `ConvNeXtDecoder`; the
    envelope has a linear path beside them, and noise is a function of the latent, `LatentNoise`.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        channels: Sequence[int],
        blocks: Sequence[int],
        dimension: int,
        last_kernel_size: int,
        kernel_size: int,
        expansion: int,
        controls: Controls,
    ) -> None:
        super().__init__()
        check_lists(strides, channels, blocks)
        layers: list[nn.Module] = [Conv1d(dimension, channels[-1], last_kernel_size)]
        for i in range(len(strides) - 1, -1, -1):
            layers += stack(blocks[i], channels[i], kernel_size, expansion, True)
            if i:
                layers.append(ConvTranspose1d(channels[i], channels[i - 1], stride=strides[i]))
        layers.append(ChannelNorm(channels[0]))
        layers.append(_head(channels[0], controls))
        self.stride = math.prod(strides[1:])
        self.network = Chain(layers)
        self.linear = ConvTranspose1d(dimension, ENVELOPE, stride=self.stride)
        noise = controls.noise.stop - controls.noise.start
        self.noise = LatentNoise(dimension, self.stride * noise)
        self.state_size = self.network.state_size + self.linear.state_size

    @property
    def head(self) -> Conv1d:
        """The layer that predicts controls."""
        return self.network.layers[-1]  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Controls of a whole latent."""
        return self._controls(self.network(x), self.linear(x), x)

    def initial_state(self, batch_size: int) -> State:
        """Return the zeros before the latent."""
        return self.network.initial_state(batch_size) + self.linear.initial_state(batch_size)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Controls of the next frames."""
        size = self.network.state_size
        y, network = self.network.step(x, state[:size])
        envelope, linear = self.linear.step(x, state[size:])
        return self._controls(y, envelope, x), network + linear

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Return the frames that controls depend on."""
        spans = [self.network.input_span(first, last), self.linear.input_span(first, last)]
        return min(span[0] for span in spans), max(span[1] for span in spans)

    def _controls(self, y: Tensor, envelope: Tensor, latent: Tensor) -> Tensor:
        noise = self.noise.noise(latent).unflatten(1, (-1, self.stride))
        noise = noise.transpose(2, 3).flatten(2)
        head, rest = y[:, :ENVELOPE], y[:, ENVELOPE:]
        return torch.cat((ENVELOPE_SCALE * (head + envelope), rest, noise), dim=1)


class VoiceDecoder(WaveDecoder):
    """latent (batch, dimension, frames) -> wave (batch, 1, frames * hop_length).

    `VoiceTrunk`, then `VoiceSynthesis`. Frame n of the wave is made of latents up to n +
    `lookahead`; after the last, it is held. `step` is causal instead: its output lies `lookahead`
    frames back, and a stream begins with as many frames that lie before the wave.

    Args:
        lookahead: frames, 0 or more. A window needs 10 ms of parameters behind its hop; with one
            frame of 20 ms the other 10 are the trunk's, without, it has to guess them.

    Raises:
        ValueError: lists of unequal length, or a size that is not positive.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        strides: Sequence[int] = (80, 4),
        channels: Sequence[int] = (96, 224),
        blocks: Sequence[int] = (3, 3),
        dimension: int = 64,
        last_kernel_size: int = 3,
        kernel_size: int = 7,
        expansion: int = 3,
        lookahead: int = 1,
    ) -> None:
        synthesis = VoiceSynthesis(sample_rate, strides[0])
        trunk = VoiceTrunk(
            strides=strides,
            channels=channels,
            blocks=blocks,
            dimension=dimension,
            last_kernel_size=last_kernel_size,
            kernel_size=kernel_size,
            expansion=expansion,
            controls=synthesis.controls,
        )
        super().__init__([trunk, synthesis], hop_length=math.prod(strides), dimension=dimension)
        self.lookahead = lookahead

    @property
    def trunk(self) -> VoiceTrunk:
        """From latent to controls."""
        return self.layers[0]  # type: ignore[return-value]

    @property
    def synthesis(self) -> VoiceSynthesis:
        """From controls to the wave."""
        return self.layers[1]  # type: ignore[return-value]

    @property
    def memory(self) -> VoiceSynthesis:
        """The source, whose phase is a sum over all that came before."""
        return self.synthesis

    def windowed(self, latent: Tensor) -> Tensor:
        """Controls, of which those of a frame depend on a few frames of the latent alone."""
        return self.trunk(latent)

    @property
    def shift(self) -> int:
        """Controls i describe frame i - shift of the parameters."""
        return self.lookahead * self.trunk.stride - REACH

    def controls(self, latent: Tensor) -> Tensor:
        """(batch, rows, (frames + lookahead) * ...) of a whole latent, its last frame held."""
        return self.trunk(F.pad(latent, (0, self.lookahead), mode="replicate"))

    def forward(self, x: Tensor) -> Tensor:
        """Decode a whole latent."""
        if x.shape[-1] == 0:
            return x.new_zeros(x.shape[0], 1, 0)
        return self.wave(self.controls(x))

    def wave(self, controls: Tensor) -> Tensor:
        """The wave of what `controls` gave, (batch, 1, frames * hop_length)."""
        return self.synthesis(controls)[..., self.lookahead * self.hop_length :]

    def input_span(self, first: int, last: int) -> tuple[int, int]:
        """Frames that the controls of samples depend on; for their phase, see `memory`."""
        hop = self.synthesis.hop_length
        return self.trunk.input_span(first // hop, last // hop)


def _head(channels: int, controls: Controls) -> Conv1d:
    """The layer that predicts controls: small corrections, and a free spectrum of nothing."""
    layer = Conv1d(channels, controls.predicted, 1, gain=_CORRECTION_GAIN)
    if layer.weight.is_meta:
        return layer
    with torch.no_grad():
        gains = layer.get_parameter("parametrizations.weight.original0")
        gains[controls.aperiodicity : controls.f0.start] = 0.1
        gains[controls.f0] = 1.0
        gains[controls.free] = 0.0
        assert layer.bias is not None
        layer.bias[:ENVELOPE] = _TYPICAL_ENVELOPE / ENVELOPE_SCALE
        layer.bias[APERIODICITY] = _TYPICAL_APERIODICITY
    return layer

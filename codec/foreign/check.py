"""Whether a description of a network's layers is true, by its gradient and its lengths."""

from collections.abc import Callable

import torch
from torch import Tensor

from codec.errors import ForeignCodecError
from codec.foreign.layers import Layers

# Random inputs tried: at one of them a rectifier may hide what an output reads.
_TRIALS = 3


def receptive_field_by_gradient(
    network: Callable[[Tensor], Tensor],
    signal: Tensor,
    first: int,
    last: int,
) -> tuple[int, int] | None:
    """First and last input that outputs `first` to `last` depend on at this signal.

    An output depends on an input where its derivative is not zero: what is too small for the
    signal's dtype is not seen.

    Args:
        network: float (batch, channels, inputs) -> (batch, channels, outputs).
        signal: (batch, channels, inputs).
        first: index of an output.
        last: of another, or the same.

    Returns:
        Indices into the inputs; none if the outputs depend on no input.
    """
    x = signal.detach().requires_grad_(True)
    with torch.enable_grad():
        y = network(x)[..., first : last + 1]
        weights = torch.linspace(1.0, 2.0, y.numel(), dtype=y.dtype, device=y.device)
        (gradient,) = torch.autograd.grad((y * weights.view_as(y)).sum(), x)
    touched = gradient.abs().amax(dim=(0, 1)).nonzero()
    return (int(touched[0]), int(touched[-1])) if len(touched) else None


def check_layers(
    network: Callable[[Tensor], Tensor],
    layers: Layers,
    example: Tensor,
    *,
    seed: int = 0,
) -> None:
    """Compares a description with the network it describes, and raises where it says too little.

    One hop of outputs at the signal's start, in its middle and at its end is followed back to the
    inputs by gradient, at random signals of the example's size; they must lie in `input_span`. The
    lengths of outputs must be those of `length`, for signals that are some inputs shorter too.
    A description that says too much is no error: it costs time, not samples.

    Args:
        network: (batch, channels, inputs) -> (batch, channels, outputs).
        layers: its description.
        example: (batch, channels, inputs) of the network's dtype and device and of a typical size;
            longer than the receptive field by so much that the middle sees neither end.
        seed: of the random signals.

    Raises:
        ForeignCodecError: the description is wrong; the message says where and by how much.
    """
    inputs = example.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    unit = layers.unit
    for shorter in sorted({0, 1, unit // 3, unit // 2, unit - 1, unit} & set(range(inputs))):
        with torch.inference_mode():
            given = network(example[..., : inputs - shorter]).shape[-1]
        if given != (expected := layers.length(inputs - shorter)):
            raise ForeignCodecError(
                f"{inputs - shorter} inputs give {given} outputs, by the description {expected}"
            )
    outputs, hop = layers.length(inputs), layers.hop
    for _ in range(_TRIALS):
        noise = torch.randn(example.shape, generator=generator)
        signal = noise.to(example) * max(1e-3, float(example.std(correction=0)))
        for first in sorted({0, max(0, outputs // 2 - hop), max(0, outputs - hop)}):
            last = min(outputs, first + hop) - 1
            read = receptive_field_by_gradient(network, signal, first, last)
            low, high = layers.input_span(first, last, inputs)
            if read is not None and not low <= read[0] <= read[1] <= high:
                raise ForeignCodecError(
                    f"outputs {first} to {last} depend on the inputs {read[0]} to {read[1]}, "
                    f"by the description on {low} to {high} only: a stream would differ"
                )

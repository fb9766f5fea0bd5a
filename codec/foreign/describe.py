"""From PyTorch's modules to what their outputs read."""

from collections.abc import Callable, Mapping
from typing import cast

from torch import nn

from codec.errors import ForeignCodecError
from codec.foreign.layers import Chain, Convolution, Edge, Layers, Transposed

Describe = Callable[[nn.Module], Layers]
Handler = Callable[[nn.Module, Describe], Layers]
"""Describes a module of a type of its own; is given the way to describe the modules in it."""
Handlers = Mapping[type[nn.Module], Handler]

_EDGES: dict[str, Edge] = {"zeros": "zeros", "reflect": "reflect", "replicate": "replicate"}
# Each sample by itself, or all channels of one time.
_POINTWISE = (
    nn.Identity,
    nn.ELU,
    nn.GELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
_POINTWISE_IN_EVALUATION = (nn.BatchNorm1d, nn.Dropout)
_PADDINGS: dict[type[nn.Module], Edge] = {
    nn.ConstantPad1d: "zeros",
    nn.ZeroPad1d: "zeros",
    nn.ReflectionPad1d: "reflect",
    nn.ReplicationPad1d: "replicate",
}
_WHY_NOT: dict[type[nn.Module], str] = {
    nn.RNNBase: "remembers all that came before; carry its state in a stage of its own",
    nn.GroupNorm: "normalises over the whole signal",
    nn.modules.instancenorm._InstanceNorm: "normalises over the whole signal",
    nn.MultiheadAttention: "may look at the whole signal",
}


def describe(network: nn.Module, handlers: Handlers | None = None) -> Layers:
    """What the outputs of a network read, from the settings of its layers.

    `nn.Sequential`, convolutions, padding, nearest upsampling and activations are known, and their
    subclasses that have no `forward` of their own. For others, which may pad, add branches or cut
    outputs off, a handler says what they do; one for a class counts for its subclasses too.

    Args:
        network: (batch, channels, time) -> (batch, channels, time), in evaluation mode.
        handlers: the types that are not PyTorch's, or are to be described in another way.

    Raises:
        ForeignCodecError: a type without a description, or one that cannot be cut into chunks; the
            message names the module.
    """
    handlers = handlers or {}
    names = {module: name for name, module in network.named_modules()}

    def inner(module: nn.Module) -> Layers:
        for kind, handler in handlers.items():
            if isinstance(module, kind):
                return handler(module, inner)
        layers = _known(module, inner)
        if layers is None:
            name = names.get(module) or "the network"
            raise ForeignCodecError(f"{name} ({type(module).__name__}) {_reason(module)}")
        return layers

    return inner(network)


def pointwise(module: nn.Module, describe: Describe) -> Layers:
    """Handler of a module whose output at any time depends on the input of that time alone."""
    return Chain()


def of_attribute(name: str) -> Handler:
    """Handler of a module whose `forward` is that of its attribute `name`."""

    def handler(module: nn.Module, describe: Describe) -> Layers:
        return describe(getattr(module, name))

    return handler


def _known(module: nn.Module, inner: Describe) -> Layers | None:
    """Of PyTorch's own types; none if it is another, or one that cannot be described."""
    if isinstance(module, nn.Sequential) and _is(module, nn.Sequential):
        return Chain(tuple(inner(child) for child in module))
    if isinstance(module, nn.Conv1d) and _is(module, nn.Conv1d):
        return _convolution(module)
    if isinstance(module, nn.ConvTranspose1d) and _is(module, nn.ConvTranspose1d):
        return _transposed(module)
    for kind, edge in _PADDINGS.items():
        if _is(module, kind):
            left, right = cast("tuple[int, int]", module.padding)
            return Convolution(left=left, right=right, edge=edge)
    if isinstance(module, nn.Upsample) and _is(module, nn.Upsample):
        return _upsampling(module)
    if any(_is(module, kind) for kind in _POINTWISE_IN_EVALUATION) and not module.training:
        return Chain()
    return Chain() if any(_is(module, kind) for kind in _POINTWISE) else None


def _is(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it does what `kind` does: a subclass may pad or cut in a `forward` of its own."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def _convolution(module: nn.Conv1d) -> Convolution | None:
    kernel_size, stride, dilation = module.kernel_size[0], module.stride[0], module.dilation[0]
    if isinstance(module.padding, str):
        total = (kernel_size - 1) * dilation if module.padding == "same" else 0
        left, right = total // 2, total - total // 2
    else:
        left = right = module.padding[0]
    edge = _EDGES.get(module.padding_mode)
    if edge is None:
        return None
    return Convolution(kernel_size, stride, dilation, left=left, right=right, edge=edge)


def _transposed(module: nn.ConvTranspose1d) -> Transposed:
    (padding,) = cast("tuple[int]", module.padding)
    (more,) = module.output_padding
    sizes = module.kernel_size[0], module.stride[0], module.dilation[0]
    return Transposed(*sizes, left=padding, right=padding - more)


def _upsampling(module: nn.Upsample) -> Transposed | None:
    factor = module.scale_factor
    factor = factor[0] if isinstance(factor, tuple) else factor
    if module.mode != "nearest" or factor is None or not float(factor).is_integer():
        return None
    return Transposed(int(factor), int(factor))


def _reason(module: nn.Module) -> str:
    for kind, reason in _WHY_NOT.items():
        if isinstance(module, kind):
            return f"{reason}: it cannot be cut into chunks"
    if isinstance(module, _POINTWISE_IN_EVALUATION) and module.training:
        return "is in training mode: call eval() first"
    return "has no description here: give a handler that says what its outputs read"

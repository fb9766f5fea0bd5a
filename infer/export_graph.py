"""Writing an ONNX graph node by node, with what comes before a piece of signal as a choice.

Signals lie time-major here, (batch, time, channels): then a convolution over few frames is one
matrix product over windows that are slices put side by side, folding a stride into channels copies
nothing, and the only product of a layer is a MatMul, which runs in int8 as well as in fp32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from infer.runtime.card import StateTensor

OPSET = 20
IR_VERSION = 9
_ONNX_RUNTIME = "com.microsoft"  # the domain of operators of its own

Array = NDArray[Any]

# Weights leave a bit unused: where a processor has no instructions for products of bytes, ONNX
# Runtime adds two of them in 16 bits, and 2 * 255 * 64 still fits. (Unsigned weights would be safe
# with all 8 bits, but take up to a third longer where there are such instructions.)
_WEIGHT_MAX = 64

_KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}

_TO_THE_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Scale:
    """Of a tensor in 8 bits: value = scale * (integer - zero_point), integers 0 ... 255."""

    scale: float
    zero_point: int


class Graph:
    """An ONNX graph under construction; values are known by their names.

    Attributes:
        streaming: whether pieces follow their state, instead of zeros.
        states: what the graph remembers, in order; none for whole signals.
        products: of each matrix product that may run in int8, what is multiplied.
    """

    def __init__(
        self, name: str, *, streaming: bool, scales: Sequence[Scale] | None = None
    ) -> None:
        """`streaming`: pieces follow their state, instead of zeros. `scales`: see `product`."""
        self.name = name
        self.states: list[StateTensor] = []
        self.products: list[str] = []
        self.streaming = streaming
        self._scales = scales
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._initializers: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._counts: dict[str, int] = {}

    def input(self, name: str, dtype: int, shape: Sequence[str | int]) -> str:
        """A value that comes from outside; text in `shape` names an axis of any length."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, value: str, dtype: int, shape: Sequence[str | int]) -> None:
        """Gives a value out under a name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"out_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, whose name is returned; "" stands for an input left out."""
        output = self._name(operator.lower())
        self._nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, array: Array | np.generic, name: str = "constant") -> str:
        """A constant; the same one twice is kept once."""
        array = np.ascontiguousarray(array)
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._constants:
            self._constants[key] = self._name(name)
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """A list of int64, such as a shape."""
        return self.constant(np.array(values, np.int64), "integers")

    def split(self, x: str, *widths: int, axis: int = 2) -> list[str]:
        """Parts of these widths, one after the other along an axis."""
        parts = [self._name("split") for _ in widths]
        self._nodes.append(
            helper.make_node("Split", [x, self.integers(*widths)], parts, name=parts[0], axis=axis)
        )
        return parts

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps an axis, -1 is what is left."""
        return self.node("Reshape", x, self.integers(*shape))

    def slice(self, x: str, start: int, stop: int | None, axis: int = 1) -> str:
        """As in Python: negative from the end, None to the end."""
        end = _TO_THE_END if stop is None else stop
        return self.node("Slice", x, self.integers(start), self.integers(end), self.integers(axis))

    def corner(self, x: str, starts: Sequence[int], stops: Sequence[int]) -> str:
        """The same along axes 1, 2 and so on, as many as are given."""
        axes = range(1, 1 + len(starts))
        return self.node(
            "Slice", x, self.integers(*starts), self.integers(*stops), self.integers(*axes)
        )

    def own_node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of one of ONNX Runtime's own operators, as `node` does."""
        return self.node(operator, *inputs, domain=_ONNX_RUNTIME, **attributes)

    def join(self, *parts: str, axis: int) -> str:
        """Parts one after the other along an axis."""
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=axis)

    def depthwise(self, x: str, weight: Array, *, before: int, following: int) -> str:
        """Convolves every channel of `x` (batch, time, channels) by its own taps, (channels, taps).

        For `before` and `following` see `after`; together they are one less than the taps.
        """
        channels, taps = weight.shape
        if self.streaming and not following:
            state = self._state(before, channels)
            y = self._name("depthwise")
            # One node instead of eight, but slower where there are many frames.
            self._nodes.append(
                helper.make_node(
                    "CausalConvWithState",
                    [x, self.constant(weight[:, None], "taps"), "", state.name],
                    [y, state.next_name],
                    name=y,
                    domain=_ONNX_RUNTIME,
                    channels_last=1,
                )
            )
            return y
        # As an image of height one, for which ONNX Runtime has a kernel that is five times faster.
        padded = self.after(x, before, channels, following=following)
        image = self.node("Transpose", padded, perm=[0, 2, 1])
        image = self.node(
            "Conv",
            self.node("Unsqueeze", image, self.integers(2)),
            self.constant(weight[:, None, None], "taps"),
            group=channels,
            kernel_shape=[1, taps],
        )
        return self.node("Transpose", self.node("Squeeze", image, self.integers(2)), perm=[0, 2, 1])

    def after(self, x: str, frames: int, channels: int, *, following: int = 0) -> str:
        """`x` (batch, time, channels) with the `frames` before it; `following` zeros after it.

        What lies before is the state, or zeros for whole signals.
        """
        if not self.streaming:
            if not frames and not following:
                return x
            return self.node("Pad", x, self.integers(0, frames, 0, 0, following, 0))
        if following:
            raise ValueError("a layer that reads the future cannot be streamed")
        if not frames:
            return x
        state = self._state(frames, channels)
        joined = self.join(state.name, x, axis=1)
        self._nodes.append(
            helper.make_node(
                "Slice",
                [joined, self.integers(-frames), self.integers(_TO_THE_END), self.integers(1)],
                [state.next_name],
                name=state.next_name,
            )
        )
        return joined

    def remembered(self, channels: int, dtype: str = "float32") -> tuple[str, str | None]:
        """One vector, (batch, 1, channels), of the last time of what came before.

        Returns:
            Its value, and the name by which `remember` has to give the next one; none for whole
            signals, before which there are zeros.
        """
        if not self.streaming:
            return self.constant(np.zeros((1, 1, channels), dtype)), None
        state = self._state(1, channels, dtype)
        return state.name, state.next_name

    def remember(self, x: str, next_name: str | None) -> None:
        """Keeps the last time of `x` (batch, time, channels) for the next piece."""
        if next_name is not None:
            self._nodes.append(
                helper.make_node(
                    "Slice",
                    [x, self.integers(-1), self.integers(_TO_THE_END), self.integers(1)],
                    [next_name],
                    name=next_name,
                )
            )

    def windows(self, x: str, taps: int, dilation: int = 1, newest: str | None = None) -> str:
        """(batch, time + (taps - 1) * dilation, channels) -> (batch, time, taps * channels).

        `newest` is what the last tap sees, if `x` was made of it: one slice less.
        """
        last = (taps - 1) * dilation
        if not last:
            return x
        parts = [self.slice(x, tap * dilation, tap * dilation - last) for tap in range(taps - 1)]
        return self.join(*parts, newest or self.slice(x, last, None), axis=2)

    def product(
        self,
        x: str,
        matrix: Array,
        bias: Array | None = None,
        *,
        taps: int = 1,
        dilation: int = 1,
        newest: str | None = None,
        exact: bool = False,
    ) -> str:
        """Multiplies windows over x by a constant (inputs, outputs) and adds a bias (outputs,).

        In int8 if there are `scales`, one a product, unless it has to be `exact`: `x` then has 8
        bits on its scale, and weights have a scale for every output. For `taps`, `dilation` and
        `newest` see `windows`.
        """
        bias = bias if bias is not None and bias.any() else None
        index = len(self.products)
        if not exact:
            self.products.append(x)
            if self._scales is not None:
                levels = self._scales[index]
                return self._product_in_int8(x, matrix, bias, levels, taps, dilation)
        windows = self.windows(x, taps, dilation, newest)
        y = self.node("MatMul", windows, self.constant(matrix, "weight"))
        return y if bias is None else self.node("Add", y, self.constant(bias))

    def _product_in_int8(
        self, x: str, matrix: Array, bias: Array | None, levels: Scale, taps: int, dilation: int
    ) -> str:
        integers, scales = quantize_weights(matrix)
        scale = self.constant(np.float32(levels.scale))
        zero_point = self.constant(np.uint8(levels.zero_point))
        quantized = self.node("QuantizeLinear", x, scale, zero_point)
        return self.node(
            "MatMulIntegerToFloat",
            # Windows are made of bytes: a quarter of the copying.
            self.windows(quantized, taps, dilation),
            self.constant(integers, "weight"),
            scale,
            self.constant(scales),
            zero_point,
            "",
            "" if bias is None else self.constant(bias),
            domain=_ONNX_RUNTIME,
        )

    def model(self, metadata: Mapping[str, str]) -> bytes:
        """The finished graph as a checked ONNX file."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._initializers
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(_ONNX_RUNTIME, 1)],
            ir_version=IR_VERSION,
            producer_name="sotto",
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        serialized: bytes = model.SerializeToString()
        return serialized

    def _state(self, frames: int, channels: int, dtype: str = "float32") -> StateTensor:
        """One more tensor that is remembered; a node has to give what comes next by its name."""
        index = len(self.states)
        state = StateTensor(f"state_{index:02}", f"next_state_{index:02}", frames, channels, dtype)
        self.states.append(state)
        shape, kind = ("batch", frames, channels), _KINDS[dtype]
        self.input(state.name, kind, shape)
        self._outputs.append(helper.make_tensor_value_info(state.next_name, kind, list(shape)))
        return state

    def _name(self, kind: str) -> str:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return f"{kind}_{number}"


def quantize_weights(matrix: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(inputs, outputs) as integers -64 ... 64, and one scale an output."""
    largest = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32)
    scales = largest / np.float32(_WEIGHT_MAX)
    return np.rint(matrix / scales).clip(-_WEIGHT_MAX, _WEIGHT_MAX).astype(np.int8), scales

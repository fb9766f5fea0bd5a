"""One ONNX file, ready to run: with its state as data, or with a state that stays where it is."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from codec.errors import ModelFileError
from infer.runtime.card import OnnxFile

Array = NDArray[Any]
State = tuple[NDArray[np.float32], ...]


class Session:
    """Runs the encoder or the decoder of an export; many streams can share one.

    Attributes:
        file: what the card says of it.
    """

    def __init__(self, file: OnnxFile, content: bytes, threads: int = 1) -> None:
        """`content` is the file's; more than one thread seldom pays for a step.

        Raises:
            ModelFileError: ONNX Runtime cannot run it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class
            reason = str(error).splitlines()[0]
            raise ModelFileError(f"{file.name}: ONNX Runtime cannot run it: {reason}") from None
        self.file = file
        self._takes, self._gives = ("wave", "codes")
        if file.part == "decoder":
            self._takes, self._gives = self._gives, self._takes
        self._names = [state.name for state in file.states]
        self._outputs = [self._gives, *(state.next_name for state in file.states)]

    def initial_state(self, batch: int) -> State:
        """What comes before a signal: zeros."""
        return tuple(
            np.zeros((batch, state.frames, state.channels), np.float32)
            for state in self.file.states
        )

    def step(self, x: Array, state: State = ()) -> tuple[Array, State]:
        """The next piece of a signal, one frame or more, or a whole one if nothing is remembered.

        Args:
            x: (batch, 1, frames * hop_length) float32, or codes (batch, n_quantizers, frames)
                int64.
            state: what the last step gave; it is left as it was.

        Returns:
            The other of the two, and the state for the next step.
        """
        feeds = dict(zip(self._names, state, strict=True))
        feeds[self._takes] = x
        y, *after = self._session.run(self._outputs, feeds)
        return y, tuple(after)

    def inside(self, x: Array, names: list[str]) -> list[Array]:
        """What a whole signal gives at other outputs than that of the card."""
        values: list[Array] = self._session.run(names, {self._takes: x})
        return values

    def binding(
        self, before: Sequence[Array], after: Sequence[Array]
    ) -> onnxruntime.IOBinding:
        """What `run_bound` reads the state from, and where it writes the next one to."""
        binding = self._session.io_binding()
        for state, array in zip(self.file.states, before, strict=True):
            binding.bind_ortvalue_input(state.name, _on_array(array))
        for state, array in zip(self.file.states, after, strict=True):
            binding.bind_ortvalue_output(state.next_name, _on_array(array))
        return binding

    def run_bound(self, binding: onnxruntime.IOBinding, x: Array, y: Array) -> None:
        """`step` from `x` into `y`, both of the right shape and contiguous."""
        binding.bind_ortvalue_input(self._takes, _on_array(x))
        binding.bind_ortvalue_output(self._gives, _on_array(y))
        self._session.run_with_iobinding(binding)


class Steps:
    """One stream's way through a network.

    ONNX Runtime reads its state from one set of arrays and writes the next one to another, in turn:
    handing a dozen arrays over and taking a dozen new ones costs as much as a small network does.
    """

    def __init__(self, session: Session, batch: int, hop_length: int, n_quantizers: int) -> None:
        """Before the signal begins; `hop_length` and `n_quantizers` are the model's."""
        self._session = session
        self._batch = batch
        self._hop_length = hop_length
        self._n_quantizers = n_quantizers
        self._now, self._next = (session.initial_state(batch) for _ in range(2))
        self._bindings = (
            session.binding(self._now, self._next),
            session.binding(self._next, self._now),
        )

    def step(self, x: Array) -> Array:
        """The next frames: a new array, for what `Session.step` takes."""
        x = np.ascontiguousarray(x)
        y: Array
        if self._session.file.part == "encoder":
            frames = x.shape[-1] // self._hop_length
            y = np.empty((self._batch, self._n_quantizers, frames), np.int64)
        else:
            y = np.empty((self._batch, 1, x.shape[-1] * self._hop_length), np.float32)
        self._session.run_bound(self._bindings[0], x, y)
        self._now, self._next = self._next, self._now
        self._bindings = self._bindings[::-1]
        return y

    @property
    def state(self) -> State:
        """The arrays of now: read them before the next step, which but one later overwrites."""
        return self._now

    def restore(self, state: Sequence[Array]) -> None:
        """Goes on from such arrays, which are copied."""
        for own, given in zip(self._now, state, strict=True):
            own[...] = given

    def reset(self) -> None:
        """Back to where the signal begins."""
        for array in self._now:
            array.fill(0)

    def copy(self) -> Self:
        """A second one, that goes on from here by itself."""
        twin = type(self)(self._session, self._batch, self._hop_length, self._n_quantizers)
        twin.restore(self._now)
        return twin


def _on_array(array: Array) -> onnxruntime.OrtValue:
    """An array as ONNX Runtime knows it: the same memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)

"""One ONNX file, ready to run: with its state as data, or with a state that stays where it is."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime import OrtValue

from codec.errors import ModelFileError
from infer.runtime.card import OnnxFile

Array = NDArray[Any]
State = tuple[NDArray[np.floating[Any]], ...]


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
            np.zeros((batch, state.frames, state.channels), state.dtype)
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

    def bind_states(self, before: State, after: State) -> onnxruntime.IOBinding:
        """Steps that read their state from the one set of arrays and write it to the other."""
        binding = self._session.io_binding()
        for state, array in zip(self.file.states, before, strict=True):
            binding.bind_ortvalue_input(state.name, OrtValue.ortvalue_from_numpy(array))
        for state, array in zip(self.file.states, after, strict=True):
            binding.bind_ortvalue_output(state.next_name, OrtValue.ortvalue_from_numpy(array))
        return binding

    def bind_signals(self, binding: onnxruntime.IOBinding, x: Array, y: Array) -> None:
        """Lets these steps take `x` and give `y`, arrays of the right shapes."""
        binding.bind_ortvalue_input(self._takes, OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output(self._gives, OrtValue.ortvalue_from_numpy(y))

    def run(self, binding: onnxruntime.IOBinding) -> None:
        """One step, from the arrays that are bound into the arrays that are bound."""
        self._session.run_with_iobinding(binding)


class Steps:
    """One stream's way through a network.

    ONNX Runtime reads the state from one set of arrays and writes the next one to another, in turn:
    to hand a dozen arrays over and take a dozen new ones costs as much as a small network does.
    """

    def __init__(self, session: Session, batch: int, hop_length: int, n_quantizers: int) -> None:
        """Before the signal begins; `hop_length` and `n_quantizers` are the model's."""
        self._session = session
        self._batch = batch
        self._hop_length = hop_length
        self._n_quantizers = n_quantizers
        self._now, self._next = (session.initial_state(batch) for _ in range(2))
        self._bindings = (
            session.bind_states(self._now, self._next),
            session.bind_states(self._next, self._now),
        )
        self._take_pieces_of(0)

    def step(self, x: Array) -> Array:
        """The next frames: a new array, for what `Session.step` takes."""
        if x.shape != self._x.shape:
            self._take_pieces_of(x.shape[-1])
        np.copyto(self._x, x)
        self._session.run(self._bindings[0])
        self._bindings = self._bindings[::-1]
        self._now, self._next = self._next, self._now
        return self._y.copy()

    def _take_pieces_of(self, length: int) -> None:
        """Makes ready for pieces of so many samples, or frames of codes."""
        encodes = self._session.file.part == "encoder"
        frames = length // self._hop_length if encodes else length
        wave = np.zeros((self._batch, 1, frames * self._hop_length), np.float32)
        codes = np.zeros((self._batch, self._n_quantizers, frames), np.int64)
        self._x: Array
        self._y: Array
        self._x, self._y = (wave, codes) if encodes else (codes, wave)
        for binding in self._bindings:
            self._session.bind_signals(binding, self._x, self._y)

    @property
    def state(self) -> State:
        """The arrays of now, which the step after the next one overwrites."""
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

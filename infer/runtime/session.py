"""One ONNX file, ready to run: with its state as data, as the layers' `step` has it."""

from typing import Any

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

"""What streams of both directions share: layers with their state, and the state as plain data."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Self

import torch
from torch import Tensor

from codec.errors import SottoError
from codec.nn.convolution import Chain, State

# Seconds that pass the layers at once, however much is pushed: bounds the memory of a push.
_SECONDS_AT_ONCE = 1.0


class Stream:
    """What both directions share: layers with their state, and the state as plain data."""

    _remembered: ClassVar[tuple[str, ...]]
    """Tensors kept beside the layers' own, by attribute, less the leading underscore."""

    def __init__(
        self, chain: Chain, hop_length: int, batch: int, fingerprint: str, sample_rate: int
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch = {batch}: give 1 or more")
        self.batch = batch
        self.hop_length = hop_length
        self._chain = chain
        self._device = next(chain.parameters()).device
        self._fingerprint = fingerprint
        self._frames_at_once = max(1, round(_SECONDS_AT_ONCE * sample_rate / hop_length))
        self._batched = batch > 1  # whether the last push had a batch axis
        self._closed = False
        self._layers: State = ()
        self._reset()

    def reset(self) -> None:
        """Forgets everything: the next push begins a new signal."""
        self._reset()

    def state(self) -> dict[str, Tensor]:
        """All that the stream remembers, as copies, by name: `safetensors` saves it as it is.

        It belongs to this model, direction and batch; `restore` goes on from it, in this stream or
        any other of the same model.
        """
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a `state` (copied) as if what was pushed since then had not been.

        Raises:
            SottoError: it is of another model, direction or batch, or no state; nothing changes.
        """
        expected = self._tensors()
        if state.keys() != expected.keys():
            raise SottoError(f"this is not the state of a {type(self).__name__} of this model")
        if not torch.equal(state["model"].cpu(), expected["model"]):
            raise SottoError("this is the state of a stream of another model")
        for name, own in expected.items():
            given = state[name]
            free = name in ("pending", "heard") and given.shape[:-1] == own.shape[:-1]
            if given.dtype != own.dtype or (given.shape != own.shape and not free):
                raise SottoError(
                    f"the state's {name} is {tuple(given.shape)}, {given.dtype}; this stream, "
                    f"of batch {self.batch}, has {tuple(own.shape)}, {own.dtype}"
                )
        copies = {name: state[name].to(own.device, copy=True) for name, own in expected.items()}
        for name in self._remembered:
            setattr(self, f"_{name}", copies[name])
        self._layers = tuple(copies[f"layers.{i}"] for i in range(len(self._layers)))

    def copy(self) -> Self:
        """A second stream that goes on from here by itself: a conversation that forks."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)  # tensors are replaced by new ones, never written to
        return twin

    def close(self) -> None:
        """Ends the stream; what it remembers is let go."""
        self._reset()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _reset(self) -> None:
        try:
            with torch.inference_mode():
                self._layers = self._chain.initial_state(self.batch)
        except ValueError:
            raise SottoError(
                "this model looks ahead (causal: false) and cannot answer frame by frame: use "
                "codec.encoder() and codec.decoder(), which take pieces and answer with a delay"
            ) from None

    def _tensors(self) -> dict[str, Tensor]:
        model = torch.frombuffer(bytearray.fromhex(self._fingerprint), dtype=torch.uint8)
        own = {name: getattr(self, f"_{name}") for name in self._remembered}
        return {"model": model} | own | {f"layers.{i}": x for i, x in enumerate(self._layers)}

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("this stream is closed: open a new one")

    def _answer(self, batch: Tensor) -> Tensor:
        """As it was asked for; made outside of inference mode, to be changed and trained on."""
        return (batch if self._batched else batch[0]).clone()

    def _exact(self) -> AbstractContextManager[None]:
        """On CUDA: no TF32, which would flip codes."""
        if self._device.type != "cuda":
            return nullcontext()
        flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, allow_tf32=False
        )
        return flags

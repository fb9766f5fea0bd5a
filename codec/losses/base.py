"""What every loss returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class LossValue:
    """A loss and what it is made of.

    Attributes:
        total: scalar, float32, with its graph.
        parts: scalars for the log by name, detached here whatever was given.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = {name: part.detach() for name, part in self.parts.items()}

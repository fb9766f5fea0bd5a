"""What layers start from.

A model may be built on the meta device, for its shapes alone. PyTorch's arithmetic there is written
in Python, and importing it takes longer than loading a model: nothing is drawn or computed then.
"""

import torch
from torch import Tensor


def shapes_alone() -> bool:
    """Whether what is built now is built for its shapes alone."""
    return torch.empty(0).is_meta


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Independent normal numbers (shape) of mean 0, float32."""
    numbers = torch.empty(*shape)
    return numbers if numbers.is_meta else numbers.normal_(std=std)

"""State trees as safetensors and JSON, so that a checkpoint is never unpickled.

A state tree is what `state_dict()` methods return: dicts (any scalar keys), lists, tuples,
tensors, numbers, strings, booleans and None, nested.
"""

from typing import Any

from torch import Tensor


def split_tensors(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Splits a state tree into a JSON-able skeleton and its tensors.

    Returns:
        the skeleton, with a reference where a tensor stood, and the tensors by reference
        (detached, contiguous copies on the CPU).

    Raises:
        TypeError: the tree holds something else.
    """
    tensors: dict[str, Tensor] = {}
    return _split(tree, "", tensors), tensors


def join_tensors(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `split_tensors`."""
    if isinstance(skeleton, list):
        return [join_tensors(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "tensor" in skeleton:
        return tensors[skeleton["tensor"]]
    if "tuple" in skeleton:
        return tuple(join_tensors(item, tensors) for item in skeleton["tuple"])
    return {
        join_tensors(key, tensors): join_tensors(value, tensors) for key, value in skeleton["dict"]
    }


def _split(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        # safetensors refuses tensors that share memory, hence clone().
        tensors[path] = tree.detach().cpu().clone().contiguous()
        return {"tensor": path}
    if isinstance(tree, dict):
        items = [[key, _split(value, f"{path}/{key}", tensors)] for key, value in tree.items()]
        return {"dict": items}
    if isinstance(tree, list | tuple):
        values = [_split(value, f"{path}/{i}", tensors) for i, value in enumerate(tree)]
        return {"tuple": values} if isinstance(tree, tuple) else values
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"{path}: a {type(tree).__name__} cannot go into a checkpoint")

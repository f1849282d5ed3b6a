"""Loading a state: what is reported, and the check of one saved value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import minidl.ops as ops
from minidl.errors import MinidlError
from minidl.tensor import Parameter, Tensor


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` could not match: names without a value, and names without a place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


def fitted(value: Any, tensor: Tensor, assign: bool) -> Tensor | str:
    """Return `value` in the form in which it replaces `tensor`, or say why it cannot.

    `value`: a Tensor or a NumPy array of the tensor's shape; the dtypes may differ. With `assign`
    it becomes a Parameter where `tensor` is one. Nothing is written.
    """
    try:
        if isinstance(value, np.ndarray):
            value = ops.from_numpy(np.array(value) if assign else value)
        if not isinstance(value, Tensor):
            return f"value must be a Tensor or a NumPy array, got {type(value).__name__}"
        if value.shape != tensor.shape:
            return (
                f"size mismatch, the saved shape is {tuple(value.shape)}, "
                f"the model's is {tuple(tensor.shape)}"
            )
        if assign and isinstance(tensor, Parameter) and not isinstance(value, Parameter):
            value = Parameter(value.detach(), requires_grad=tensor.requires_grad)
    except MinidlError as error:
        return str(error)
    return value


def with_shapes(names: Iterable[str], state: Mapping[str, Any]) -> str:
    """List names, each with the shape of its value in `state` if it has one."""
    return ", ".join(
        f"{name} {tuple(state[name].shape)}" if hasattr(state.get(name), "shape") else name
        for name in names
    )

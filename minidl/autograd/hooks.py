"""Hooks of tensors: on a gradient, on a leaf's finished `.grad`, and `retain_grad`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from minidl.autograd.engine import accumulate
from minidl.autograd.node import Accumulated, Retain, hooks_of, retained
from minidl.dtypes import FLOAT
from minidl.errors import DTypeError, GradientError
from minidl.tensor import Tensor


class RemovableHandle:
    """Takes a hook away again: `handle.remove()`, or leave its `with` block."""

    _ids = itertools.count()

    def __init__(self, hooks: dict[int, Callable]) -> None:
        self.id = next(self._ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook away; once is enough, twice does no harm."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def _register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(gradient)` in each backward pass; a returned tensor replaces the gradient."""
    if not self.requires_grad:
        raise GradientError("a hook needs a tensor that requires gradients")
    if self.dtype.kind != FLOAT:
        raise DTypeError("a hook needs a floating point tensor", got=repr(self.dtype))
    return _added(_leaf_hooks(self) if self.node is None else hooks_of(self.node), hook)


def _leaf_hooks(leaf: Tensor) -> dict[int, Any]:
    if leaf.hooks is None:
        leaf.hooks = {}
    return leaf.hooks


def _added(hooks: dict[int, Any], hook: Any) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _register_post_accumulate_grad_hook(
    self: Tensor, hook: Callable[[Tensor], None]
) -> RemovableHandle:
    """Call `hook(tensor)` in each backward pass when this leaf's `.grad` is complete.

    Raises GradientError (a RuntimeError) for what is no leaf that requires gradients.
    """
    if not self.requires_grad or self.node is not None:
        raise GradientError(
            "needs a leaf that requires gradients; register_hook takes results too",
            operator="register_post_accumulate_grad_hook",
        )
    return _added(_leaf_hooks(self), Accumulated(hook))


def _retain_grad(self: Tensor) -> None:
    """Keep the gradient of this result in its `.grad`."""
    if not self.requires_grad:
        raise GradientError("needs a tensor that requires gradients", operator="retain_grad")
    if self.node is not None and not retained(self):
        _register_hook(self, Retain(self, accumulate))


def _retains_grad(self: Tensor) -> bool:
    """Whether this is a result whose gradient `retain_grad` keeps."""
    return self.grad_fn is not None and bool(retained(self))


Tensor.register_hook = _register_hook  # type: ignore[attr-defined]
Tensor.register_post_accumulate_grad_hook = (  # type: ignore[attr-defined]
    _register_post_accumulate_grad_hook
)
Tensor.retain_grad = _retain_grad  # type: ignore[attr-defined]
Tensor.retains_grad = property(_retains_grad)  # type: ignore[attr-defined]

"""Operators that write into their first argument, and the history of what they wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.node import Node, constant, edge_of, rebuilt, replace_history
from minidl.backends import is_writable, kernels_for, local, moved
from minidl.dtypes import can_cast
from minidl.errors import DeviceError, DTypeError, GradientError, MinidlError, ShapeError
from minidl.tensor import Tensor, replay


def in_place(name: str, functional: Any) -> Any:
    """The operator `name` that writes the result of `functional` into its first argument."""
    return inplace_form(None, functional, name)


def inplace_form(direct: Callable | None, functional: Any, name: str | None = None) -> Any:
    """The in-place form of `functional`; `direct(k, ...)` serves where nothing is recorded."""
    label = name or (direct.__name__ if direct else "")
    of = getattr(functional, "op", None)
    keeps = of is None or (bool(of.inputs) and of.inputs[0] in of.saves)

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        recording = writable(label, input)
        source = input
        if recording and keeps and (input.tracked or any(map(_tracked, (*args, *kwargs.values())))):
            # the gradient needs the values that are about to be overwritten
            source = constant(input.array.copy())
            if input.tracked:
                source.node, source.tracked = (input.node or input), True
        out = functional(source, *args, **kwargs)
        if out.array.shape != input.array.shape:
            raise ShapeError(
                "the other arguments must broadcast to the tensor that is written into",
                operator=label,
                got=f"{input.shape}, result {out.shape}",
            )
        write(label, input, out, recording)
        return input

    def fast(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        other = args[0] if args else None
        if (
            type(input) is Tensor
            and not (local.state.recording and (input.tracked or _tracked(other)))
            and local.state.writes is None
            and input.base is None
            and input.array.dtype in _DIRECT
            and (
                type(other) in (float, int, type(None))
                or (
                    type(other) is Tensor
                    and other.array.dtype is input.array.dtype
                    and type(other.array) is type(input.array)
                )
            )
        ):
            state = local.state
            value = other.array if type(other) is Tensor else other
            try:
                assert direct is not None
                k = state.cpu if type(input.array) is np.ndarray else kernels_for(input.array)
                state.enter(direct, k, input.array, value, *args[1:], **kwargs)
            except Exception:
                return function(input, *args, **kwargs)  # which says what is wrong
            input.storage.version += 1
            return input
        return function(input, *args, **kwargs)

    made = function if direct is None else fast
    made.__name__ = made.__qualname__ = label
    made.__doc__ = f"In-place form of `{functional.__name__}`: writes the result into `input`."
    made.functional = functional  # type: ignore[attr-defined]
    return made


_DIRECT = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def _tracked(x: Any) -> bool:
    return type(x) is Tensor and x.requires_grad


def writable(name: str, x: Any) -> bool:
    """Check that `x` may be written in place; say whether the write is recorded."""
    if type(x) is not Tensor:
        raise DTypeError("input must be a Tensor", operator=name, got=type(x).__name__)
    if not is_writable(x.array):
        raise MinidlError(
            "the tensor is read-only (it shares a read-only array or an expanded one); .clone() it",
            operator=name,
        )
    if local.state.writes is not None:
        local.state.writes(x.storage)
    recording = local.state.recording
    if recording:
        if x.base is not None:
            x.refresh()
            root = x.base.root
            if root.tracked and root.node is None:
                raise GradientError(
                    "a view of a leaf that requires gradients cannot be written in place",
                    operator=name,
                )
            if not x.base.recorded and root.tracked:
                raise GradientError(
                    "a view taken under no_grad cannot be written in place while recording",
                    operator=name,
                )
        if x.tracked and x.node is None:
            raise GradientError(
                "a leaf that requires gradients cannot be written in place; use no_grad() or .data",
                operator=name,
            )
    return recording is not False


def write(name: str, x: Tensor, value: Tensor, recording: bool, replaces: bool = False) -> None:
    """Write `value` into `x`'s elements and give `x` (or its root) the history of the result.

    replaces: `value` was not computed from `x`, so what was there gets a gradient of zeros.
    """
    if not can_cast(value.dtype, x.dtype):
        raise DTypeError(
            f"a {value.dtype.name} result cannot be written into a tensor of {x.dtype.name}",
            operator=name,
        )
    try:
        if value.array.ndim > x.array.ndim:
            raise ValueError  # NumPy would drop leading axes of size 1
        source = value.array
        if type(source) is not type(x.array):
            if recording and value.requires_grad:
                raise DeviceError(
                    "a value of another device is moved without its history; use .to(device) first",
                    operator=name,
                    got=f"{value.device} into {x.device}",
                )
            source = moved(source, x.device)
        local.state.run(kernels_for(x.array).copyto, x.array, source, "unsafe")
    except ValueError:
        raise ShapeError(
            "the result must have the shape of the tensor that it is written into",
            operator=name,
            got=f"{value.shape}, {x.shape}",
        ) from None
    x.storage.version += 1
    if not recording:
        return
    if x.base is None:
        if x.tracked or value.tracked:
            # what is left of the old value is part of the new one's history, or nothing
            before = edge_of(x) if replaces or not value.tracked else None
            edges = (before, edge_of(value))
            replace_history(x, Node(WRITE, edges, ((), ()), x.array.shape, x.array.dtype))
        return
    root = x.base.root
    if root.tracked or value.tracked:
        edges = (edge_of(root), edge_of(value))
        steps = root.array.strides
        order = tuple(sorted(range(len(steps)), key=lambda i: -abs(steps[i])))
        saved = (x.base.chain, order)
        replace_history(root, Node(WRITE, edges, saved, root.array.shape, root.array.dtype))
        x.refresh()


class _Write:
    """History of a tensor after a write through a view of it (PyTorch's CopySlices)."""

    name = "write"
    fresh = frees = False

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        chain, order = node.saved
        before, written = node.edges
        if not chain:
            zeros = kernels_for(g.array).zeros
            return (None if before is None else constant(zeros(node.shape, node.dtype))), g
        g = _ordered(g, order)
        kept = None if before is None else _without(g, chain, order)
        return kept, (None if written is None else replay(g, chain))


WRITE = _Write()


def _ordered(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """`x` with its axes in memory in `order`, slowest first: which views exist depends on it."""
    turned = x.array.transpose(order)
    if turned.flags.c_contiguous:
        return x
    back = sorted(range(len(order)), key=order.__getitem__)
    return rebuilt(kernels_for(turned).copy(turned).transpose(back), edge_of(x))


def _without(x: Tensor, chain: tuple, order: tuple[int, ...]) -> Tensor:
    """A copy of `x` in which the elements seen through `chain` are zero."""
    out = constant(kernels_for(x.array).array(x.array, order="K"))
    replay(constant(out.array), chain).array[...] = 0
    if local.state.recording and x.tracked:
        out.node = Node(WRITE, (edge_of(x), None), (chain, order), x.array.shape, x.array.dtype)
        out.tracked = True
    return out

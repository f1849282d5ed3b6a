"""Batched: a tensor with a batch axis that the function under `vmap` does not see.

It stands for one sample: shape, methods and operators are those of a sample. An operator that is
called with one is computed for the whole batch by a rule (`rules.py`). The class answers as Tensor
where it is asked by `isinstance`; `type(x) is Tensor` tells them apart, which is how operators
notice. What looks at values raises NeedsLoop: then the function runs once per sample.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import minidl.ops as ops
from minidl.tensor import Tensor


class NeedsLoop(Exception):
    """There is no way to do this for a whole batch at once."""


class _Levels(threading.local):
    """The sizes of the batches of all `vmap`s that are running in this thread, outermost first."""

    def __init__(self) -> None:
        self.sizes: list[int] = []


levels = _Levels()


class _Flags:
    """Layout does not matter: a rule makes what it needs."""

    c_contiguous = aligned = writeable = True


class _Outline:
    """What operators may ask of an array whose values they cannot have."""

    flags = _Flags()

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self.size = 1
        for n in shape:
            self.size *= n

    def __getattr__(self, name: str) -> Any:
        raise NeedsLoop(name)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise NeedsLoop("values")


class Batched:
    """One sample of `value`, whose first axis is the batch of `vmap` number `level`."""

    __slots__ = ("value", "level")

    def __init__(self, value: Any, level: int) -> None:
        self.value, self.level = value, level

    @property
    def __class__(self) -> Any:
        return Tensor

    @staticmethod
    def __minidl_function__(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Compute an operator for the whole batch."""
        return rule(function, args, kwargs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.value.shape[1:]

    @property
    def array(self) -> Any:
        """Shape and dtype of one sample, for operators that look before they compute."""
        return _Outline(tuple(self.shape), self.value.array.dtype)

    def detach(self) -> Any:
        """The same values without history."""
        return Batched(self.value.detach(), self.level)

    def size(self, dim: int | None = None) -> Any:
        """The shape of one sample, or one of its sides."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes of one sample."""
        return self.value.ndim - 1

    def numel(self) -> int:
        """The number of elements of one sample."""
        return self.array.size

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([Tensor.__getitem__(self, i) for i in range(len(self))])  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name in _OF_VALUE:
            return getattr(self.value, name)
        if name == "ndim":
            return self.value.ndim - 1
        if name.endswith("_") and not name.endswith("__"):
            raise NeedsLoop(name)  # views of the same memory would not see the change
        found = getattr(Tensor, name)
        if isinstance(found, property):
            return found.fget(self)  # type: ignore[misc]
        if not callable(found) or name in _OF_TENSORS:
            raise NeedsLoop(name)
        return found.__get__(self)

    def __repr__(self) -> str:
        return f"Batched(level={self.level}, value={self.value!r})"

    def __hash__(self) -> int:
        return id(self)


_OF_VALUE = ("dtype", "device", "requires_grad", "is_leaf", "is_parameter", "tracked", "is_cuda")
_OF_TENSORS = ("item", "tolist", "numpy", "backward", "register_hook", "retain_grad", "data_ptr")
_OF_TENSORS += ("untyped_storage", "is_contiguous", "stride", "element_size", "storage_offset")


def _forward(name: str) -> Any:
    def method(self: Batched, *args: Any) -> Any:
        return getattr(Tensor, name)(self, *args)

    return method


def _refuse(name: str) -> Any:
    def method(self: Batched, *args: Any, **kwargs: Any) -> Any:
        raise NeedsLoop(name)

    return method


_FORWARDED = """
add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg
abs invert and rand or ror xor rxor lshift rshift eq ne lt le gt ge getitem
"""
_REFUSED = """
bool int float index complex array setitem contains iadd isub imul itruediv ifloordiv imod ipow iand
ior ixor dlpack reduce deepcopy copy
"""
for _name in _FORWARDED.split():
    if hasattr(Tensor, f"__{_name}__"):
        setattr(Batched, f"__{_name}__", _forward(f"__{_name}__"))
for _name in _REFUSED.split():
    setattr(Batched, f"__{_name}__", _refuse(_name))


def rule(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The operator on batched arguments; `rules.py` puts the real one in."""
    raise NeedsLoop(function.op.name)


def set_rule(new: Any) -> None:
    """Take the function that computes operators for batches."""
    global rule
    rule = new


def raw(x: Any) -> Tensor:
    """The tensor with all batch axes, outermost first."""
    while type(x) is Batched:
        x = x.value
    return x


def level_set(x: Any) -> list[int]:
    """The levels whose batch axes `x` has, outermost first."""
    found = []
    while type(x) is Batched:
        found.append(x.level)
        x = x.value
    return found[::-1]


def wrapped(tensor: Tensor, of: list[int]) -> Any:
    """A tensor with batch axes of the levels `of` (outermost first) as Batched of Batched."""
    x: Any = tensor
    for level in of:
        x = Batched(x, level)
    return x


def lifted(x: Any) -> Any:
    """`x` with batch axes for all levels that are running: every sample has its own."""
    have, tensor = level_set(x), raw(x)
    every = list(range(len(levels.sizes)))
    if have == every:
        return x
    for place, level in enumerate(every):
        if level not in have:
            tensor = ops.unsqueeze(tensor, place)
    sizes = (*levels.sizes, *tensor.shape[len(every) :])
    return wrapped(ops.broadcast_to(tensor, sizes).clone(), every)  # type: ignore[attr-defined]

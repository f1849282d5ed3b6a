"""`vmap`: a function of one sample becomes one of a batch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import minidl.ops as ops
from minidl.backends import local
from minidl.errors import ArgumentError, DTypeError, MinidlError, ShapeError
from minidl.func import rules as rules
from minidl.func.batched import Batched, levels
from minidl.func.tree import broadcast, flatten
from minidl.ops.random import Generator
from minidl.tensor import Tensor

_RANDOM = ("error", "different", "same")


class _Drawn(Exception):
    """The function draws random numbers."""


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that computes `func` for every sample of a batch, and stacks the results.

    in_dims: the batch axis of each argument, one for all or a tree like the arguments; None for
    what all samples share, as they do keyword arguments. out_dims: where the results have it, None
    for what is the same for all samples, tensor or not. The function sees single samples;
    its operators compute the whole batch at once where a rule exists, else sample by sample. What
    depends on values (`if x > 0`, `x.item()`), writes in place or raises in the batch makes the
    whole function run once per sample, with the same results. randomness: draws are refused
    ("error"), are each sample's own ("different") or the same for all ("same"). chunk_size: how
    many samples to compute at once. `vmap` and `grad` nest in any order. Raises ShapeError where
    the batches differ in size, ArgumentError for wrong axes, MinidlError where a function that has
    to run once per sample writes to a tensor from outside.
    """
    if randomness not in _RANDOM:
        raise ArgumentError(f"randomness is one of {_RANDOM}", operator="vmap", got=randomness)
    if chunk_size is not None and chunk_size < 1:
        raise ArgumentError("chunk_size must be positive", operator="vmap", got=str(chunk_size))

    @functools.wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, build = flatten((args, kwargs))
        dims = [*broadcast(_per_argument(in_dims, args), args, "in_dims")]
        dims += [None] * (len(leaves) - len(dims))  # all samples share keyword arguments
        size = _size(leaves, dims)
        moved = [
            x if d is None else ops.movedim(x, d, 0) for x, d in zip(leaves, dims, strict=True)
        ]
        chunk = chunk_size or size
        parts, state = [], ops.get_rng_state()
        for start in range(0, size, chunk) if size else [0]:
            part = [
                x if d is None else (x[start : start + chunk] if chunk < size else x)
                for x, d in zip(moved, dims, strict=True)
            ]
            count = min(chunk, size - start)
            if randomness == "same":
                ops.set_rng_state(state)
            parts.append(_run(func, part, dims, build, count, randomness, out_dims))
        return _joined(parts)

    return batched


def _per_argument(in_dims: Any, args: tuple[Any, ...]) -> Any:
    if isinstance(in_dims, int) or in_dims is None:
        return tuple(in_dims for _ in args)
    if not isinstance(in_dims, tuple | list) or len(in_dims) != len(args):
        raise ArgumentError(
            f"in_dims must be a number, or one for each of the {len(args)} arguments",
            operator="vmap",
            got=repr(in_dims),
        )
    return tuple(in_dims)


def _size(leaves: list[Any], dims: list[Any]) -> int:
    sizes = {}
    for i, (x, dim) in enumerate(zip(leaves, dims, strict=True)):
        if dim is None:
            continue
        if not isinstance(x, Tensor):
            raise DTypeError(
                f"argument {i} has in_dims {dim} and is no Tensor; use None for it",
                operator="vmap",
                got=type(x).__name__,
            )
        if not -len(x.shape) <= dim < len(x.shape):
            raise ArgumentError(
                f"in_dims {dim} is no axis of an argument", operator="vmap", got=str(tuple(x.shape))
            )
        sizes[i] = x.shape[dim]
    if not sizes:
        raise ArgumentError("at least one argument must have a batch axis", operator="vmap")
    if len(set(sizes.values())) > 1:
        raise ShapeError(
            "batches must be of one size", operator="vmap", got=str(sorted(set(sizes.values())))
        )
    return next(iter(sizes.values()))


def _run(
    func: Callable[..., Any],
    leaves: list[Any],
    dims: list[Any],
    build: Callable[..., Any],
    size: int,
    randomness: str,
    out_dims: Any,
) -> tuple[list[Any], list[Any], Callable[..., Any]]:
    """The results with the batch in front, where it goes, and how to build their tree."""
    level, writes = len(levels.sizes), _Writes()
    try:
        given = [x if d is None else Batched(x, level) for x, d in zip(leaves, dims, strict=True)]
        args, kwargs = build(given)
        with _Watched(), writes, _Level(size):
            out, rebuild = flatten(func(*args, **kwargs))
        places = _places(out_dims, rebuild(out))
        found = [_whole(x, d, level, size) for x, d in zip(out, places, strict=True)]
        return found, places, rebuild
    except _Drawn:
        if randomness == "error":
            raise MinidlError(_DRAWS) from None
    except Exception:
        pass  # whatever it was: sample by sample it works, or fails for what it is
    return _looped(func, leaves, dims, build, size, randomness, out_dims, writes)


def _places(out_dims: Any, result: Any) -> list[Any]:
    dims = broadcast(out_dims, result, "out_dims")
    if any(d is not None and not isinstance(d, int) for d in dims):
        raise ArgumentError("out_dims must be axes or None", operator="vmap", got=repr(out_dims))
    return dims


_DRAWS = "[vmap] the function draws random numbers; pass randomness='different' or 'same'"
_SHARED = "out_dims None is for results that are the same for all samples"


def _whole(x: Any, dim: int | None, level: int, size: int) -> Any:
    if type(x) is Batched and x.level == level:
        if dim is None:
            raise ArgumentError(_SHARED, operator="vmap")
        return x.value
    if dim is None:
        return x
    if not isinstance(x, Tensor):
        raise DTypeError("results must be Tensors", operator="vmap", got=type(x).__name__)
    return ops.broadcast_to(ops.unsqueeze(x, 0), (size, *x.shape))


def _looped(
    func: Callable[..., Any],
    leaves: list[Any],
    dims: list[Any],
    build: Callable[..., Any],
    size: int,
    randomness: str,
    out_dims: Any,
    writes: _Writes,
) -> tuple[list[Any], list[Any], Callable[..., Any]]:
    if not size:
        raise ShapeError(
            "a batch without samples, of a function that must run once per sample", operator="vmap"
        )
    rows: list[Any] = []
    rebuild: Any = None
    places: list[Any] = []
    state = ops.get_rng_state()
    for i in range(size):
        if randomness == "same":
            ops.set_rng_state(state)
        sample = [x if d is None else x[i] for x, d in zip(leaves, dims, strict=True)]
        args, kwargs = build(sample)
        with _Watched(randomness == "error"), writes:
            try:
                out, rebuild = flatten(func(*args, **kwargs))
            except _Drawn:
                raise MinidlError(_DRAWS) from None
        places = _places(out_dims, rebuild(out))
        for x, dim in zip(out, places, strict=True):
            if dim is not None and not isinstance(x, Tensor):
                raise DTypeError("results must be Tensors", operator="vmap", got=type(x).__name__)
        rows.append(out)
    found = []
    for column, dim in zip(zip(*rows, strict=True), places, strict=True):
        if dim is None and any(not _same(x, column[0]) for x in column):
            raise ArgumentError(_SHARED, operator="vmap")
        found.append(column[0] if dim is None else ops.stack(list(column)))
    return found, places, rebuild


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x is y or bool(ops.equal(x, y))
    return x is y or bool(x == y)


def _joined(parts: list[Any]) -> Any:
    _, places, rebuild = parts[0]
    whole = []
    for column, dim in zip(zip(*(part[0] for part in parts), strict=True), places, strict=True):
        x = column[0] if dim is None or len(column) == 1 else ops.cat(list(column), 0)
        whole.append(x if dim is None else ops.movedim(x, 0, dim))
    return rebuild(whole)


class _Level:
    """A block in which one more batch axis is there."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        levels.sizes.append(self.size)

    def __exit__(self, *error: Any) -> None:
        levels.sizes.pop()


class _Writes:
    """Blocks, one per run of the function, that refuse a write to what another run has written.

    What a run makes is its own; so it is a tensor from outside, and written once for each run.
    """

    def __init__(self) -> None:
        self._earlier: WeakSet[Any] = WeakSet()
        self._own: WeakSet[Any] = WeakSet()

    def __enter__(self) -> None:
        self._outer = local.state.writes
        self._earlier |= self._own
        self._own = WeakSet()
        local.state.writes = self._see

    def _see(self, storage: Any) -> None:
        if self._outer is not None:
            self._outer(storage)
        if storage in self._earlier:
            raise MinidlError(
                "[vmap] the function writes in place to a tensor from outside, and cannot compute"
                " the whole batch at once; return what it writes instead"
            )
        self._own.add(storage)

    def __exit__(self, *error: Any) -> None:
        local.state.writes = self._outer


class _Watched:
    """A block in which draws of this thread raise _Drawn."""

    def __init__(self, on: bool = True) -> None:
        self.on = on
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = before = Generator.watcher
        thread = threading.get_ident()

        def watcher() -> None:
            if threading.get_ident() == thread:
                raise _Drawn
            if before is not None:
                before()

        Generator.watcher = staticmethod(watcher) if self.on else before

    def __exit__(self, *error: Any) -> None:
        before = self._before
        Generator.watcher = None if before is None else staticmethod(before)

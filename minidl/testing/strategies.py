"""How a row of the operator table draws its arguments: shapes, layouts and values by Hypothesis.

Shapes, layouts, axes and attributes are drawn by Hypothesis, so that a failure shrinks to a small
one; the values come from a NumPy generator with a drawn seed. Hypothesis (extra `verify`) is
imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minidl.dtypes import BOOL, FLOAT, DType, finfo, iinfo
from minidl.testing.case import Case, Sample

LAYOUTS = ("C", "F", "offset", "sliced", "negative", "permuted", "broadcast")
MAX_SIZE = 120  # elements of a drawn shape: every element is differentiated numerically


@lru_cache(maxsize=4096)
def _integers(low: int, high: int) -> Any:
    from hypothesis import strategies

    return strategies.integers(low, high)


@lru_cache(maxsize=1)
def _booleans() -> Any:
    from hypothesis import strategies

    return strategies.booleans()


def extremes(dtype: DType) -> tuple[Any, ...]:
    """Values at the edges of `dtype`: infinities, nan, the largest, the smallest, both zeros."""
    if dtype.kind == BOOL:
        return (False, True)
    if dtype.kind != FLOAT:
        info = iinfo(dtype)
        return (0, 1, info.max, info.min, info.max - 1, info.min + 1)
    limits = finfo(dtype)
    inf = float("inf")
    return (0.0, -0.0, 1.0, inf, -inf, float("nan"), limits.max, limits.min, limits.tiny,
            -limits.tiny, limits.tiny * limits.eps, limits.eps, 1 + limits.eps)  # fmt: skip


class Constant(np.ndarray):
    """An array that stands for a tensor which gets no gradient by design (class weights, say)."""


class Draw:
    """What `Case.inputs` draws from; every method draws one thing.

    draw: Hypothesis' function (of `composite`, or `data().draw`). extremes: whether arrays may
    have extreme values; broadcast: whether they may have 0-stride axes. mixed: arrays of the dtype
    `mixed[0]`, the row's, get any dtype of `mixed` instead.
    """

    def __init__(
        self,
        draw: Callable[[Any], Any],
        *,
        extremes: bool = True,
        broadcast: bool = True,
        mixed: Sequence[DType] = (),
    ) -> None:
        self._draw = draw
        self._extremes = extremes
        self._broadcast = broadcast
        self._mixed = tuple(mixed)
        self._generator: np.random.Generator | None = None
        self._growth: dict[int, int] = {}

    @property
    def rng(self) -> np.random.Generator:
        """The generator of the values, seeded by a drawn number."""
        if self._generator is None:
            self._generator = np.random.default_rng(self.integer(0, 2**32 - 1))
        return self._generator

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return self._draw(_integers(low, high))

    def number(self, low: float, high: float) -> float:
        """A float in [low, high], one of 65 evenly spaced ones: no denormals, no ulp games."""
        return low + (high - low) * self.integer(0, 64) / 64

    def boolean(self) -> bool:
        """True or False."""
        return self._draw(_booleans())

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options; failures shrink towards the first."""
        return options[self.integer(0, len(options) - 1)]

    def axis(self, ndim: int) -> int:
        """An axis in [-ndim, ndim); 0 for ndim 0."""
        return self.integer(-ndim, ndim - 1) if ndim else 0

    def axes(self, ndim: int) -> None | int | tuple[int, ...]:
        """All axes (None), one, or a tuple of one or more different ones; None for ndim 0."""
        form = self.integer(0, 2) if ndim else 0
        if form == 0:
            return None
        if form == 1:
            return self.axis(ndim)
        order = self.rng.permutation(ndim)[: self.integer(1, ndim)]
        return tuple(int(a) - ndim * int(self.rng.integers(2)) for a in order)

    def shape(
        self, min_dims: int = 0, max_dims: int = 4, min_side: int = 0, max_side: int = 5
    ) -> tuple[int, ...]:
        """A shape of at most MAX_SIZE elements; empty and size-1 axes if min_side allows them."""
        room, sides = MAX_SIZE, []
        least = max(min_side, 1)
        for _ in range(self.integer(min_dims, max_dims)):
            sides.append(self.integer(least, max(least, min(max_side, room))))
            room //= sides[-1]
        if min_side == 0 and sides and self.integer(0, 7) == 7:
            sides[int(self.rng.integers(len(sides)))] = 0  # seldom, as there is little to see
        return tuple(sides)

    def broadcastable(self, shape: Sequence[int], within: bool = False) -> tuple[int, ...]:
        """A shape that broadcasts with `shape`; within: the result still has `shape`.

        Sides become 1, leading axes are dropped; unless `within`, sides of 1 grow and axes are
        added in front, so that gradients of both arguments are summed down.
        """
        other = list(shape[self.integer(0, len(shape)) :]) if self.boolean() else list(shape)
        for i, side in enumerate(other):
            if side == 1 and not within:
                other[i] = self._grown(len(other) - i)
            elif side != 1 and self.boolean():
                other[i] = 1
        if not within and len(other) == len(shape) and len(shape) < 4 and self.integer(0, 3) == 3:
            other.insert(0, self._grown(len(other) + 1))
        return tuple(other)

    def _grown(self, place: int) -> int:
        """What a side of 1 grows to, the same for all shapes, so that they broadcast."""
        if place not in self._growth:
            self._growth[place] = self.integer(1, 3)
        return self._growth[place]

    def array(
        self,
        shape: Sequence[int],
        dtype: DType,
        low: float = -3,
        high: float = 3,
        distinct: bool = False,
        extreme: bool = False,
    ) -> np.ndarray:
        """An array in a random layout with values in [low, high].

        distinct: no two equal (evenly spaced, shuffled; integers may leave the range); extreme:
        up to three elements are infinities, nan, limits or zeros of the dtype.
        """
        if self._mixed and dtype is self._mixed[0]:
            dtype = self.choice(self._mixed)
        shape = tuple(shape)
        values = _distinct if distinct else _values
        array = values(self.rng, shape, dtype, low, high)
        if extreme and array.size and self._extremes:
            flat = array.reshape(-1)
            for _ in range(self.integer(0, 3)):
                flat[self.rng.integers(flat.size)] = self.choice(extremes(dtype))
        return self.layout(array, broadcast=not distinct)

    def index(self, size: int, shape: Sequence[int], distinct: bool = False) -> np.ndarray:
        """int64 indices in [0, size), all different if `distinct`, in a random layout."""
        count = int(np.prod(shape, dtype=np.int64))
        if distinct:
            values = self.rng.permutation(size)[:count]
        else:
            values = self.rng.integers(0, max(size, 1), count)
        return self.layout(values.astype(np.int64).reshape(shape), broadcast=not distinct)

    def mask(self, shape: Sequence[int]) -> np.ndarray:
        """A bool array in a random layout."""
        return self.layout(np.asarray(self.rng.integers(0, 2, tuple(shape)) == 1))

    def constant(self, array: np.ndarray) -> np.ndarray:
        """The same floating point array, marked as one that gets no gradient by design."""
        return array.view(Constant)

    def layout(self, array: np.ndarray, broadcast: bool = True) -> np.ndarray:
        """The same values in a random layout; "broadcast" repeats the first of an axis."""
        kind = self.choice(LAYOUTS if broadcast and self._broadcast else LAYOUTS[:-1])
        return _LAYOUTS[kind](array, self.rng)


def _values(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, low: float, high: float
) -> np.ndarray:
    if dtype.kind == BOOL:
        return np.asarray(rng.integers(0, 2, shape) == 1)
    if dtype.kind == FLOAT:
        return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)
    least = int(np.ceil(low)) if dtype.is_signed else max(int(np.ceil(low)), 0)
    return np.asarray(rng.integers(least, max(int(high), least) + 1, shape)).astype(dtype.numpy)


def _distinct(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, low: float, high: float
) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    order = rng.permutation(count).reshape(shape)
    if dtype.kind == FLOAT:
        step = (high - low) / (count + 1)
        values = low + step * (order + 0.75)  # 0.75: not symmetric, so none is 0 by symmetry
    elif dtype.is_signed:
        values = order - count // 2
    else:
        values = order
    array = np.asarray(values).astype(dtype.numpy)
    if dtype.kind != BOOL and np.unique(array.astype(np.float64)).size != count:
        raise ValueError(f"{dtype.name} has no {count} different values in [{low}, {high}]")
    return array


def _padding(array: np.ndarray) -> Any:
    # what no operator may read: seen at once if it is
    return np.nan if array.dtype.kind not in "iub" else 77 if array.dtype.kind != "b" else True


def _offset(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    buffer = np.full(array.size + 3, _padding(array), array.dtype)
    view = buffer[2 : 2 + array.size].reshape(array.shape)
    view[...] = array
    return view


def _sliced(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if not array.ndim:
        return _offset(array, rng)
    steps = rng.integers(1, 4, array.ndim)
    sides = [side * int(step) + 1 for side, step in zip(array.shape, steps, strict=True)]
    buffer = np.full(sides, _padding(array), array.dtype)
    # the last element taken is at side * step: every axis also starts behind padding
    view = buffer[tuple(slice(int(step), None, int(step)) for step in steps)]
    view[...] = array
    return view


def _negative(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    flip = tuple(slice(None, None, -1 if rng.integers(2) else 1) for _ in array.shape[1:])
    flip = (slice(None, None, -1), *flip)[: array.ndim]
    return array[flip].copy()[flip] if array.ndim else array


def _permuted(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(array.ndim)
    return array.transpose(order).copy(order="C").transpose(np.argsort(order))


def _broadcast(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    wide = [axis for axis, side in enumerate(array.shape) if side > 1]
    if not wide:
        return array
    axis = wide[int(rng.integers(len(wide)))]
    first = array[(slice(None),) * axis + (slice(0, 1),)].copy()
    return np.broadcast_to(first, array.shape)


_LAYOUTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "C": lambda array, rng: array,
    "F": lambda array, rng: np.asarray(array, order="F"),
    "offset": _offset,
    "sliced": _sliced,
    "negative": _negative,
    "permuted": _permuted,
    "broadcast": _broadcast,
}


def layout_of(array: np.ndarray) -> str:
    """The name of an array's layout, for the count of what ran."""
    if array.ndim == 0:
        return "0-d"
    if array.size <= 1:
        return "size-1" if array.size else "empty"
    strides = [stride for side, stride in zip(array.shape, array.strides, strict=True) if side > 1]
    if 0 in strides:
        return "broadcast"
    if min(strides) < 0:
        return "negative stride"
    if array.flags.c_contiguous:
        return "C"
    return "Fortran" if array.flags.f_contiguous else "strided"


@lru_cache(maxsize=1)
def _strategy() -> Any:
    from hypothesis import strategies

    @strategies.composite
    def sample_of(
        draw: Any, case: Case, dtypes: Sequence[DType], purpose: str, mix: bool
    ) -> Sample:
        dtype = dtypes[draw(_integers(0, len(dtypes) - 1))]
        smooth = purpose != "values"
        inputs = (smooth and case.grad_inputs) or case.inputs
        mixed = (dtype, *(other for other in case.dtypes if other is not dtype)) if mix else ()
        d = Draw(
            draw,
            extremes=not smooth and not mix,
            broadcast=purpose != "quotients",
            mixed=mixed,
        )
        with np.errstate(all="ignore"):  # what a row makes of its draws
            return inputs(d, dtype)

    return sample_of


def samples(case: Case, *dtypes: DType, purpose: str = "values", mixed: bool = False) -> Any:
    """Hypothesis' strategy for arguments of one call of a row in one of these dtypes.

    purpose: "values" may draw extreme values; "gradients" draws from `grad_inputs`; "quotients"
    does too, and no 0-stride axes, which cannot be moved element by element. mixed: every array
    gets a dtype of its own.
    """
    return _strategy()(case, dtypes, purpose, mixed)

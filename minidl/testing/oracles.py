"""What a row should give, and how far from it a result may be.

error <= 2 x plain + floor. `plain` is the error of rounding the oracle's value, computed in
float64, once to the dtype. The floor is a few ULP of the value plus what the value changes when
the inputs change by a few ULP (the oracle is run again on moved inputs): so sums may be wrong by
eps * sum|x| where they cancel, and log1p(1e-30) must still be right in all its digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from minidl.dtypes import FLOAT, HALVES, DType, dtype_of, finfo, float32, get_default_dtype
from minidl.testing.case import Case, Sample
from minidl.testing.strategies import layout_of
from minidl.testing.targets import flushes

ULPS = 8  # of the value, and of the inputs
LARGEST_CONDITION = 1e4  # a jump of the oracle must not pass for an ill-conditioned value


class Mismatch(AssertionError):
    """A result breaks a rule of the table; the message says which one, and for which call."""


def is_float(array: np.ndarray) -> bool:
    """Whether the array is of a floating point dtype, bfloat16 too."""
    return dtype_of(array.dtype).kind == FLOAT


def mapped(value: Any, function: Callable[[np.ndarray], Any]) -> Any:
    """`value` with `function` applied to every array in it, in lists and tuples too."""
    if isinstance(value, np.ndarray):
        return function(value)
    if isinstance(value, list | tuple) and not isinstance(value, Sample):
        items = [mapped(item, function) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def replaced(sample: Sample, function: Callable[[np.ndarray], Any]) -> Sample:
    """A sample with `function` applied to every array."""
    args = tuple(mapped(value, function) for value in sample.args)
    return Sample(args, {name: mapped(value, function) for name, value in sample.kwargs.items()})


def arrays_of(sample: Sample) -> list[np.ndarray]:
    """All arrays of a sample, in the order in which `replaced` meets them."""
    found: list[np.ndarray] = []
    replaced(sample, found.append)
    return found


def flat(result: Any) -> list[Any]:
    """A result or a (nested) list or tuple of results as one list."""
    if isinstance(result, list | tuple):
        return [part for item in result for part in flat(item)]
    return [result]


def in_float64(array: np.ndarray) -> np.ndarray:
    """A contiguous copy; floating point values in float64."""
    return np.array(array, np.float64 if is_float(array) else None, order="C")


def expected(case: Case, sample: Sample) -> list[np.ndarray]:
    """The oracle's results for a sample."""
    given = replaced(sample, in_float64)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of means over nothing and the like
        return [np.asarray(want) for want in flat(case.oracle(*given.args, **given.kwargs))]


def _common(a: DType, b: DType) -> DType:
    if a.kind != b.kind:
        return a if a.kind > b.kind else b
    if a in HALVES and b in HALVES:
        return a if a is b else float32
    if a.kind == FLOAT:
        return a if a.itemsize >= b.itemsize else b
    return dtype_of(np.promote_types(a.numpy, b.numpy))


def promoted(operands: Sequence[Any]) -> DType:
    """The dtype of a floating point result: arrays outrank 0-d arrays, these Python numbers.

    The lower ranks only count where all higher ones are integers and they are not. Written apart
    from `dtypes.result_type`, so that a mistake in one of them shows.
    """
    dtypes: list[list[DType]] = [[], [], []]
    for x in operands:
        if isinstance(x, np.ndarray):
            dtypes[0 if x.ndim else 1].append(dtype_of(x.dtype))
        elif isinstance(x, float):
            dtypes[2].append(get_default_dtype())
    for rank in dtypes:
        if any(dtype.kind == FLOAT for dtype in rank):
            return reduce(_common, rank)
    return get_default_dtype()


@lru_cache(maxsize=32)
def _moves(size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1, size) * rng.choice((-1.0, 1.0), size)


def sensitivity(case: Case, sample: Sample, wants: Sequence[np.ndarray], eps: float) -> list[Any]:
    """How much each value of `wants` moves when the inputs move by a relative `eps`."""
    step = max(eps, 2.0**-30)  # larger than eps in float64, where moves by eps drown in rounding
    changes: list[Any] = [0.0] * len(wants)
    for seed in (1, 2):

        def move(x: np.ndarray, seed: int = seed) -> np.ndarray:
            wide = in_float64(x)
            return (
                wide * (1 + step * _moves(x.size, seed).reshape(x.shape)) if is_float(x) else wide
            )

        with np.errstate(all="ignore"):
            moved = expected(case, replaced(sample, move))
            for i, (want, other) in enumerate(zip(wants, moved, strict=True)):
                if want.dtype.kind == "f" and other.shape == want.shape:
                    change = np.nan_to_num(np.abs(other - want), nan=0.0, posinf=np.inf)
                    changes[i] = np.maximum(changes[i], change * (eps / step))
    return changes


def tolerance(want: np.ndarray, dtype: DType, change: Any, scale: float = 1.0) -> np.ndarray:
    """The largest error allowed for each value of `want` in a result of `dtype`.

    change: what `sensitivity` gave for the precision that `dtype` is computed in.
    """
    limits = finfo(dtype)
    with np.errstate(all="ignore"):
        size = np.where(np.isfinite(want), np.abs(want), 0)
        plain = np.nan_to_num(np.abs(want.astype(dtype.numpy).astype(np.float64) - want), posinf=0)
        compute_eps = finfo(float32).eps if dtype in HALVES else limits.eps
        change = np.minimum(change, LARGEST_CONDITION * compute_eps * (1 + size))
        ulps = (1 if dtype in HALVES else ULPS) * limits.eps * size
        return 2 * plain + scale * (ulps + ULPS * change + 4 * limits.tiny * limits.eps)


_note: Callable[[float, float], None] | None = None


@contextmanager
def measured(note: Callable[[float, float], None]) -> Iterator[None]:
    """Call `note(share, ulp)` for every array that `worst` passes in the block.

    share: the largest error as a share of what is allowed, 1 being the limit; ulp: the largest
    error in units in the last place of the largest value, eps * max|want|.
    """
    global _note
    before, _note = _note, note
    try:
        yield
    finally:
        _note = before


def _measure(got: np.ndarray, want: np.ndarray, allowed: Any, dtype: DType) -> tuple[float, float]:
    finite = np.isfinite(want) & np.isfinite(got)
    error = np.where(finite, np.abs(got - want), 0)
    top = float(np.abs(want[finite]).max(initial=0))
    share = np.nan_to_num(error / allowed, nan=0, posinf=0)
    limits = finfo(dtype)
    unit = limits.eps * max(top, limits.tiny)
    return float(share.max(initial=0)), float(error.max(initial=0)) / unit


def without_denormals(array: np.ndarray) -> np.ndarray:
    """The array with 0 in the place of what a table that flushes takes for 0."""
    if not is_float(array) or array.dtype.itemsize == 8:
        return array
    small = (np.abs(in_float64(array)) < finfo(float32).tiny) & (array != 0)
    if small.any():
        array = array if array.flags.writeable else array.copy()
        array[small] = 0
    return array


def worst(got: np.ndarray, want: np.ndarray, allowed: np.ndarray, dtype: DType) -> str | None:
    """The element that is furthest out of tolerance, in words; None if there is none.

    got, want: float64. Not-finite values must be equal, but for those that only rounding to
    `dtype` makes infinite.
    """
    if flushes() and dtype.itemsize < 8:
        allowed = allowed + finfo(float32).tiny
    with np.errstate(all="ignore"):
        near = np.abs(got - want) <= allowed
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        top = finfo(dtype).max * (1 - 4 * finfo(dtype).eps)
        overflow = (np.abs(want) >= top) & (np.abs(got) >= top) & (np.sign(got) == np.sign(want))
        bad = ~(near | same | overflow)
        if not bad.any():
            if _note is not None:
                _note(*_measure(np.asarray(got), want, allowed, dtype))
            return None
        excess = np.where(bad, np.nan_to_num(np.abs(got - want) / allowed, nan=np.inf), -1)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(excess), want.shape))
    return (
        f"element {index} is {float(got[index])!r}, should be {float(want[index])!r} within"
        f" {np.broadcast_to(allowed, want.shape)[index]:.3g}"
    )


def described(case: Case, sample: Sample) -> str:
    """A call in words: the row, and dtype, shape, layout and strides of every array."""

    def words(array: np.ndarray) -> str:
        dtype = dtype_of(array.dtype).name
        text = f"<{dtype} {array.shape} {layout_of(array)} strides={array.strides}"
        return f"{text}: {array.tolist()}>" if array.size <= 12 else f"{text}>"

    shown = replaced(sample, words)
    parts = [str(value) for value in shown.args]
    parts += [f"{name}={value}" for name, value in shown.kwargs.items()]
    return f"{case.name}({', '.join(parts)})"

"""One row of the table of kernel entries, and the check that such rows go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.backends import local, reference
from minidl.backends.table import ARRAY_ENTRIES, Kernels
from minidl.dtypes import HALVES, DType, bfloat16, dtype_of, finfo, float16, float32, float64
from minidl.testing.case import Case, Sample
from minidl.testing.oracles import (
    Mismatch,
    arrays_of,
    described,
    flat,
    in_float64,
    is_float,
    replaced,
    sensitivity,
    tolerance,
    worst,
)
from minidl.testing.targets import host, kernels, placed

WORKING = (float32, float64)


@dataclass(frozen=True)
class Entry(Case):
    """A kernel-table entry and how to draw its arguments; the oracle is its specification.

    `oracle` is called like the entry. same: "float64" holds results against the specification run
    in float64 on contiguous copies, within 2 x the error of the specification in the entry's own
    dtype + floor (that of `oracles.tolerance`, times `scale`; plus `least` times the smallest
    normal number; plus eps times what `floor(wants, *args, **kwargs)` gives, where the entry's
    contract states a floor that this does not cover); "bits" against the specification in the
    same dtype, to the last bit; a number allows so many ULP (of the size `least` at least). writes:
    positions of the arguments (arrays or lists of them) that the entry writes and that are its
    results. view: the result may be a view of an input. any_order: its memory may have another
    order than C's, or it may be a scalar. half: "table" if it takes 16-bit floats where the table
    says so, "always" if it takes them on every table; wide: which results are float32 then.
    spread: what order the memory of a result may have beside C's, as a function of the result;
    through: what is applied to the entry where its results are not unique, as to `oracle`.
    """

    grad: bool = False
    dtypes: tuple[DType, ...] = WORKING
    same: str | float = "float64"
    least: float = 0.0
    writes: tuple[int, ...] = ()
    view: bool = False
    any_order: bool = False
    floor: Callable[..., Any] | None = None
    half: str = ""
    wide: tuple[int, ...] = ()
    spread: Callable[[np.ndarray], bool] | None = None
    through: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    def dtypes_on(self, table: Kernels) -> tuple[DType, ...]:
        """Those of the drawn inputs on this table."""
        takes = self.half == "always" or (self.half == "table" and self.name in table.half)
        return (*self.dtypes, float16, bfloat16) if takes else self.dtypes


def specification(name: str) -> Callable[..., Any]:
    """The entry of the NumPy table."""
    if name in reference.ENTRIES:
        return reference.ENTRIES[name]
    return getattr(np, ARRAY_ENTRIES[name])


def entry(name: str, inputs: Callable[[Any, DType], Sample], **options: Any) -> Entry:
    """A row of the entry `name`; see `Entry`."""
    oracle = options.pop("oracle", None) or specification(name)
    # the array module's own functions go by its rules: memory in the order of the inputs, scalars
    options.setdefault("any_order", name in ARRAY_ENTRIES and name not in reference.ENTRIES)
    return Entry(name, specification(name), oracle, inputs, **options)


def _call(row: Entry, function: Callable[..., Any], sample: Sample) -> list[Any]:
    """The results of a call with NumPy's warnings off; None where one is left out."""
    with np.errstate(all="ignore"):
        result = local.state.run(function, *sample.args, **sample.kwargs)
    return flat([sample.args[i] for i in row.writes]) if row.writes else flat(result)


def _copies(row: Entry, sample: Sample, wide: bool) -> list[Any]:
    """The specification's results on contiguous copies, in float64 or in the arrays' dtypes."""
    copy = in_float64 if wide else lambda a: np.array(a, order="C")
    given = replaced(sample, copy)
    return [None if r is None else np.asarray(r) for r in _call(row, row.oracle, given)]


def _widened(row: Entry, sample: Sample) -> list[Any]:
    """The specification's results for 16-bit floats: computed in float32, rounded once."""
    own = next(a.dtype for a in arrays_of(sample) if is_float(a) and a.dtype.itemsize == 2)
    given = replaced(sample, lambda a: np.array(a, np.float32 if a.dtype == own else None))
    results = [None if r is None else np.asarray(r) for r in _call(row, row.oracle, given)]
    with np.errstate(all="ignore"):
        return [r.astype(own) if r is not None and r.dtype == np.float32 else r for r in results]


class _Of:
    """A row as `sensitivity` wants it: an oracle that gives all results as arrays."""

    def __init__(self, row: Entry) -> None:
        self.name = row.name
        self._row = row

    def oracle(self, *args: Any, **kwargs: Any) -> list[np.ndarray]:
        # results that are written must not reach the caller's arrays
        given = Sample(args, kwargs)
        results = _call(self._row, self._row.oracle, replaced(given, np.copy))
        return [np.asarray(r) for r in results if r is not None]


def _rule(condition: bool, rule: str, row: Entry, sample: Sample) -> None:
    if not condition:
        raise Mismatch(f"{rule}, in {described(row, sample)}")


def check_kernel(row: Entry, sample: Sample) -> None:
    """The active table's entry gives what the specification gives, in memory of its own."""
    half = any(is_float(a) and dtype_of(a.dtype) in HALVES for a in arrays_of(sample))
    if half and type(row.same) is float:
        wants = _widened(row, sample)
    else:
        wants = _copies(row, sample, wide=row.same == "float64")
    # 16-bit floats are computed in float32 and rounded once: their own error is the rounding's
    plain = wants if half or row.same != "float64" else _copies(row, sample, wide=False)
    written = {id(a) for i in row.writes for a in flat(sample.args[i])}
    kept = [(a, a.copy()) for a in arrays_of(sample)]
    try:
        given = replaced(sample, placed)
        function = getattr(kernels(), row.name)
        results = _call(row, row.through(function) if row.through else function, given)
        _rule(len(results) == len(wants), f"{len(results)} results", row, sample)
        if not row.writes:
            _check_memory(row, sample, arrays_of(given), results)
        got = [r if r is None or type(r) is float else np.array(_host(r)) for r in results]
        for array, before in kept:
            if id(array) not in written:
                same = array.tobytes() == before.tobytes()
                _rule(same, "an input was changed", row, sample)
    finally:
        for array, before in kept:
            if array.flags.writeable:
                array[...] = before
    _check_values(row, sample, got, wants, plain, half)


def _check_memory(row: Entry, sample: Sample, given: list[Any], results: list[Any]) -> None:
    array_type = kernels().ndarray
    fresh: list[Any] = []
    for r in results:
        if r is None or type(r) is float or (row.any_order and isinstance(r, np.generic)):
            continue
        _rule(type(r) is array_type, f"a result is a {type(r).__name__}", row, sample)
        if row.view:
            continue
        ordered = (
            row.any_order or r.flags.c_contiguous or (row.spread is not None and row.spread(r))
        )
        _rule(ordered, f"a result is not C-contiguous: strides {r.strides}", row, sample)
        if isinstance(r, np.ndarray):
            _rule(r.flags.writeable, "a result is read-only", row, sample)
            shared = any(np.may_share_memory(r, a) for a in given)
            _rule(not shared, "a result shares memory with an input", row, sample)
            twice = any(np.may_share_memory(r, other) for other in fresh)
            _rule(not twice, "two results share memory", row, sample)
        fresh.append(r)


def _check_values(
    row: Entry, sample: Sample, got: list[Any], wants: list[Any], plain: list[Any], half: bool
) -> None:
    left_out = [g is None for g in got] == [w is None for w in wants]
    _rule(left_out, "another result is left out than should be", row, sample)
    triples = [t for t in zip(got, wants, plain, strict=True) if t[0] is not None]
    changes: list[Any] | None = None
    floors: list[Any] | None = None
    floats = [dtype_of(a.dtype) for a in arrays_of(sample) if is_float(a)]
    for i, (y, want, narrow) in enumerate(triples):
        number, y = type(y) is float, np.asarray(y)
        _rule(y.shape == want.shape, f"shape is {y.shape}, not {want.shape}", row, sample)
        expected = narrow.dtype
        if half and _is_float(want) and row.same == "float64" and not number:
            expected = _half_dtype(row, sample, i, narrow)
        _rule(y.dtype == expected, f"dtype is {y.dtype}, not {expected}", row, sample)
        if not _is_float(y) or row.same == "bits":
            same = np.array_equal(_bits(y), _bits(want))
            _rule(same, f"is {_few(y)}, not {_few(want)}", row, sample)
            continue
        dtype = float32 if number and half else dtype_of(y.dtype)
        want, narrow = in_float64(want), in_float64(narrow)
        if isinstance(row.same, str):
            if changes is None:
                eps = finfo(float32 if half else floats[0] if floats else dtype).eps
                exact = [w for w in wants if w is not None]
                changes = sensitivity(_Of(row), sample, exact, eps)  # type: ignore[arg-type]
            allowed = tolerance(want, dtype, changes[i], row.scale)
            allowed = allowed + row.least * finfo(dtype).tiny
            if row.floor is not None:
                if floors is None:
                    floors = _floors(row, sample, [w for w in wants if w is not None])
                allowed = allowed + finfo(dtype).eps * floors[i]
            with np.errstate(all="ignore"):
                allowed = allowed + 2 * np.nan_to_num(np.abs(narrow - want), nan=0, posinf=0)
        else:
            size = np.where(np.isfinite(want), np.abs(want), 0)
            allowed = row.same * finfo(dtype).eps * np.maximum(size, row.least or finfo(dtype).tiny)
        # where the dtype itself leaves the range on the way, so may the kernel
        wide = in_float64(y)
        left = ~np.isfinite(narrow) & ((wide == narrow) | (np.isnan(wide) & np.isnan(narrow)))
        error = worst(np.where(left, want, wide), want, allowed, dtype)
        _rule(error is None, str(error), row, sample)


def _floors(row: Entry, sample: Sample, wants: list[Any]) -> list[Any]:
    """What the contract allows each result, in eps."""
    given = replaced(sample, in_float64)
    with np.errstate(all="ignore"):
        found = row.floor(wants, *given.args, **given.kwargs) if row.floor else 0.0
        each = found if isinstance(found, list) else [found] * len(wants)
        return [np.nan_to_num(np.asarray(f, np.float64), nan=0, posinf=0) for f in each]


def _host(result: Any) -> Any:
    return result if isinstance(result, np.generic) else host(result)


def _is_float(array: np.ndarray) -> bool:
    """Also of arrays of other dtypes than minidl's, as uint32."""
    return array.dtype.kind not in "biu" and is_float(array)


def _half_dtype(row: Entry, sample: Sample, place: int, want: np.ndarray) -> np.dtype:
    """The dtype of a result for 16-bit inputs: theirs, or of what the entry writes its own."""
    if place in row.wide:
        return float32.numpy
    if row.writes:
        return flat([sample.args[i] for i in row.writes])[place].dtype
    return next(a.dtype for a in arrays_of(sample) if is_float(a) and a.dtype.itemsize == 2)


def _bits(array: np.ndarray) -> np.ndarray:
    """The array for a comparison to the last bit, all NaN alike."""
    if not _is_float(array):
        return array
    wide = array.astype(np.float64)
    return np.where(np.isnan(wide), np.float64("nan"), wide).view(np.uint64)


def _few(array: np.ndarray) -> str:
    return " ".join(np.array2string(array, threshold=8, edgeitems=3).split())

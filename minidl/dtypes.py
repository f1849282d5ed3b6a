"""Names of the dtypes and the rules of promotion; the only code that knows a dtype's kind.

NumPy is never asked about float16 or bfloat16 (it does not know bfloat16's kind and sums both
in their own precision): they are storage dtypes, and everything about them is answered here.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from minidl.errors import DTypeError

BOOL, INTEGER, FLOAT = 0, 1, 2


class DType:
    """A tensor dtype, e.g. `minidl.float32`; one object per dtype, compared by identity."""

    __slots__ = ("name", "numpy", "kind", "itemsize")

    def __init__(self, name: str, numpy: np.dtype, kind: int) -> None:
        self.name = name
        self.numpy = numpy
        self.kind = kind
        self.itemsize = numpy.itemsize

    @property
    def is_floating_point(self) -> bool:
        """True for float16, bfloat16, float32 and float64."""
        return self.kind == FLOAT

    @property
    def is_signed(self) -> bool:
        """True for every dtype that holds negative numbers."""
        return self.name not in ("bool", "uint8")

    def __repr__(self) -> str:
        return f"minidl.{self.name}"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return dtype_of, (self.name,)


float64 = DType("float64", np.dtype(np.float64), FLOAT)
float32 = DType("float32", np.dtype(np.float32), FLOAT)
float16 = DType("float16", np.dtype(np.float16), FLOAT)
bfloat16 = DType("bfloat16", np.dtype(ml_dtypes.bfloat16), FLOAT)
int8 = DType("int8", np.dtype(np.int8), INTEGER)
int16 = DType("int16", np.dtype(np.int16), INTEGER)
int32 = DType("int32", np.dtype(np.int32), INTEGER)
int64 = DType("int64", np.dtype(np.int64), INTEGER)
uint8 = DType("uint8", np.dtype(np.uint8), INTEGER)
bool_ = DType("bool", np.dtype(np.bool_), BOOL)
double, single, half = float64, float32, float16
short, int_, long = int16, int32, int64

ALL = (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool_)
FLOATS = (float64, float32, float16, bfloat16)
INTEGERS = (int64, int32, int16, int8, uint8)
HALVES = (float16, bfloat16)
HALF_NUMPY = frozenset(d.numpy for d in HALVES)
FLOAT_NUMPY = frozenset(d.numpy for d in FLOATS)

FROM_NUMPY: dict[np.dtype, DType] = {d.numpy: d for d in ALL}
_FROM_NAME: dict[Any, DType] = {d.name: d for d in ALL}
_FROM_NAME |= {float: float64, int: int64, bool: bool_}
_default = [float32]


def dtype_of(name: Any) -> DType:
    """The DType for a DType, its name, Python's float/int/bool, or a NumPy dtype."""
    if isinstance(name, DType):
        return name
    try:
        if name in _FROM_NAME:
            return _FROM_NAME[name]
        if name is not None:  # which NumPy takes for float64
            return FROM_NUMPY[np.dtype(name)]
    except (KeyError, TypeError):
        pass
    names = ", ".join(d.name for d in ALL)
    raise DTypeError(f"dtype must be one of {names}", got=repr(name))


def get_default_dtype() -> DType:
    """The dtype of tensors made from Python floats (float32 at start)."""
    return _default[0]


def set_default_dtype(dtype: Any) -> None:
    """Make `dtype`, a floating point one, the default."""
    new = dtype_of(dtype)
    if new.kind != FLOAT:
        raise DTypeError("the default dtype must be a floating point one", got=repr(new))
    _default[0] = new


def _promote_table() -> dict[tuple[DType, DType], DType]:
    rank = {d: i for i, d in enumerate((bool_, int8, int16, int32, int64))}
    table = {}
    for a in ALL:
        for b in ALL:
            if a is b:
                result = a
            elif a.kind != b.kind:
                result = a if a.kind > b.kind else b
            elif a.kind == FLOAT:
                # float16 and bfloat16 hold none of each other's values, float32 holds both
                both_half = a.itemsize == b.itemsize == 2
                result = float32 if both_half else (a if a.itemsize > b.itemsize else b)
            elif uint8 in (a, b):
                other = b if a is uint8 else a
                result = int16 if other is int8 else other
            else:
                result = a if rank[a] > rank[b] else b
            table[a, b] = result
    return table


_PROMOTE = _promote_table()


def promote_types(a: Any, b: Any) -> DType:
    """The dtype that holds both, by PyTorch's table (uint8 + int8 = int16, int + float = float)."""
    return _PROMOTE[dtype_of(a), dtype_of(b)]


def of_scalar(value: bool | int | float) -> DType:
    """The dtype of a Python scalar: bool, int64, or the default dtype."""
    kind = type(value)
    return bool_ if kind is bool else int64 if kind is int else _default[0]


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    if higher is None or lower is None:
        return higher or lower
    # a weaker operand decides only where it is of a higher kind than the stronger one
    return _PROMOTE[higher, lower] if lower.kind > higher.kind else higher


def result_type(*operands: Any) -> DType:
    """The common dtype of tensors, arrays and Python scalars by PyTorch's rule.

    Arrays with axes outrank 0-d arrays, which outrank Python scalars; a lower rank matters only
    where its kind (bool < integer < floating point) is higher.
    """
    ranks: list[DType | None] = [None, None, None]
    for x in operands:
        if isinstance(x, bool | int | float):
            rank, dtype = 2, of_scalar(x)
        else:
            dtype = x.dtype if type(x.dtype) is DType else FROM_NUMPY[x.dtype]
            rank = 0 if x.ndim else 1
        seen = ranks[rank]
        ranks[rank] = dtype if seen is None else _PROMOTE[seen, dtype]
    result = _combine(ranks[0], _combine(ranks[1], ranks[2]))
    return result or _default[0]


def can_cast(source: Any, target: Any) -> bool:
    """Whether an in-place result of `source` may be written into `target` (kind does not fall)."""
    return dtype_of(source).kind <= dtype_of(target).kind


class finfo:  # noqa: N801 - the name users know
    """Limits of a floating point dtype: `eps`, `max`, `min`, `tiny`, `bits`."""

    def __init__(self, dtype: Any = None) -> None:
        self.dtype = dtype_of(dtype) if dtype is not None else _default[0]
        if self.dtype.kind != FLOAT:
            raise DTypeError("finfo needs a floating point dtype", got=repr(self.dtype))
        info = ml_dtypes.finfo(self.dtype.numpy)
        self.bits = info.bits
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = float(info.resolution)


class iinfo:  # noqa: N801 - the name users know
    """Limits of an integer dtype: `max`, `min`, `bits`."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype_of(dtype)
        if self.dtype.kind != INTEGER:
            raise DTypeError("iinfo needs an integer dtype", got=repr(self.dtype))
        info = np.iinfo(self.dtype.numpy)
        self.bits, self.max, self.min = info.bits, int(info.max), int(info.min)

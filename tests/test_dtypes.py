"""Names, limits and promotion of dtypes, without torch and against it."""

import itertools
import pickle

import ml_dtypes
import numpy as np
import pytest

from minidl import dtypes
from minidl.dtypes import (
    ALL,
    FLOAT,
    FLOATS,
    HALVES,
    INTEGERS,
    bfloat16,
    bool_,
    can_cast,
    dtype_of,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int64,
    promote_types,
    result_type,
    set_default_dtype,
    uint8,
)
from minidl.errors import DTypeError
from minidl.ops.arithmetic import add
from minidl.tensor import Tensor
from minidl.testing.oracles import promoted

PAIRS = list(itertools.product(ALL, ALL))
SCALARS = (True, 2, 2.5)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")


@pytest.fixture(params=[float32, float64], ids=repr)
def default(request, torch):
    """Both libraries with the same default dtype."""
    before = get_default_dtype(), torch.get_default_dtype()
    set_default_dtype(request.param)
    torch.set_default_dtype(of_torch(torch, request.param))
    yield request.param
    set_default_dtype(before[0])
    torch.set_default_dtype(before[1])


def of_torch(torch, dtype):
    return getattr(torch, dtype.name)


def operands():
    """(array or scalar, words) of every dtype with axes, of every dtype without, and scalars."""
    for dtype in ALL:
        yield np.ones((2,), dtype.numpy), f"{dtype.name}[2]"
    for dtype in ALL:
        yield np.ones((), dtype.numpy), f"{dtype.name}[]"
    for scalar in SCALARS:
        yield scalar, repr(scalar)


def for_torch(torch, x):
    if not isinstance(x, np.ndarray):
        return x
    return torch.ones(x.shape, dtype=of_torch(torch, dtype_of(x.dtype)))


# Names and limits


@pytest.mark.parametrize("dtype", ALL, ids=repr)
def test_names(dtype):
    assert dtype_of(dtype.name) is dtype_of(dtype) is dtype_of(dtype.numpy) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype
    assert repr(dtype) == f"minidl.{dtype.name}"
    assert dtype.itemsize == np.zeros(1, dtype.numpy).nbytes
    assert dtype.is_floating_point == (dtype in FLOATS)


def test_python_types_are_names():
    assert [dtype_of(t) for t in (float, int, bool)] == [float64, int64, bool_]


@pytest.mark.parametrize("name", ["float8", "complex64", None, 3, np.complex128, "uint32"])
def test_unknown_names_are_refused(name):
    with pytest.raises(DTypeError, match="dtype must be one of float64, float32"):
        dtype_of(name)


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_finfo_is_torchs(dtype, torch):
    ours, theirs = finfo(dtype), torch.finfo(of_torch(torch, dtype))
    for name in ("bits", "eps", "max", "min", "tiny", "smallest_normal"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("dtype", INTEGERS, ids=repr)
def test_iinfo_is_torchs(dtype, torch):
    ours, theirs = iinfo(dtype), torch.iinfo(of_torch(torch, dtype))
    assert (ours.bits, ours.max, ours.min) == (theirs.bits, theirs.max, theirs.min)


def test_limits_of_the_wrong_kind_are_refused():
    with pytest.raises(DTypeError, match="floating point"):
        finfo(int64)
    with pytest.raises(DTypeError, match="integer"):
        iinfo(float32)


def test_default_dtype():
    assert get_default_dtype() is float32
    with pytest.raises(DTypeError, match="floating point"):
        set_default_dtype(int64)
    try:
        set_default_dtype("float64")
        assert get_default_dtype() is float64
        assert result_type(1.5, True) is float64
    finally:
        set_default_dtype(float32)


# Promotion by rules that need no torch


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda d: d.name)
def test_promotion_is_symmetric_and_holds_both(a, b):
    found = promote_types(a, b)
    assert found is promote_types(b, a)
    assert found.kind == max(a.kind, b.kind)
    if a.kind == b.kind == FLOAT:
        assert finfo(found).max >= max(finfo(a).max, finfo(b).max)
        assert finfo(found).eps <= min(finfo(a).eps, finfo(b).eps)
    if a in INTEGERS and b in INTEGERS:
        assert iinfo(found).max >= max(iinfo(a).max, iinfo(b).max)
        assert iinfo(found).min <= min(iinfo(a).min, iinfo(b).min)


def test_promotion_by_hand():
    assert promote_types(float16, bfloat16) is float32
    assert promote_types(uint8, int8) is int16
    assert promote_types(int64, float16) is float16
    assert promote_types("bool", "uint8") is uint8
    assert result_type(np.ones(1, np.int8), np.ones((), np.int64)) is int8
    assert result_type(np.ones(1, np.int8), np.ones((), np.float64)) is float64
    assert result_type(np.ones(1, np.float16), np.ones((), np.float64), 1e9) is float16
    assert result_type(np.ones(1, np.uint8), 300) is uint8
    assert result_type(np.ones(1, np.int64), 1.5) is float32
    assert result_type(np.ones((), np.bool_), True, 2) is int64


def test_rule_of_the_oracles_agrees():
    """The oracles have their own: here the two meet, for every dtype and rank."""
    found = list(operands())
    for (x, a), (y, b) in itertools.product(found, found):
        ours = result_type(x, y)
        if ours.kind == FLOAT:
            assert promoted([x, y]) is ours, f"{a}, {b}"


def test_halves_are_numpys_only_by_size():
    assert [d.numpy for d in HALVES] == [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
    assert {d.numpy for d in HALVES} == dtypes.HALF_NUMPY


# Promotion against torch


def test_promote_types_is_torchs(torch):
    for a, b in PAIRS:
        theirs = torch.promote_types(of_torch(torch, a), of_torch(torch, b))
        assert of_torch(torch, promote_types(a, b)) is theirs, f"{a}, {b}"


def test_result_type_is_torchs(torch, default):
    found = list(operands())
    for (x, a), (y, b) in itertools.product(found, found):
        theirs = torch.result_type(for_torch(torch, x), for_torch(torch, y))
        assert of_torch(torch, result_type(x, y)) is theirs, f"{a}, {b}"


def test_dtype_of_a_sum_is_torchs(torch, default):
    """Through the dispatcher, which has its own short cuts for common dtypes."""
    found = list(operands())
    for (x, a), (y, b) in itertools.product(found, found):
        if not isinstance(x, np.ndarray) and not isinstance(y, np.ndarray):
            continue
        theirs = torch.add(for_torch(torch, x), for_torch(torch, y))
        ours = add(*(Tensor(v) if isinstance(v, np.ndarray) else v for v in (x, y)))
        assert of_torch(torch, ours.dtype) is theirs.dtype, f"{a}, {b}"
        assert ours.tolist() == theirs.tolist(), f"{a}, {b}"


def test_three_operands_are_promoted_like_torchs_where(torch):
    shapes = ((2,), ())
    for a, b, s in itertools.product(FLOATS, (int8, int16, bool_, *FLOATS), shapes):
        x, y = np.ones((2,), b.numpy), np.ones(s, a.numpy)
        theirs = torch.where(
            torch.ones(2, dtype=torch.bool), for_torch(torch, x), for_torch(torch, y)
        )
        assert of_torch(torch, result_type(x, y)) is theirs.dtype


def test_can_cast_is_torchs(torch):
    for a, b in PAIRS:
        theirs = torch.can_cast(of_torch(torch, a), of_torch(torch, b))
        assert can_cast(a, b) == theirs, f"{a}, {b}"

"""Tensors from data, sizes and ranges: values, dtypes, shared memory and refused input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import minidl
from minidl.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    MinidlError,
    OutOfMemoryError,
    ShapeError,
)

NAN = float("nan")

# ---------------------------------------------------------------- from data


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1.5, "float32", ()),
        (3, "int64", ()),
        (True, "bool", ()),
        ([1, 2.5], "float32", (2,)),
        ([True, 2], "int64", (2,)),
        ([[True], [False]], "bool", (2, 1)),
        ([], "float32", (0,)),
        ([[], []], "float32", (2, 0)),
        ((1, (2)), "int64", (2,)),
        ([np.float64(1), 2], "float64", (2,)),
        ([np.float16(1), 2], "float16", (2,)),
        ([np.int8(1), np.uint8(2)], "int16", (2,)),
        (np.float64(1), "float64", ()),
        ([np.ones(2, np.float32), [1, 2]], "float32", (2, 2)),
        (np.ones((2, 0), np.int16), "int16", (2, 0)),
        (range(3), "int64", (3,)),
    ],
    ids=repr,
)
def test_dtype_and_shape_follow_the_data(data, dtype, shape):
    x = minidl.tensor(list(data) if isinstance(data, range) else data)
    assert (x.dtype.name, x.shape) == (dtype, shape)
    assert not x.requires_grad and x.is_leaf


def test_python_floats_get_the_default_dtype():
    minidl.set_default_dtype(minidl.float64)
    try:
        assert minidl.tensor([0.1]).dtype is minidl.float64
        assert minidl.zeros(2).dtype is minidl.float64
        assert minidl.arange(0, 1, 0.5).dtype is minidl.float64
    finally:
        minidl.set_default_dtype(minidl.float32)


def test_values_survive():
    assert minidl.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert minidl.tensor(2**53 + 1).item() == 2**53 + 1
    assert minidl.tensor([0.1], dtype=minidl.float64).item() == 0.1
    assert minidl.tensor([1.7, -1.7], dtype=minidl.int64).tolist() == [1, -1]
    assert minidl.tensor([0.1], dtype=minidl.bfloat16).item() == float(ml_dtypes.bfloat16(0.1))
    assert minidl.tensor([minidl.tensor(1.0), minidl.tensor([2]), 3]).tolist() == [1, 2, 3]


def test_tensor_copies_and_forgets_history():
    source = np.arange(3.0)
    x = minidl.tensor(source)
    source[0] = 9
    assert x.tolist() == [0, 1, 2]
    leaf = minidl.ones(2, requires_grad=True)
    copy = minidl.tensor(leaf * 2)
    assert copy.tolist() == [2, 2] and copy.is_leaf and not copy.requires_grad


def test_requires_grad_is_for_floating_point():
    assert minidl.tensor([1.0], requires_grad=True).requires_grad
    with pytest.raises(DTypeError, match="floating point"):
        minidl.tensor([1], requires_grad=True)


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([[1, 2], [3]], ShapeError, "expected a sequence of length 2 at axis 1, got .* length 1"),
        ([[1], 2], ShapeError, "expected a sequence of length 1 at axis 1, got a number"),
        ([1, [2]], ShapeError, "expected a number at axis 1, got a sequence"),
        ([np.ones(2), np.ones(3)], ShapeError, "length 2 at axis 1"),
        ("abc", DTypeError, "'abc'"),
        ([1, "a"], DTypeError, "'a'"),
        (None, DTypeError, "None"),
        ([[None]], DTypeError, "None"),
        (1j, DTypeError, "1j"),
        (np.ones(2, complex), DTypeError, "complex128"),
        (np.array(["a"]), DTypeError, "<U1"),
        (np.ones(2, np.uint32), DTypeError, "uint32"),
        (2**70, ArgumentError, "range of int64"),
        ([object()], DTypeError, "object"),
    ],
)
def test_data_that_is_refused(data, error, text):
    with pytest.raises(error, match=text) as caught:
        minidl.tensor(data)
    assert str(caught.value).startswith("[tensor]")


def test_tensors_of_several_elements_in_a_list_are_refused():
    with pytest.raises(ShapeError, match="use stack or cat"):
        minidl.tensor([minidl.ones(2), minidl.ones(2)])


@pytest.mark.parametrize(
    ("data", "dtype"),
    [(300, "uint8"), (-1, "uint8"), ([1, 128], "int8"), (NAN, "int32"), (float("inf"), "int64")],
)
def test_numbers_that_an_integer_dtype_does_not_hold(data, dtype):
    with pytest.raises(ArgumentError, match=f"range of {dtype}"):
        minidl.tensor(data, dtype=dtype)


def test_sizes_and_ranges_by_name():
    assert minidl.tensor(range(3)).tolist() == [0, 1, 2]
    assert minidl.arange(end=3).tolist() == [0, 1, 2]
    assert minidl.rand(size=(2, 3)).shape == minidl.randn(size=[2, 3]).shape == (2, 3)
    assert minidl.ones(1).new_zeros(size=(2,), device="cpu").tolist() == [0, 0]
    assert minidl.full((1,), -1, dtype=minidl.uint8).tolist() == [255]
    with pytest.raises(ArgumentError, match="given twice"):
        minidl.zeros(2, size=(3,))


@pytest.mark.filterwarnings("error")
def test_what_overflows_becomes_infinite_without_warnings():
    assert minidl.tensor([1e6, 1e300], dtype=minidl.float16).tolist() == [np.inf] * 2
    assert minidl.tensor(np.array([1e300]), dtype=minidl.float32).tolist() == [np.inf]
    x = minidl.zeros(2, dtype=minidl.float16)
    x[0] = 10**6
    assert x.tolist() == [np.inf, 0]
    with pytest.raises(ArgumentError, match=r"\[full\] the value does not fit into float16"):
        minidl.full((1,), 1e6, dtype=minidl.float16)


def test_unsupported_integers_of_numpy_can_be_converted():
    x = minidl.tensor(np.array([1, 2], np.uint16), dtype=minidl.int32)
    assert x.dtype is minidl.int32 and x.tolist() == [1, 2]


def test_foreign_byte_order_is_converted_by_a_copy_only():
    foreign = np.array([1.5, 2.5], ">f4")
    assert minidl.tensor(foreign).tolist() == [1.5, 2.5]
    with pytest.raises(DTypeError, match="byte order"):
        minidl.from_numpy(foreign)


# ---------------------------------------------------------------- shared memory


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.bool_])
def test_from_numpy_shares(dtype):
    array = np.zeros((2, 3), dtype)
    x = minidl.from_numpy(array)
    array[0, 1] = 1
    assert x.tolist()[0][1] == 1
    x[1, 2] = 1
    assert array[1, 2] == 1


def test_from_numpy_takes_any_strides():
    array = np.arange(12.0).reshape(3, 4)
    x = minidl.from_numpy(array[::-1, ::2])
    assert x.tolist() == [[8, 10], [4, 6], [0, 2]]
    x.add_(1)
    assert array[2].tolist() == [9, 9, 11, 11]
    assert (x @ x.T).shape == (3, 3)


def test_a_read_only_array_gives_a_read_only_tensor():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = minidl.from_numpy(array)
    assert (x + 1).tolist() == [1, 2, 3]
    for write in (
        lambda: x.add_(1),
        lambda: x.__setitem__(0, 5.0),
        lambda: x[1:].mul_(2),
        lambda: x.index_fill_(0, minidl.tensor([0]), 1.0),
    ):
        with pytest.raises(MinidlError, match="read-only"):
            write()
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("bad", [[1, 2], 3.0, None])
def test_from_numpy_needs_an_array(bad):
    with pytest.raises(DTypeError, match="NumPy array"):
        minidl.from_numpy(bad)


def test_from_numpy_refuses_unaligned_arrays():
    packed = np.zeros(3, np.dtype([("flag", "u1"), ("value", "f8")]))
    with pytest.raises(ArgumentError, match="aligned"):
        minidl.from_numpy(packed["value"])


def test_as_tensor_copies_only_where_it_must():
    x = minidl.ones(2, requires_grad=True)
    assert minidl.as_tensor(x) is x
    assert minidl.as_tensor(x, dtype=minidl.float64).requires_grad
    array = np.zeros(2)
    minidl.as_tensor(array)[0] = 1
    assert array[0] == 1
    minidl.as_tensor(array, dtype=minidl.float32)[1] = 1
    assert array[1] == 0
    assert minidl.as_tensor([1, 2.0]).dtype is minidl.float32


# ---------------------------------------------------------------- of given sizes


@pytest.mark.parametrize(("name", "value"), [("zeros", 0), ("ones", 1)])
def test_constant_tensors(name, value):
    make = getattr(minidl, name)
    for x in (make(2, 3), make((2, 3)), make([2, 3]), make(size=(2, 3))):
        assert x.shape == (2, 3) and x.dtype is minidl.float32
        assert set(x.flatten().tolist()) == {value}
    assert make(()).shape == ()
    assert make(2, 0).numel() == 0
    assert make(2, dtype=minidl.bool_, device="cpu").tolist() == [bool(value)] * 2
    like = getattr(minidl, name + "_like")(make(2, dtype=minidl.int8))
    assert like.dtype is minidl.int8 and like.tolist() == [value] * 2
    new = getattr(minidl.tensor([1.0], dtype=minidl.float64), "new_" + name)(2, 1)
    assert new.dtype is minidl.float64 and new.tolist() == [[value]] * 2


def test_empty_and_full():
    assert minidl.empty(2, 3, dtype=minidl.int16).shape == (2, 3)
    assert minidl.empty_like(minidl.ones(4)).shape == (4,)
    assert minidl.tensor(1).new_empty((3,)).dtype is minidl.int64
    assert minidl.full((2,), True).dtype is minidl.bool_
    assert minidl.full((2,), 3).dtype is minidl.int64
    assert minidl.full([2], 3.0).dtype is minidl.float32
    assert minidl.full((2,), 2.7, dtype=minidl.int64).tolist() == [2, 2]
    assert minidl.full((1,), minidl.tensor(2.0)).tolist() == [2]
    assert minidl.full_like(minidl.tensor([1]), 2.5).tolist() == [2]
    assert minidl.ones(1).new_full((2,), 3).dtype is minidl.float32
    assert minidl.ones(1).new_tensor([1, 2]).dtype is minidl.float32
    assert minidl.scalar_tensor(3).dtype is minidl.float32
    with pytest.raises(ArgumentError, match="does not fit into uint8"):
        minidl.full((2,), 300, dtype=minidl.uint8)
    with pytest.raises(DTypeError, match="real number"):
        minidl.full((2,), "a")


@pytest.mark.parametrize("make", ["zeros", "ones", "empty"])
@pytest.mark.parametrize("size", [(10**6, 10**7), (10**10, 10**10)])
def test_more_than_memory_holds(make, size):
    with pytest.raises(OutOfMemoryError) as caught:
        getattr(minidl, make)(size)
    text = str(caught.value)
    assert text.startswith(f"[{make}]") and str(size) in text
    assert f"{4 * size[0] * size[1]:,} bytes" in text
    assert isinstance(caught.value, MemoryError)


def test_more_than_memory_holds_in_other_functions():
    for call in (
        lambda: minidl.full((10**6, 10**7), 1.0),
        lambda: minidl.arange(10**15),
        lambda: minidl.linspace(0, 1, 10**15),
        lambda: minidl.eye(10**7),
    ):
        with pytest.raises(OutOfMemoryError, match="bytes do not fit"):
            call()


@pytest.mark.parametrize(
    ("size", "error"),
    [((-1,), ShapeError), ((2, -3), ShapeError), ((2.0,), DTypeError), (("2",), DTypeError),
     ((), ShapeError), ((1,) * 65, ShapeError)],
)  # fmt: skip
def test_sizes_that_are_refused(size, error):
    with pytest.raises(error, match=r"\[zeros\]"):
        minidl.zeros(*size)


def test_the_cpu_is_here():
    x = minidl.zeros(2)
    assert x.cpu() is x
    with pytest.raises(DeviceError, match="'cuda'"):
        x.cuda()


def test_there_are_no_gpus():
    device = minidl.device("cuda" if minidl.cuda.is_available() else "cpu")
    assert device.type == "cpu" and minidl.cuda.device_count() == 0
    minidl.manual_seed(0)
    state = minidl.get_rng_state()
    minidl.cuda.manual_seed(1)
    minidl.cuda.manual_seed_all(1)
    assert minidl.get_rng_state().equal(state)


def test_other_devices_are_refused():
    with pytest.raises(DeviceError, match="'cpu', 'cuda' or 'cuda:N'"):
        minidl.zeros(2, device="tpu")


# ---------------------------------------------------------------- ranges and patterns


RANGES = [(5,), (2, 7), (0, 10, 3), (5, 0, -2), (0, 1, 0.25), (1.0, -1.0, -0.3), (3, 3), (0.5,),
          (0, 1, 0.1), (-3.5, 4.25, 0.75)]  # fmt: skip


@pytest.mark.parametrize("args", RANGES)
def test_arange(args):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    # torch truncates fractional arguments of an integer range before it counts
    whole = all(isinstance(a, int) for a in args)
    for dtype in (None, "float64", "float16", *["int32"] * whole):
        found = minidl.arange(*args, dtype=dtype)
        want = torch.arange(*args, dtype=dtype and getattr(torch, dtype))
        assert found.dtype.name == str(want.dtype).removeprefix("torch.")
        assert found.shape == tuple(want.shape)
        eps = 0 if found.dtype.kind == 1 else minidl.finfo(found.dtype).eps
        assert np.allclose(found.double().array, want.double().numpy(), rtol=2 * eps, atol=4 * eps)


@pytest.mark.parametrize("name", ["linspace", "logspace"])
@pytest.mark.parametrize("args", [(0, 10, 5), (1, -1, 4), (2.5, 2.5, 3), (0, 1, 1), (0, 1, 0)])
def test_spaces(name, args):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    for dtype in ("float32", "float64"):
        found = getattr(minidl, name)(*args, dtype=dtype)
        want = getattr(torch, name)(*args, dtype=getattr(torch, dtype)).numpy()
        assert found.shape == want.shape
        assert np.allclose(found.array, want, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("args", [(0, 5, 0), (0, 5, -1), (5, 0), (0, NAN), (0, 1, float("inf"))])
def test_ranges_without_end_are_refused(args):
    with pytest.raises(ArgumentError, match=r"\[arange\] step"):
        minidl.arange(*args)


def test_patterns():
    assert minidl.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert minidl.eye(2, dtype=minidl.bool_).tolist() == [[True, False], [False, True]]
    rows, columns = minidl.tril_indices(3, 2)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (0, 0), (1, 0), (1, 1), (2, 0), (2, 1)]  # fmt: skip
    assert minidl.triu_indices(2, 3, 1).tolist() == [[0, 0, 1], [1, 2, 2]]
    assert minidl.tril_indices(0, 3).shape == (2, 0)

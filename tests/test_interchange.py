"""Sharing elements with NumPy and by DLPack, copies, pickles, and how tensors print."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import ml_dtypes
import numpy as np
import pytest

from minidl.dtypes import bfloat16
from minidl.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradientError,
    MinidlError,
    ShapeError,
)
from minidl.ops import mul
from minidl.tensor import Parameter, Tensor, from_dlpack, set_printoptions


def test_numpy_shares_the_elements() -> None:
    t = Tensor(np.zeros(3))
    t.numpy()[0] = 5
    assert t.tolist() == [5.0, 0.0, 0.0]
    assert np.asarray(t) is t.array
    assert np.asarray(t, dtype=np.float32).dtype == np.float32
    assert np.array(t) is not t.array
    with pytest.raises(ValueError, match="without a copy"):
        t.__array__(np.float32, copy=False)
    assert np.sin(np.asarray(t)).shape == (3,)


def test_tensor_that_requires_grad_is_not_exported() -> None:
    t = Tensor(np.zeros(3)).requires_grad_()
    for export in (np.asarray, lambda t: t.numpy()):
        with pytest.raises(GradientError, match=r"call \.detach\(\) first"):
            export(t)
    with pytest.raises(BufferError, match=r"call \.detach\(\) first"):
        np.from_dlpack(t)
    assert t.numpy(force=True) is t.array
    assert np.asarray(t.detach()) is t.array


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8, np.uint8, np.int64])
def test_dlpack_with_numpy(dtype: type) -> None:
    t = Tensor(np.arange(12).astype(dtype).reshape(3, 4)[:, ::2])
    array = np.from_dlpack(t)
    assert np.shares_memory(array, t.array) and array.strides == t.array.strides
    back = from_dlpack(array)
    assert np.shares_memory(back.array, t.array) and back.shape == (3, 2)


def test_bfloat16_capsule_goes_there_and_back() -> None:
    array = np.arange(12).astype(ml_dtypes.bfloat16).reshape(3, 4)[:, ::2]
    t = Tensor(array)
    back = from_dlpack(t)
    assert back.dtype is bfloat16 and back.tolist() == t.tolist()
    back.array[0, 0] = 7
    assert t.tolist()[0][0] == 7.0
    owner = weakref.ref(t.array.base)
    del t, array
    gc.collect()
    assert back.tolist()[0] == [7.0, 2.0]
    held = back.array[1:]
    del back
    gc.collect()
    assert held.astype(np.float32).tolist() == [[4.0, 6.0], [8.0, 10.0]]
    assert owner() is not None
    del held
    gc.collect()
    assert owner() is None


def test_capsule_that_nobody_takes_is_released() -> None:
    array = np.ones(2, ml_dtypes.bfloat16)
    owner, capsule = weakref.ref(array), Tensor(array).__dlpack__()
    del array
    assert owner() is not None
    del capsule
    assert owner() is None
    assert from_dlpack(Tensor(np.ones((0, 3), ml_dtypes.bfloat16))).shape == (0, 3)
    # a consumer that refuses, here NumPy (2.5 changed the type of its error)
    with pytest.raises((BufferError, RuntimeError), match="dtype"):
        np.from_dlpack(Tensor(np.ones(2, ml_dtypes.bfloat16)))


def test_capsule_can_be_taken_once() -> None:
    class Source:
        dtype = "bfloat16"
        capsule = Tensor(np.ones(2, ml_dtypes.bfloat16)).__dlpack__(max_version=(1, 0))

        def __dlpack__(self, **options: object) -> object:
            return self.capsule

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    assert from_dlpack(Source()).tolist() == [1.0, 1.0]
    with pytest.raises(MinidlError, match=r"\[from_dlpack\]"):
        from_dlpack(Source())


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_negative_strides_are_not_exported(dtype: type) -> None:
    with pytest.raises(BufferError, match="negative strides"):  # torch would end the process
        Tensor(np.arange(3).astype(dtype)[::-1]).__dlpack__()


def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    for dtype in (torch.float32, torch.bfloat16, torch.int16, torch.bool, torch.float16):
        source = torch.tensor([[1, 0, 2], [0, 4, 1]]).to(dtype).t()
        ours = from_dlpack(source)
        assert ours.tolist() == source.tolist() and ours.data_ptr() == source.data_ptr()
        assert f"minidl.{str(dtype)[6:]}" == repr(ours.dtype)
        theirs = torch.from_dlpack(ours)
        assert theirs.dtype == dtype and theirs.data_ptr() == source.data_ptr()


def test_dlpack_of_a_device_and_a_copy() -> None:
    source = np.arange(3.0)
    assert from_dlpack(source, device="cpu", copy=False).data_ptr() == source.ctypes.data
    copied = from_dlpack(source, copy=True)
    assert copied.tolist() == source.tolist() and copied.data_ptr() != source.ctypes.data
    with pytest.raises(DeviceError):
        from_dlpack(source, device="cuda")


def test_dlpack_refusals() -> None:
    with pytest.raises(DTypeError, match="__dlpack__"):
        from_dlpack([1, 2])
    with pytest.raises(DTypeError, match="no such dtype, got complex64"):
        from_dlpack(np.ones(2, np.complex64))
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(MinidlError, match=r"\[add_\] the tensor is read-only"):
        from_dlpack(frozen).add_(1)
    with pytest.raises(BufferError):
        Tensor(np.ones(2)).__dlpack__(stream=1)


def test_deep_copy_and_pickle_of_leaves() -> None:
    p = Parameter(Tensor(np.ones(3)))
    p.grad = Tensor(np.full(3, 2.0))
    twin = copy.deepcopy([p, p])
    assert twin[0] is twin[1] and isinstance(twin[0], Parameter) and twin[0].requires_grad
    assert twin[0].grad is None and not np.shares_memory(twin[0].array, p.array)
    leaf = Tensor(np.ones(3)).requires_grad_()
    leaf.grad = p.grad
    assert copy.deepcopy(leaf).grad.tolist() == [2.0] * 3  # parameters leave theirs
    loaded = pickle.loads(pickle.dumps(p))
    assert isinstance(loaded, Parameter) and loaded.tolist() == p.tolist()
    for function in (copy.deepcopy, pickle.dumps):
        with pytest.raises(GradientError, match="only leaves"):
            function(mul(p, p))


def test_python_values() -> None:
    assert Tensor(np.array(3.5)).item() == 3.5 and float(Tensor(np.array([2]))) == 2.0
    assert Tensor(np.array(1.5, ml_dtypes.bfloat16)).item() == 1.5
    assert [10, 20, 30][Tensor(np.array(1))] == 20
    assert f"{Tensor(np.array(1.23456)):.2f}" == "1.23"
    assert f"{mul(Tensor(np.array(1.5)).requires_grad_(), 2)} {Tensor(np.array(3))}" == "3.0 3"
    with pytest.raises(TypeError, match="format"):
        f"{Tensor(np.ones(2)):.2f}"
    assert bool(Tensor(np.array(True))) and len(Tensor(np.zeros((4, 2)))) == 4
    with pytest.raises(ShapeError, match="needs a tensor of one element, got"):
        Tensor(np.zeros(2)).item()
    with pytest.raises(ShapeError, match="ambiguous"):
        bool(Tensor(np.zeros(2)))
    with pytest.raises(DTypeError, match="as an index"):
        [1, 2][Tensor(np.array(1.0))]
    for function in (len, iter):
        with pytest.raises(TypeError, match="0-d"):
            function(Tensor(np.array(1.0)))


def test_data_and_grad_are_checked() -> None:
    t = Tensor(np.zeros((2, 3)))
    t.data = Tensor(np.ones(4))
    assert t.shape == (4,)
    with pytest.raises(ShapeError, match="grad must have the tensor's shape"):
        t.grad = Tensor(np.ones(3))
    with pytest.raises(DTypeError, match="grad must have the tensor's dtype"):
        t.grad = Tensor(np.ones(4, np.float32))
    with pytest.raises(DTypeError, match="only floating point tensors can require gradients"):
        Tensor(np.ones(2, np.int64)).requires_grad_()
    with pytest.raises(DTypeError, match=r"use minidl.tensor\(data\)"):
        Tensor([1, 2])
    x = Tensor(np.ones(2)).requires_grad_()
    with pytest.raises(GradientError, match="leaves only"):
        mul(x, x).requires_grad = False


PRINTED = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array([1e-5, 2, 3000], np.float32),
    np.array(3.5, np.float32),
    np.array([True, False]),
    np.array([1, np.nan, np.inf], np.float32),
    np.zeros((0, 3), np.float32),
    np.zeros(0, np.int32),
    np.array([1e9, 1, 2], np.float32),
    np.array([0, 1e-8], np.float32),
    np.array([-1.5, 200.25], np.float16),
    np.array([-1.5, 200.25], np.float64),
    np.array([[1, -20], [100, 4]], np.int8),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
    np.linspace(-3, 100, 40, dtype=np.float32),
    np.array([1, 10000], np.float32),
    np.array([np.nan, -np.inf, 0], np.float64),
    np.array([np.inf, 12345.5, -0.0], np.float16),
    np.arange(-40, 0).reshape(1, 1, 40) * 12345678,
    np.arange(40).reshape(1, 40) > 3,
    np.arange(1001),
    np.arange(3003).reshape(3, 1001) / 8,
    np.arange(2401, dtype=np.float32).reshape(7, 7, 7, 7),
]


@pytest.mark.parametrize("array", PRINTED, ids=lambda array: f"{array.dtype}{array.shape}")
def test_repr_equals_torch(array: np.ndarray) -> None:
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    theirs = repr(torch.from_numpy(array.copy())).replace("torch.", "minidl.")
    assert repr(Tensor(array)) == theirs


def test_repr_of_history_and_parameters() -> None:
    x = Tensor(np.ones(2, np.float32)).requires_grad_()
    assert repr(x) == "tensor([1., 1.], requires_grad=True)"
    assert repr(mul(x, x)) == "tensor([1., 1.], grad_fn=<MulBackward0>)"
    assert repr(Parameter(x)).startswith("Parameter containing:\ntensor([1., 1.], requires")
    assert repr(Tensor(np.arange(5000))).count("...") == 1


def test_printoptions() -> None:
    set_printoptions(precision=2)
    try:
        assert repr(Tensor(np.array([1.234, 2], np.float32))) == "tensor([1.23, 2.00])"
        set_printoptions(sci_mode=True)
        assert repr(Tensor(np.array([2.0], np.float32))) == "tensor([2.00e+00])"
        set_printoptions(profile="full")
        assert "..." not in repr(Tensor(np.arange(5000)))
        with pytest.raises(ArgumentError, match="profile must be one of default, short, full"):
            set_printoptions(profile="long")
    finally:
        set_printoptions(profile="default")

"""Sharing elements with other libraries: NumPy's protocol, DLPack, `numpy()`.

DLPack goes through NumPy, except for bfloat16, which NumPy cannot exchange: for it the capsule is
written and read here (structures of the DLPack specification, dlpack.h, version 0.8).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from minidl.dtypes import FROM_NUMPY, bfloat16
from minidl.errors import DTypeError, GradientError, MinidlError
from minidl.tensor.core import Tensor

_CPU = 1
_BFLOAT = 4


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_DLManagedTensor))
_DLManagedTensor._fields_ = (
    ("tensor", _DLTensor),
    ("context", ctypes.c_void_p),
    ("deleter", _Deleter),
)
_CapsuleDestructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_api = ctypes.pythonapi
_new_capsule = _api.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, _CapsuleDestructor)
_pointer_of = _api.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer_raw = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _api)
)
_set_name = _api.PyCapsule_SetName
_set_name.restype = ctypes.c_int
_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)
_NAME, _USED = b"dltensor", b"used_dltensor"  # capsules keep the pointers: these must live

_exported: dict[int, tuple[Any, ...]] = {}  # address of a managed tensor -> what it borrows


@_Deleter
def _release(managed: Any) -> None:
    _exported.pop(ctypes.addressof(managed.contents), None)


@_CapsuleDestructor
def _drop(capsule: int) -> None:
    if _is_valid(capsule, _NAME):  # nobody took it over
        _exported.pop(_pointer_raw(capsule, _NAME), None)


def _export_bfloat16(array: np.ndarray) -> Any:
    n = array.ndim
    shape = (ctypes.c_int64 * n)(*array.shape)
    strides = (ctypes.c_int64 * n)(*(s // 2 for s in array.strides))
    managed = _DLManagedTensor()
    t = managed.tensor
    t.data, t.device_type, t.device_id = array.ctypes.data, _CPU, 0
    t.ndim, t.code, t.bits, t.lanes = n, _BFLOAT, 16, 1
    t.shape = ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64))
    t.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = _release
    address = ctypes.addressof(managed)
    _exported[address] = (managed, array, shape, strides)
    return _new_capsule(address, _NAME, _drop)


class _Borrowed:
    """Elements of another library; gives them back when the last array over them is gone."""

    def __init__(self, managed: Any, interface: dict[str, Any]) -> None:
        self._managed = managed
        self.__array_interface__ = interface

    def __del__(self) -> None:
        if self._managed.deleter:
            self._managed.deleter(ctypes.byref(self._managed))


def _import_bfloat16(capsule: Any) -> np.ndarray | None:
    """The array of a bfloat16 capsule; None for any other dtype (the capsule stays usable)."""
    managed = _DLManagedTensor.from_address(_pointer_of(capsule, _NAME))
    t = managed.tensor
    if (t.code, t.bits, t.lanes) != (_BFLOAT, 16, 1):
        return None
    if t.device_type != _CPU:
        raise MinidlError("[from_dlpack] the tensor is not in the memory of the CPU")
    shape = tuple(t.shape[i] for i in range(t.ndim))
    strides = tuple(2 * t.strides[i] for i in range(t.ndim)) if t.strides else None
    interface = {
        "shape": shape,
        "strides": strides,
        "typestr": "<u2",
        "data": ((t.data or 0) + t.byte_offset, False),
        "version": 3,
    }
    _set_name(capsule, _USED)
    if not np.prod(shape, dtype=np.int64):
        _Borrowed(managed, {})
        return np.empty(shape, bfloat16.numpy)
    return np.asarray(_Borrowed(managed, interface)).view(bfloat16.numpy)


def _exportable(t: Tensor, what: str, error: type[Exception] = GradientError) -> np.ndarray:
    if t.requires_grad:
        raise error(
            f"{what} of a tensor that requires gradients would lose them; call .detach() first"
        )
    return t.array


def _dlpack(
    self: Tensor,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """A DLPack capsule over the elements, shared; BufferError if it requires gradients."""
    array = _exportable(self, "exporting the elements", BufferError)
    if stream is not None:
        raise BufferError("a CPU tensor has no stream")
    if array.dtype != bfloat16.numpy:
        return array.__dlpack__(max_version=max_version, dl_device=dl_device, copy=copy)
    if dl_device not in (None, (_CPU, 0)):
        raise BufferError("a CPU tensor can be exported to the CPU only")
    if not array.flags.writeable:
        raise BufferError("read-only bfloat16 tensors cannot be exported; .clone() it first")
    return _export_bfloat16(array.copy() if copy else array)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """(1, 0): the memory of the CPU."""
    return _CPU, 0


def from_dlpack(source: Any) -> Tensor:
    """A tensor over the elements of another library's array, shared without a copy.

    source: an object with `__dlpack__` (NumPy, torch, CuPy ... on the CPU). Raises DTypeError for
    a dtype that minidl does not have.
    """
    if not hasattr(source, "__dlpack__"):
        raise DTypeError("[from_dlpack] needs an object with __dlpack__", got=type(source).__name__)
    array = None
    if "bfloat16" in str(getattr(source, "dtype", "")):
        array = _import_bfloat16(source.__dlpack__())
    if array is None:
        try:
            array = np.from_dlpack(source)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise MinidlError(f"[from_dlpack] {error}") from None
    if array.dtype not in FROM_NUMPY:
        raise DTypeError("[from_dlpack] minidl has no such dtype", got=str(array.dtype))
    return Tensor(array)


def _numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The elements as a NumPy array that shares them (force: detach first)."""
    return self.array if force else _exportable(self, "the array")


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    array = _exportable(self, "the array")
    if dtype is not None and np.dtype(dtype) != array.dtype:
        if copy is False:
            raise ValueError(f"a {array.dtype} tensor is not {np.dtype(dtype)} without a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


Tensor.__dlpack__ = _dlpack  # type: ignore[attr-defined]
Tensor.__dlpack_device__ = _dlpack_device  # type: ignore[attr-defined]
Tensor.__array__ = _array  # type: ignore[attr-defined]
Tensor.numpy = _numpy  # type: ignore[attr-defined]

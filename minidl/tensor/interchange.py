"""Sharing elements with other libraries: NumPy's and CUDA's protocols, DLPack, `numpy()`.

DLPack goes through the array's own module. NumPy's cannot exchange bfloat16, so such
elements pass it as uint16 and only the type code in the capsule is changed (structures of dlpack.h,
version 0.8 and 1.0, 64 bit).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from minidl.backends import Device, host, moved, on_device
from minidl.dtypes import FROM_NUMPY, bfloat16
from minidl.errors import DeviceError, DTypeError, GradientError, MinidlError
from minidl.tensor.core import Tensor, as_device

_UINT, _BFLOAT = 1, 4
_CODE_AT = {b"dltensor": 20, b"dltensor_versioned": 52}  # where dtype.code is behind the pointer

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_name_of = ctypes.pythonapi.PyCapsule_GetName
_name_of.restype, _name_of.argtypes = ctypes.c_char_p, (ctypes.py_object,)


def _relabelled(capsule: Any, code: int) -> Any:
    """The capsule, whose 16-bit elements are of another type now; as it is if it was consumed."""
    name = _name_of(capsule)
    if name in _CODE_AT:
        ctypes.c_uint8.from_address(_pointer_of(capsule, name) + _CODE_AT[name]).value = code
    return capsule


class _AsUint16:
    """A bfloat16 array of another library, for NumPy."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.__dlpack_device__ = source.__dlpack_device__

    def __dlpack__(self, **options: Any) -> Any:
        return _relabelled(self.source.__dlpack__(**options), _UINT)


def _exportable(t: Tensor, what: str, error: type[Exception] = GradientError) -> np.ndarray:
    if t.requires_grad:
        raise error(
            f"{what} of a tensor that requires gradients would lose them; call .detach() first"
        )
    return t.array


def _on_cpu(t: Tensor, what: str) -> np.ndarray:
    if t.is_cuda:
        raise DeviceError(f"{what} of a tensor on {t.device} needs .cpu() first")
    return _exportable(t, what)


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
    if self.is_cuda:
        return array.__dlpack__(stream=stream, max_version=max_version)
    if stream is not None:
        raise BufferError("a CPU tensor has no stream")
    if any(step < 0 for step in array.strides):  # torch ends the process when it gets one
        raise BufferError("a tensor with negative strides cannot be exported; .clone() it first")
    options: dict[str, Any] = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
    if array.dtype == bfloat16.numpy:
        return _relabelled(array.view(np.uint16).__dlpack__(**options), _BFLOAT)
    return array.__dlpack__(**options)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """(1, 0): the memory of the CPU; (2, N): that of GPU N."""
    return (2, self.device.index or 0) if self.is_cuda else (1, 0)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the elements of another library's array, shared without a copy.

    ext_tensor: an object with `__dlpack__` (NumPy, torch, CuPy ...), on the CPU or a GPU; device:
    where the tensor shall be; copy: True for elements of its own. Raises DTypeError for a dtype
    that minidl does not have.
    """
    source, where = ext_tensor, None if device is None else as_device(device)
    if not hasattr(source, "__dlpack__"):
        raise DTypeError("[from_dlpack] needs an object with __dlpack__", got=type(source).__name__)
    where_it_is = getattr(source, "__dlpack_device__", None)
    if where_it_is is not None and where_it_is()[0] == 2:
        array = on_device(Device("cuda")).from_dlpack(source)
        if array.dtype not in FROM_NUMPY:
            raise DTypeError("[from_dlpack] minidl has no such dtype", got=str(array.dtype))
        array = array.copy() if copy else array
        return Tensor(array if where is None else moved(array, where))
    half = str(getattr(source, "dtype", "")).endswith("bfloat16")
    try:
        array = np.from_dlpack(_AsUint16(source) if half else source)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise MinidlError(f"[from_dlpack] {error}") from None
    if half:
        array = array.view(bfloat16.numpy)
    if array.dtype not in FROM_NUMPY:
        raise DTypeError("[from_dlpack] minidl has no such dtype", got=str(array.dtype))
    array = array.copy() if copy else array
    return Tensor(array if where is None else moved(array, where))


def _numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """The elements as a NumPy array that shares them (force: detach and copy to the CPU first)."""
    return host(self.array) if force else _on_cpu(self, "the array")


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    array = _on_cpu(self, "the array")
    if dtype is not None and np.dtype(dtype) != array.dtype:
        if copy is False:
            raise ValueError(f"a {array.dtype} tensor is not {np.dtype(dtype)} without a copy")
        return array.astype(dtype)
    return array.copy() if copy else array


def _cuda_array_interface(self: Tensor) -> dict[str, Any]:
    if not self.is_cuda:
        raise AttributeError("the tensor is on the CPU")  # so that hasattr() says no
    array: Any = _exportable(self, "exporting the elements")
    return array.__cuda_array_interface__


setattr(Tensor, "__cuda_array_interface__", property(_cuda_array_interface))  # noqa: B010
Tensor.__dlpack__ = _dlpack  # type: ignore[attr-defined]
Tensor.__dlpack_device__ = _dlpack_device  # type: ignore[attr-defined]
Tensor.__array__ = _array  # type: ignore[attr-defined]
Tensor.numpy = _numpy  # type: ignore[attr-defined]

"""Nested states as a flat dictionary of arrays and a description in JSON.

A description is a JSON value: null, booleans, integers, finite floats and strings stand for
themselves, a list for a list, and an object with one key for the rest:

| key | value | meaning |
|---|---|---|
| "tensor" | name, or [name, flags] | a tensor; flags: "p" a Parameter, "g" requires_grad |
| "array" | name | a NumPy array |
| "dict", "ordered" | [[key, value], ...] | a dict, an OrderedDict; keys are descriptions too |
| "tuple" | list | a tuple (named tuples and shapes become plain ones) |
| "float" | "nan", "inf", "-inf" | what JSON lacks |
| "bytes" | hexadecimal digits | bytes |
| "dtype", "device" | name | a dtype, a device |
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl.backends import Device
from minidl.dtypes import DType, dtype_of
from minidl.errors import ArgumentError, DTypeError, MinidlError
from minidl.ops.creation import from_numpy
from minidl.tensor import Parameter, Tensor, as_device

DEEPEST = 100
_KINDS = ("tensor", "array", "dict", "ordered", "tuple", "float", "bytes", "dtype", "device")


class Encoder:
    """Collects the arrays of a structure under names that say where they stand."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._stored: dict[Any, str] = {}

    def encode(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The description of `value`; ArgumentError names the place of what cannot be saved."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if len(path) > DEEPEST:
            raise ArgumentError(f"[save] more than {DEEPEST} levels deep at {_place(path)}")
        if isinstance(value, Tensor):
            flags = "p" * value.is_parameter + "g" * value.requires_grad
            name = self._store(value.detach().cpu().numpy(), path, value)
            return {"tensor": [name, flags] if flags else name}
        if isinstance(value, np.ndarray):
            return {"array": self._store(value, path, value)}
        if isinstance(value, np.generic):
            return self.encode(value.item(), path)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        if isinstance(value, int | str):  # subclasses, such as enumerations
            return int(value) if isinstance(value, int) else str(value)
        if isinstance(value, list):
            return [self.encode(item, (*path, str(i))) for i, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": [self.encode(x, (*path, str(i))) for i, x in enumerate(value)]}
        if isinstance(value, Mapping):
            pairs = [
                [self._key(key, path), self.encode(item, (*path, str(key)))]
                for key, item in value.items()
            ]
            return {"ordered" if isinstance(value, OrderedDict) else "dict": pairs}
        if isinstance(value, bytes | bytearray):
            return {"bytes": bytes(value).hex()}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, Device):
            return {"device": str(value)}
        raise DTypeError(
            f"[save] only tensors, arrays, numbers, strings, bytes, None, lists, tuples and "
            f"dictionaries can be saved; {_place(path)} is a {kind.__module__}.{kind.__qualname__}"
        )

    def _key(self, key: Any, path: tuple[str, ...]) -> Any:
        if key is None or isinstance(key, bool | int | float | str | bytes | tuple):
            return self.encode(key, path)
        raise DTypeError(
            f"[save] keys must be numbers, strings, bytes, None or tuples; "
            f"{_place(path)} has a {type(key).__name__}"
        )

    def _store(self, array: np.ndarray, path: tuple[str, ...], owner: Any) -> str:
        """Keep the array once, whatever the number of places that hold the same memory."""
        own = owner if isinstance(owner, np.ndarray) else owner.array  # on its device
        start = own.ctypes.data if isinstance(own, np.ndarray) else own.data.ptr
        key = (start, own.shape, own.strides, own.dtype) if own.size else id(owner)
        if key in self._stored:
            return self._stored[key]
        base = name = ".".join(path) or "tensor"
        number = 1
        while name in self.arrays or name == "__metadata__":
            number += 1
            name = f"{base}#{number}"
        self._stored[key] = name
        # in C order: the safetensors package writes other layouts wrongly
        self.arrays[name] = np.asarray(array, order="C")
        return name


def _place(path: tuple[str, ...]) -> str:
    return f"'{'.'.join(path)}'" if path else "the object"


class Decoder:
    """Builds a structure from its description; every tensor of a name shares its memory."""

    def __init__(self, arrays: Mapping[str, np.ndarray], device: Any) -> None:
        self._arrays = arrays
        self._target = as_device(device)
        self._tensors: dict[str, Tensor] = {}

    def decode(self, node: Any, depth: int = 0) -> Any:
        """The value that `node` describes; ArgumentError for what describes none."""
        if depth > 2 * DEEPEST + 2:
            raise ArgumentError("[load] the description is too deep")
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.decode(item, depth + 1) for item in node]
        if not isinstance(node, dict) or len(node) != 1:
            raise _damaged(node)
        ((kind, value),) = node.items()
        if kind not in _KINDS:
            raise _damaged(node)
        try:
            return getattr(self, f"_{kind}")(value, depth + 1)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, MinidlError):
                raise
            raise _damaged(node) from error

    def tensor(self, name: str) -> Tensor:
        """A tensor of its own over the memory of array `name`."""
        if name not in self._tensors:
            made = from_numpy(self._arrays[name])
            self._tensors[name] = made.to(self._target) if self._target is not None else made  # type: ignore[attr-defined]
        return self._tensors[name].detach()

    def _tensor(self, value: Any, depth: int) -> Any:
        name, flags = (value, "") if isinstance(value, str) else value
        tensor = self.tensor(name)
        if "p" in flags:
            return Parameter(tensor, requires_grad="g" in flags)
        return tensor.requires_grad_() if "g" in flags else tensor

    def _array(self, value: Any, depth: int) -> Any:
        return self._arrays[value]

    def _dict(self, value: Any, depth: int) -> Any:
        return {self.decode(key, depth): self.decode(item, depth) for key, item in value}

    def _ordered(self, value: Any, depth: int) -> Any:
        return OrderedDict((self.decode(key, depth), self.decode(x, depth)) for key, x in value)

    def _tuple(self, value: Any, depth: int) -> Any:
        return tuple(self.decode(item, depth) for item in list(value))

    def _float(self, value: Any, depth: int) -> Any:
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value]

    def _bytes(self, value: Any, depth: int) -> Any:
        return bytes.fromhex(value)

    def _dtype(self, value: Any, depth: int) -> Any:
        return dtype_of(value)

    def _device(self, value: Any, depth: int) -> Any:  # type: ignore[no-redef]
        if not isinstance(value, str):
            raise TypeError
        return as_device(value)


def _damaged(node: Any) -> ArgumentError:
    return ArgumentError(f"[load] the description is damaged at {str(node)[:60]!r}")

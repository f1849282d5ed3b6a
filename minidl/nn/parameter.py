"""Parameters and buffers whose shapes are still unknown, for lazy modules."""

from __future__ import annotations

from typing import Any

import minidl.ops as ops
from minidl.backends import kernels_for
from minidl.errors import ArgumentError
from minidl.tensor import Parameter as Parameter, Tensor

# Of a tensor without a shape the slot holds an empty array, for the dtype.
_array: Any = Tensor.__dict__["array"]


class UninitializedTensorMixin(Tensor, unset=True):
    """A tensor that knows its dtype but not its shape; any use of its values is refused.

    `materialize` turns it, the same object, into an ordinary tensor. Operators refuse it since
    they take tensors only of the type Tensor; what else reads the values meets `array`.
    """

    __slots__ = ()

    @property  # type: ignore[override]
    def array(self) -> Any:
        """Refused: there are no elements."""
        raise ArgumentError(
            "has no shape and no values yet; call its module once, or load a state, before",
            operator=type(self).__name__,
        )

    @array.setter
    def array(self, value: Any) -> None:
        _array.__set__(self, kernels_for(value).empty(0, value.dtype))

    @property
    def dtype(self) -> Any:  # type: ignore[override]
        """Type of the elements to come."""
        return Tensor(_array.__get__(self)).dtype

    @property
    def device(self) -> Any:  # type: ignore[override]
        """Where the elements are to be."""
        return Tensor(_array.__get__(self)).device

    @property
    def data(self) -> Any:  # type: ignore[override]
        """Itself: there is nothing to share."""
        return self

    @data.setter
    def data(self, value: Any) -> None:
        self.array = _array.__get__(value)

    def detach(self) -> Tensor:
        """Itself: there is no history."""
        return self

    def to(self, *, device: Any = None, dtype: Any = None) -> Tensor:
        """One of another dtype."""
        device = self.device if device is None else device
        return _unset(type(self), self.tracked, device, self.dtype if dtype is None else dtype)

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary tensor of this shape, with unset values."""
        device = self.device if device is None else device
        made = ops.empty(shape, device=device, dtype=self.dtype if dtype is None else dtype)
        self.__class__ = Tensor  # type: ignore[assignment]
        self.array, self.storage = made.array, made.storage

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = memo[id(self)] = _unset(type(self), self.tracked, self.device, self.dtype)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tracked, str(self.device), self.dtype)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _unset(kind: Any, requires_grad: bool, device: Any, dtype: Any) -> Any:
    tensor = object.__new__(kind)
    Tensor.__init__(tensor, ops.empty(0, dtype=dtype, device=device).array)
    tensor.is_parameter = kind is UninitializedParameter
    return tensor.requires_grad_(requires_grad)


class UninitializedParameter(UninitializedTensorMixin, unset=True):
    """A parameter whose shape the first input of its module will tell."""

    __slots__ = ()

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Any:
        """Make one without a shape."""
        return _unset(cls, requires_grad, device, dtype)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass  # __new__ has done it all


class UninitializedBuffer(UninitializedTensorMixin, unset=True):
    """A buffer whose shape the first input of its module will tell."""

    __slots__ = ()

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> Any:
        """Make one without a shape."""
        return _unset(cls, requires_grad, device, dtype)

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> None:
        pass  # __new__ has done it all


def is_lazy(param: Any) -> bool:
    """Whether this is a parameter or buffer without a shape."""
    return isinstance(param, UninitializedTensorMixin)


__all__ = ["Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]

"""Modules that learn the sizes of their parameters from their first input."""

from __future__ import annotations

from typing import Any

from minidl.errors import ArgumentError, ShapeError
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.nn.parameter import UninitializedParameter, is_lazy
from minidl.tensor import Tensor


class LazyModuleMixin(Module):
    """What makes a module lazy: `class LazyThing(LazyModuleMixin, Thing)`.

    Its parameters start as UninitializedParameter; `initialize_parameters`, which subclasses
    define, is given the arguments of the first call and materialises them. The module then
    becomes one of the class `cls_to_become`, if that is set. A state that is loaded before gives
    the parameters their shapes, too. An optimiser that was given the parameters keeps them.
    """

    cls_to_become: type[Module] | None = None

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialise the parameters for these arguments of forward; subclasses define it."""
        raise NotImplementedError(
            f"[{type(self).__name__}] a lazy module must define initialize_parameters"
        )

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer of this module itself has no shape yet."""
        own = self.__dict__
        return any(is_lazy(own[name]) for name in (*self._parameter_names, *self._buffer_names))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Initialise by the arguments, then run as what the module has become."""
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise ArgumentError(
                "initialize_parameters left parameters without a shape",
                operator=type(self).__name__,
            )
        if self.cls_to_become is None:
            return super().__call__(*args, **kwargs)
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        return self(*args, **kwargs)


class LazyLinear(LazyModuleMixin, Linear):
    """A Linear whose in_features is the size of the last axis of its first input."""

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, once they have a shape."""
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:  # type: ignore[override]
        """Take in_features from the last axis of `input`; ShapeError where a state says other."""
        size = input.shape[-1]
        weight: Any = self.weight
        if self.has_uninitialized_params():
            self.in_features = size
            if is_lazy(weight):
                weight.materialize((self.out_features, size))
            if is_lazy(self.bias):
                self.bias.materialize((self.out_features,))  # type: ignore[union-attr]
            self.reset_parameters()
        elif size != weight.shape[-1]:
            raise ShapeError(
                f"the last axis must have the size {weight.shape[-1]} of the state that was loaded",
                operator="LazyLinear",
                got=str(input.shape),
            )
        self.in_features = size

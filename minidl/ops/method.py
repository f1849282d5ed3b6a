"""`@method`: attach a function to Tensor where it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.autograd.op import in_place
from minidl.errors import DTypeError
from minidl.tensor import Tensor


def check_tensor(operator: str, argument: str, value: Any) -> None:
    """Refuse what is not a Tensor, for functions that look at one before an operator does."""
    if type(value) is not Tensor and not isinstance(value, Tensor):
        raise DTypeError(f"{argument} must be a Tensor; wrap it with minidl.tensor(...)",
                         operator=operator, got=type(value).__name__)  # fmt: skip


def method(*names: str) -> Callable[[Any], Any]:
    """Make the decorated function a method of Tensor under `names` (its own name if none)."""

    def attach(function: Any) -> Any:
        for name in names or (function.__name__,):
            setattr(Tensor, name, function)
        return function

    return attach


def in_place_methods(**functions: Any) -> None:
    """Attach the in-place method `name_` of every `name=function`."""
    for name, function in functions.items():
        setattr(Tensor, f"{name}_", in_place(f"{name}_", function))

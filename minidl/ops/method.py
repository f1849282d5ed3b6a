"""`@method`: attach a function to Tensor where it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.autograd.op import in_place
from minidl.tensor import Tensor


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

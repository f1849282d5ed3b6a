"""A module whose values are still to come."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from minidl.errors import ArgumentError
from minidl.nn.module import Module
from minidl.ops.random import default_generator

ModuleT = TypeVar("ModuleT", bound=Module)


def skip_init(module_cls: type[ModuleT], *args: Any, **kwargs: Any) -> ModuleT:
    """Make `module_cls(*args, **kwargs)` with unset values, drawing no random numbers for them.

    Raises ArgumentError (a RuntimeError) for a class that is no Module or takes no `device`.
    """
    if not issubclass(module_cls, Module):
        raise ArgumentError(
            "module_cls must be a Module", operator="skip_init", got=repr(module_cls)
        )
    if "device" not in inspect.signature(module_cls).parameters:
        raise ArgumentError(
            "the class must take a device", operator="skip_init", got=module_cls.__name__
        )
    state = default_generator.get_state()
    try:
        return module_cls(*args, **kwargs)
    finally:
        default_generator.set_state(state)

"""Hooks of all modules, for debugging and profiling, where PyTorch's programs look for them.

They run before a module's own hooks. While there is one, no module is called without looking for
hooks and no two modules are computed as one; after the last is removed, all is as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.autograd import RemovableHandle
from minidl.errors import UnsupportedError
from minidl.nn.hooks import GLOBAL, REGISTERED, ForwardHook
from minidl.nn.module import Module as Module

Hook = Callable[..., Any]


def register_module_forward_pre_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, args)` before every forward; its result replaces the arguments."""
    return GLOBAL.forward_pre.add(ForwardHook(hook))


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call `hook(module, args[, kwargs], output)` after every forward; a result is used instead."""
    return GLOBAL.forward.add(ForwardHook(hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, grad_output)` when the gradients of a module's outputs are there."""
    return GLOBAL.backward_pre.add(hook)


def register_module_full_backward_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, grad_input, grad_output)` when those of a module's inputs are there."""
    return GLOBAL.backward.add(hook)


def register_module_backward_hook(hook: Hook) -> RemovableHandle:
    """Refused: its gradients were those of the last operator, not of the module."""
    raise UnsupportedError(
        "deprecated by PyTorch and not supported; use register_module_full_backward_hook instead",
        operator="register_module_backward_hook",
    )


def register_module_parameter_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, parameter)` for what modules register; a result is used instead."""
    return REGISTERED["parameter"].add(hook)


def register_module_buffer_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, buffer)` for what modules register; a result is used instead."""
    return REGISTERED["buffer"].add(hook)


def register_module_module_registration_hook(hook: Hook) -> RemovableHandle:
    """Call `hook(module, name, submodule)` for what modules register; a result is used instead."""
    return REGISTERED["module"].add(hook)


__all__ = [
    "register_module_backward_hook",
    "register_module_buffer_registration_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
    "register_module_module_registration_hook",
    "register_module_parameter_registration_hook",
]

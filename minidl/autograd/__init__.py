"""Reverse-mode differentiation: recording (`op`), the backward pass (`engine`), modes."""

from minidl.autograd.engine import RemovableHandle, backward, grad
from minidl.autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    recorded_by,
    set_grad_enabled,
)
from minidl.autograd.node import Node
from minidl.autograd.op import op

__all__ = [
    "Node",
    "RemovableHandle",
    "backward",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "op",
    "recorded_by",
    "set_grad_enabled",
]

"""Reverse-mode differentiation: recording (`op`), the backward pass (`engine`), modes."""

from minidl.autograd.anomaly import detect_anomaly, set_detect_anomaly
from minidl.autograd.engine import backward, grad
from minidl.autograd.function import Function, once_differentiable
from minidl.autograd.hooks import RemovableHandle
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
    "Function",
    "Node",
    "RemovableHandle",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "once_differentiable",
    "op",
    "recorded_by",
    "set_detect_anomaly",
    "set_grad_enabled",
]

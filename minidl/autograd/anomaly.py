"""`detect_anomaly`: which operator's gradient went NaN first, and where it was called."""

from __future__ import annotations

import linecache
import os
import sys
from typing import Any

import numpy as np

from minidl.autograd.modes import Immediate, recorded_by
from minidl.autograd.node import Node
from minidl.backends import host, local
from minidl.errors import GradientError
from minidl.tensor import Tensor

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def _mark(node: Node) -> None:
    """Note the line outside of minidl that called the operator."""
    frame: Any = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith((_PACKAGE, "<minidl operator"))
    ):
        frame = frame.f_back
    if frame is None:
        node.where = "an unknown line"
        return
    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    node.where = f"{name}:{line} in {frame.f_code.co_name}: {text}"


class detect_anomaly(recorded_by):  # noqa: N801 - PyTorch's name
    """Record where every operator was called, and stop a backward pass at the first NaN.

    Use it around forward and backward. The GradientError names the operator whose gradient
    function returned the NaN and the line that called it (not that of operators that ran before
    the block). Slow: for debugging.
    """

    def __init__(self) -> None:
        super().__init__(_mark)


class set_detect_anomaly(Immediate):  # noqa: N801
    """Switch `detect_anomaly` on or off for this thread: at once, or for a block or function."""

    recording = None

    def _activate(self) -> None:
        if self.mode or local.state.recorder is _mark:
            local.state.recorder = _mark if self.mode else True
        super()._activate()


def detects_anomaly() -> bool:
    """Whether `detect_anomaly` is active in this thread."""
    recorder = local.state.recorder
    return recorder is _mark or _mark in getattr(recorder, "parts", ())


def check_gradients(node: Node, g: Any, results: tuple) -> None:
    """Raise if a gradient that `node` returned has a NaN.

    The engine calls it for nodes that were marked, and for all while `detect_anomaly` is active.
    """
    if any(_has_nan(part) for part in (g if type(g) is tuple else (g,))):
        return  # it came from further up, where the check was off
    for i, r in enumerate(results):
        if _has_nan(r):
            where = node.where or "a line before detect_anomaly; use it around the forward, too"
            raise GradientError(
                f"its gradient with respect to input {i} is NaN; it was called at {where}",
                operator=node.op.name,
            )


def _has_nan(x: Any) -> bool:
    return type(x) is Tensor and bool(np.isnan(host(x.array).astype(np.float64, copy=False)).any())

"""Exception types: every message names the operator, the rule and what was given instead."""

from __future__ import annotations

from typing import Any


class MinidlError(RuntimeError):
    """Base of all errors that minidl raises on purpose.

    `operator` and `got` are filled in by the operator that refused, `path` by the modules around
    it, so that the message reads `encoder.0.fc1: [linear] rule, got (8, 512), (3072, 768)`.
    """

    def __init__(self, rule: str, *, operator: str | None = None, got: str | None = None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.operator = operator
        self.got = got
        self.module: Any = None
        self.path = ""

    def __str__(self) -> str:
        text = self.rule
        if self.got:
            text = f"{text}, got {self.got}"
        if self.operator:
            text = f"[{self.operator}] {text}"
        return f"{self.path}: {text}" if self.path else text


class ShapeError(MinidlError, ValueError):
    """Shapes do not fit together, or a size is out of range."""


class DTypeError(MinidlError, TypeError):
    """A dtype or a type of argument that the operator does not take."""


class ArgumentError(MinidlError, ValueError):
    """An attribute (axis, probability, reduction ...) outside its domain."""


class OutOfRangeError(MinidlError, IndexError):
    """An index or axis outside the tensor."""


class DeviceError(MinidlError):
    """A device that this build does not have, or tensors on different devices."""


class GradientError(MinidlError):
    """Autograd was asked for something that it cannot give."""


class OutOfMemoryError(MinidlError, MemoryError):
    """An array that does not fit into memory."""


class UnsupportedError(MinidlError, NotImplementedError):
    """A part of PyTorch's interface that minidl leaves out; the message names the alternative."""

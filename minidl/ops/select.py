"""Choosing elements by a condition."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, Index, op
from minidl.tensor import Tensor


@op
def _where(k: Any, condition: Index, input: Array, other: Array) -> Any:
    return k.where(condition, input, other)


@_where.gradient
def _(g: Tensor, condition: Any, needs: Any) -> Any:
    return (
        _where(condition, g, 0.0) if needs[0] else None,
        _where(condition, 0.0, g) if needs[1] else None,
    )


def where(condition: Tensor, input: Any, other: Any) -> Tensor:
    """`input` where `condition` (bool) holds, `other` elsewhere; all three broadcast."""
    return _where(condition, input, other)

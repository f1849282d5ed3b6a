"""`repr` of a tensor, in PyTorch's layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import BOOL, FLOAT, bool_, get_default_dtype, int64
from minidl.tensor.core import Tensor

_options: dict[str, Any] = {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80}


def set_printoptions(
    precision: int | None = None,
    threshold: int | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
) -> None:
    """Digits after the point, elements before summarising, elements per edge, line width."""
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _options.update({name: value for name, value in given.items() if value is not None})


def _shown(array: np.ndarray) -> np.ndarray:
    """The elements that a summary prints: all of them, or those near the edges."""
    if array.size <= _options["threshold"]:
        return array
    n = _options["edgeitems"]
    for axis, size in enumerate(array.shape):
        if size > 2 * n:
            array = np.take(array, [*range(n), *range(size - n, size)], axis=axis)
    return array


def _formatter(array: np.ndarray, kind: int) -> Callable[[Any], str]:
    """One width and notation for all elements, as PyTorch chooses them."""
    if kind == BOOL:
        width = max((len(str(bool(v))) for v in array.flat), default=0)
        return lambda v: str(bool(v)).rjust(width)
    if kind != FLOAT:
        width = max((len(str(v)) for v in array.flat), default=0)
        return lambda v: str(int(v)).rjust(width)
    finite = np.abs(array[np.isfinite(array) & (array != 0)])
    digits = _options["precision"]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    whole = bool((finite == np.ceil(finite)).all())
    with np.errstate(all="ignore"):
        wide = finite.size and (high / low > 1000 or high > 1e8 or low < 1e-4)
    if wide and (not whole or high > 1e8):
        pattern = f"{{:.{digits}e}}"
    elif whole:
        pattern = "{:.0f}."
    else:
        pattern = f"{{:.{digits}f}}"

    def text(v: Any) -> str:
        v = float(v)
        return pattern.format(v) if np.isfinite(v) else str(v)

    width = max((len(text(v)) for v in array.flat if np.isfinite(v)), default=0)
    return lambda v: text(v).rjust(width)


def _elements(array: np.ndarray, kind: int, indent: int) -> str:
    if kind == FLOAT:
        array = array.astype(np.float64)
    form = _formatter(_shown(array), kind)
    if not array.ndim:
        return form(array[()]).strip()
    return np.array2string(
        array,
        max_line_width=_options["linewidth"],
        separator=", ",
        prefix=" " * indent,
        suffix="",
        threshold=_options["threshold"],
        edgeitems=_options["edgeitems"],
        formatter={"all": form},
    )


def _repr(self: Tensor) -> str:
    dtype = self.dtype
    start = "tensor("
    suffixes = []
    if not self.array.size:
        text = "[]"
        if self.ndim != 1:
            suffixes.append(f"size={self.shape}")
    else:
        text = _elements(self.array, dtype.kind, len(start))
    plain = dtype in (get_default_dtype(), int64, bool_)
    if not plain or (not self.array.size and dtype is not get_default_dtype()):
        suffixes.append(f"dtype={dtype!r}")
    if self.grad_fn is not None:
        suffixes.append(f"grad_fn={self.grad_fn!r}")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    text = start + ", ".join([text, *suffixes]) + ")"
    return "Parameter containing:\n" + text if self.is_parameter else text


Tensor.__repr__ = _repr  # type: ignore[method-assign]

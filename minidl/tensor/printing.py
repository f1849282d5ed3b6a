"""`repr` of a tensor, in PyTorch's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.backends import host
from minidl.dtypes import FLOAT, FLOAT_NUMPY, bool_, get_default_dtype, int64
from minidl.errors import ArgumentError
from minidl.tensor.core import Tensor

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": float("inf"), "edgeitems": 3, "linewidth": 80},
}
_options: dict[str, Any] = {**_PROFILES["default"], "sci_mode": None}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, elements before summarising, elements per edge, line width.

    profile: "default", "short" or "full" (never summarised) sets all of these first; sci_mode:
    scientific notation or not, None lets the values decide.
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ArgumentError(f"profile must be one of {', '.join(_PROFILES)}", got=repr(profile))
        _options.update(_PROFILES[profile])
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    _options.update({name: value for name, value in given.items() if value is not None})
    _options["sci_mode"] = sci_mode


def _edges(items: Any, summarised: bool) -> tuple[Any, Any]:
    """The items before and after the dots, or all of them and None."""
    n = _options["edgeitems"]
    if summarised and len(items) > 2 * n:
        return items[:n], items[len(items) - n :]
    return items, None


def _shown(array: np.ndarray) -> np.ndarray:
    """The elements that a summary prints."""
    for axis in range(array.ndim):
        first, last = _edges(np.moveaxis(array, axis, 0), True)
        if last is not None:
            array = np.moveaxis(np.concatenate([first, last]), 0, axis)
    return array


def _numbers(array: np.ndarray) -> Any:
    """Nested lists of Python numbers."""
    return (array.astype(np.float64) if array.dtype in FLOAT_NUMPY else array).tolist()


def _formatter(array: np.ndarray, kind: int) -> tuple[Callable[[Any], str], int]:
    """One notation and width for all elements, as PyTorch chooses them."""
    digits, sci = _options["precision"], _options["sci_mode"]
    if kind != FLOAT:
        pattern, values = "{}", array.ravel()
    else:
        array = array.astype(np.float64)
        values = array[np.isfinite(array) & (array != 0)]
        sizes = np.abs(values)
        low, high = (sizes.min(), sizes.max()) if values.size else (1.0, 1.0)
        if sci is None:
            sci = high > 1000 * low or high > 1e8 or low < 1e-4
        if sci and values.size:
            pattern = f"{{:.{digits}e}}"
        else:
            pattern = "{:.0f}." if (values == np.ceil(values)).all() else f"{{:.{digits}f}}"
    width = max((len(pattern.format(v)) for v in values.tolist()), default=1)

    def text(v: Any) -> str:
        return (pattern.format(v) if kind != FLOAT or np.isfinite(v) else str(v)).rjust(width)

    return text, width


def _elements(
    array: np.ndarray, text: Callable[[Any], str], width: int, indent: int, summarised: bool
) -> str:
    if not array.ndim:
        return text(_numbers(array))
    first, last = _edges(array, summarised)
    if array.ndim == 1:
        parts = [text(v) for v in _numbers(first)]
        if last is not None:
            parts += [" ...", *(text(v) for v in _numbers(last))]
        n = max(1, (_options["linewidth"] - indent) // (width + 2))
        parts = [", ".join(parts[i : i + n]) for i in range(0, len(parts), n)]
    else:
        parts = [_elements(row, text, width, indent + 1, summarised) for row in first]
        if last is not None:
            parts += ["...", *(_elements(row, text, width, indent + 1, summarised) for row in last)]
    gap = "\n" * max(1, array.ndim - 1)
    return "[" + ("," + gap + " " * (indent + 1)).join(parts) + "]"


def _with_suffixes(text: str, suffixes: Sequence[str], indent: int) -> str:
    """The text with what follows the elements, on a line of its own where it would not fit."""
    used = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > _options["linewidth"]:
            text, used = text + ",\n" + " " * indent + suffix, indent + len(suffix)
        else:
            text, used = text + ", " + suffix, used + len(suffix) + 2
    return text + ")"


def _repr(self: Tensor) -> str:
    array, dtype, start = host(self.array), self.dtype, "tensor("
    suffixes = []
    if not array.size:
        text = "[]"
        if self.ndim != 1:
            suffixes.append(f"size={self.shape}")
    else:
        summarised = array.size > _options["threshold"]
        form, width = _formatter(_shown(array) if summarised else array, dtype.kind)
        text = _elements(array, form, width, len(start), summarised)
    if self.is_cuda:
        suffixes.append(f"device='{self.device}'")
    plain = dtype in (get_default_dtype(), int64, bool_)
    if not plain or (not array.size and dtype is not get_default_dtype()):
        suffixes.append(f"dtype={dtype!r}")
    if self.grad_fn is not None:
        suffixes.append(f"grad_fn={self.grad_fn!r}")
    elif self.requires_grad:
        suffixes.append("requires_grad=True")
    text = _with_suffixes(start + text, suffixes, len(start))
    return "Parameter containing:\n" + text if self.is_parameter else text


Tensor.__repr__ = _repr  # type: ignore[method-assign]

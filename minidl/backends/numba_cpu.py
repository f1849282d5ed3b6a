"""The Numba layer of the CPU table: kernels that are compiled when they are first called.

`import minidl` does not import Numba (0.6 s). An entry is a stand-in until it is called: then the
kernels (numba_kernels/) are imported, and each is compiled for the dtype at hand or comes from
Numba's cache. What goes wrong with Numba itself, at import or while it compiles, becomes a reason
in the report, and the layer below serves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from minidl.backends.table import KERNEL_ENTRIES, Kernels, Layer

# entry -> the file of its kernels
_FILES = {
    "activation": "gelu gelu_backward silu silu_backward",
    "attention": "attention attention_backward",
    "embedding": "embedding_backward",
    "loss": "cross_entropy cross_entropy_backward",
    "matmul": "linear linear_backward",
    "norm": "layer_norm add_layer_norm layer_norm_backward rms_norm rms_norm_backward",
    "optim": "sgd_step adam_step grad_norm",
    "random": "philox_bits uniform bernoulli dropout",
    "softmax": "softmax softmax_backward log_softmax log_softmax_backward logsumexp",
}
ENTRIES = {entry: file for file, names in _FILES.items() for entry in names.split()}

_PLAIN = "numba: float16 and bfloat16 are widened to float32 by the caller"
_OPTIM = "numba: float16, bfloat16, mixed dtypes and strided arrays go to the layer below"
_OTHER = "numba: no kernel"
_WHY = {
    "matmul": "numba: np.matmul calls BLAS already",
    "grad_scale": "numba: one NumPy product is at the limit of memory already",
}
_OLDEST = (0, 62)  # the LLVM of earlier ones ends the process where it meets `llvm.maximum`
# what Numba cannot do now and here, by entry; "" is the import
_failed: dict[str, str] = {}


def _without_numba() -> str:
    """Why there is no Numba, or nothing."""
    try:
        found = find_spec("numba") is not None
    except (ImportError, ValueError):  # a broken or half-imported package
        found = False
    return "" if found else "not installed: pip install minidl[numba]"


class CannotCompile(Exception):
    """A kernel that Numba could not compile, which is known before it writes anything."""


def line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


class _Entry:
    """An entry that finds its kernels when it is first called, or stays with the layer below."""

    __slots__ = ("name", "below", "function")

    def __init__(self, name: str, below: Callable) -> None:
        self.name, self.below = name, below
        self.function: Callable | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.function is None:
            self.function = self.found()
        try:
            return self.function(*args, **kwargs)
        except CannotCompile as error:
            _failed[self.name] = str(error)
            self.function = self.below
        return self.below(*args, **kwargs)

    def found(self) -> Callable:
        """The function over the kernels, or the layer below where Numba cannot be imported."""
        if why_not():
            return self.below
        module = import_module(f"{__package__}.numba_kernels.{ENTRIES[self.name]}")
        over = getattr(module, "OVER", {}).get(self.name)
        return module.ENTRIES[self.name] if over is None else over(self.below)


def why_not() -> str:
    """Import Numba: what keeps it from working, or nothing."""
    if "" not in _failed:
        try:
            import numba

            old = numba.version_info.short < _OLDEST
            _failed[""] = f"version {numba.__version__} is older than 0.62" if old else ""
        except Exception as error:  # whatever a broken installation raises
            _failed[""] = line(error)
    return _failed[""]


def layer() -> Layer:
    """The entries over those of the layer below, or the reason why there are none."""
    if missing := _without_numba():
        return Layer("numba", missing=missing)
    return Layer("numba", over={name: partial(_Entry, name) for name in ENTRIES})


def explain(table: Kernels) -> dict[str, dict[str, Any]]:
    """Per entry: the layer that serves it and why a better one does not; imports Numba."""
    rows = {}
    for entry, layer in table.sources.items():
        reasons = list(table.reasons.get(entry, []))
        if layer == "numba":
            failed = why_not() or _failed.get(entry, "")
            layer = "reference" if failed else layer
            reasons.append(f"numba: {failed}" if failed else _reason(entry))
        elif table.name == "numba" and entry in KERNEL_ENTRIES:
            reasons.append(_WHY.get(entry, _OTHER))
        rows[entry] = {"layer": layer, "reasons": reasons}
    return rows


def _reason(entry: str) -> str:
    return _OPTIM if ENTRIES[entry] == "optim" else _PLAIN

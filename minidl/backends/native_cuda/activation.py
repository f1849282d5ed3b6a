"""Activations and their gradients; the bias and activation of `linear`, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import BUSY, KINDS, Family, pointer

_kernels = Family("activation")
_THREADS = 256
_VECTORS = 4  # of 16 bytes that a thread takes


def _blocks(size: int, itemsize: int) -> int:
    return -(-size * itemsize // (_THREADS * 16 * _VECTORS))


def _served(*arrays: Any) -> str | None:
    """The suffix of the kernels, if the arrays have one dtype that these take."""
    first = arrays[0]
    alike = all([x.dtype == first.dtype and x.shape == first.shape for x in arrays[1:]])
    return KINDS.get(first.dtype) if alike else None


def _run(kernel: str, x: Any, g: Any, a: float = 0.0, b: float = 0.0) -> Any:
    out = cp.empty(x.shape, x.dtype)
    x = cp.ascontiguousarray(x)
    g = None if g is None else cp.ascontiguousarray(g)
    places = pointer(x), pointer(g), pointer(out)
    _kernels.start(kernel, _blocks(out.size, x.itemsize), _THREADS, 0, *places, out.size, a, b)
    return out


def _forward(name: str) -> Callable[[Callable], Callable]:
    def over(below: Callable) -> Callable:
        def entry(x: Any) -> Any:
            kind = KINDS.get(x.dtype)
            return below(x) if kind is None else _run(f"{name}_{kind}", x, None)

        return entry

    return over


def _backward(name: str) -> Callable[[Callable], Callable]:
    def over(below: Callable) -> Callable:
        def entry(g: Any, x: Any) -> Any:
            kind = _served(g, x)
            return below(g, x) if kind is None else _run(f"{name}_{kind}", x, g)

        return entry

    return over


def _gelu(below: Callable) -> Callable:
    def entry(x: Any, approximate: str) -> Any:
        kind = KINDS.get(x.dtype)
        name = "gelu_tanh" if approximate == "tanh" else "gelu"
        return below(x, approximate) if kind is None else _run(f"{name}_{kind}", x, None)

    return entry


def _gelu_backward(below: Callable) -> Callable:
    def entry(g: Any, x: Any, approximate: str) -> Any:
        kind = _served(g, x)
        name = "gelu_tanh_backward" if approximate == "tanh" else "gelu_backward"
        return below(g, x, approximate) if kind is None else _run(f"{name}_{kind}", x, g)

    return entry


def _softplus(below: Callable) -> Callable:
    def entry(x: Any, beta: float, threshold: float) -> Any:
        kind = KINDS.get(x.dtype)
        if kind is None:
            return below(x, beta, threshold)
        return _run(f"softplus_{kind}", x, None, float(beta), float(threshold))

    return entry


# ---------------------------------------------------------------- with the bias of a linear map

_BY_INPUT = frozenset(("gelu", "gelu_tanh", "silu"))  # derivatives of the input, not of the result
_WIDE = frozenset(("float32", "float64"))


def _linear(below: Callable) -> Callable:
    def entry(
        x: Any, weight: Any, bias: Any = None, activation: str | None = None, keep: bool = True
    ) -> Any:
        kind = KINDS.get(x.dtype)
        plain = bias is None and activation is None
        if plain or kind not in _WIDE or (bias is not None and bias.shape != weight.shape[:1]):
            return below(x, weight, bias, activation, keep)
        product, _ = below(x, weight, None, None, False)
        kept = keep and activation in _BY_INPUT
        out = cp.empty(product.shape, product.dtype) if kept else product
        bias = None if bias is None else cp.ascontiguousarray(bias)
        kernel = "_".join(filter(None, ("bias", activation, kind)))
        width = product.shape[-1]
        places = pointer(product), pointer(bias), 0, pointer(out)
        rows = product.size // max(width, 1)
        _kernels.start(
            kernel, _blocks(product.size, product.itemsize), _THREADS, 0,
            *places, pointer(product) if kept and bias is not None else 0, rows, width, 0, 0,
        )  # fmt: skip
        return out, product if kept else None

    return entry


def _linear_backward(below: Callable) -> Callable:
    def entry(
        g: Any,
        x: Any,
        weight: Any,
        needs: tuple[bool, bool, bool] = (True, True, True),
        activation: str | None = None,
        kept: Any = None,
    ) -> Any:
        kind = KINDS.get(g.dtype)
        plain = activation is None and not needs[2]
        if plain or kind not in _WIDE or not g.size:
            return below(g, x, weight, needs, activation, kept)
        if needs[2]:
            slope, dbias = _bias_backward(g, kept if activation else None, activation, kind)
        else:
            slope, dbias = _run(f"{activation}_backward_{kind}", kept, g), None
        dx = dweight = None
        if needs[0] or needs[1]:
            dx, dweight, _ = below(slope, x, weight, (*needs[:2], False), None, None)
        return dx, dweight, dbias

    return entry


def _bias_backward(g: Any, kept: Any, activation: str | None, kind: str) -> tuple[Any, Any]:
    """g times the slope of the activation, and its sums over all axes but the last."""
    width = g.shape[-1]
    rows = g.size // width
    g = cp.ascontiguousarray(g)
    kept = None if kept is None else cp.ascontiguousarray(kept)
    out = None if activation is None else cp.empty(g.shape, g.dtype)
    vector = 16 // g.itemsize
    vectors = -(-width // vector)
    lanes = min(32, 1 << (vectors - 1).bit_length())
    tiles = -(-vectors // lanes)
    # as many parts as keep a GPU busy, of eight rows per thread at least
    parts = max(1, min(-(-BUSY // tiles), -(-rows * lanes // (8 * _THREADS))))
    length = -(-rows // parts)
    parts = -(-rows // length)
    dbias = cp.empty((width,), g.dtype)
    sums = dbias if parts == 1 else cp.empty((parts, width), g.dtype)
    kernel = "_".join(filter(None, ("bias", activation, "backward", kind)))
    places = pointer(kept), 0, pointer(g), pointer(out), pointer(sums)
    _kernels.start(kernel, tiles * parts, _THREADS, 0, *places, rows, width, length, lanes)
    if parts > 1:  # few columns per block, so that a thread has few parts to add
        lanes = min(lanes, 4)
        places = 0, 0, pointer(sums), 0, pointer(dbias)
        tiles = -(-vectors // lanes)
        kernel = f"bias_backward_{kind}"
        _kernels.start(kernel, tiles, _THREADS, 0, *places, parts, width, parts, lanes)
    return g if out is None else out, dbias


OVER: dict[str, Callable[[Callable], Callable]] = {
    **{name: _forward(name) for name in ("relu", "sigmoid", "silu", "log_sigmoid")},
    **{
        f"{name}_backward": _backward(f"{name}_backward")
        for name in ("relu", "sigmoid", "silu", "tanh")
    },
    "gelu": _gelu,
    "gelu_backward": _gelu_backward,
    "softplus": _softplus,
    "linear": _linear,
    "linear_backward": _linear_backward,
}
HALF = frozenset(OVER) - {"linear", "linear_backward"}

"""Kernel tables: one callable per entry and device, built once from layers, bottom up.

A table starts from the array module (NumPy, CuPy), whose functions serve the elementwise,
reduction and movement entries; `reference` specifies the others; faster layers override entry
by entry. Nothing is looked up at call time: an entry's guard (`when`) is composed in when the
table is built.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.errors import ArgumentError, DeviceError

# an entry, or entry:the array module's name for it where the two differ
_SERVED = (
    "sub:subtract mul:multiply div:true_divide pow:power neg:negative abs:absolute eq:equal "
    "ne:not_equal lt:less le:less_equal gt:greater ge:greater_equal asin:arcsin acos:arccos "
    "atan:arctan atan2:arctan2 asinh:arcsinh acosh:arccosh atanh:arctanh round:rint amax:max "
    "amin:min cat:concatenate "
    "add maximum minimum fmax fmin floor_divide remainder fmod sign floor ceil trunc square sqrt "
    "reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh tanh hypot copysign "
    "isnan isinf isfinite signbit logaddexp logaddexp2 "
    "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
    "bitwise_not left_shift right_shift "
    "sum prod cumsum cumprod any all argmax argmin sort argsort argpartition count_nonzero "
    "where clip copyto stack flip roll pad tril triu take take_along_axis repeat tile nonzero "
    "einsum outer empty zeros ones full arange asarray array broadcast_to ascontiguousarray "
    "moveaxis put_along_axis unique bincount searchsorted histogram from_dlpack"
)
ARRAY_ENTRIES = {n.partition(":")[0]: n.rpartition(":")[2] for n in _SERVED.split()}
_SPECIFIED = (
    "matmul linear linear_backward attention attention_backward softmax softmax_backward "
    "log_softmax log_softmax_backward logsumexp layer_norm layer_norm_backward "
    "add_layer_norm rms_norm rms_norm_backward relu relu_backward erf erfc erfinv sigmoid "
    "sigmoid_backward tanh_backward log_sigmoid softplus gelu gelu_backward silu "
    "silu_backward cross_entropy cross_entropy_backward cross_entropy_in_place "
    "binary_cross_entropy_with_logits binary_cross_entropy_with_logits_backward "
    "embedding_backward scatter_add scatter_reduce "
    "index_add index_put cummax cummin windows sgd_step adam_step grad_norm grad_scale "
    "philox_bits uniform normal bernoulli randint permutation multinomial dropout "
    "rsqrt pow_scalar cast copy lgamma digamma zeta gammainc gammaincc log_gamma_quantile_backward "
    "log_standard_gamma poisson binomial cholesky solve_triangular solve inv slogdet eigh "
    "host refuse"
)
KERNEL_ENTRIES = tuple(_SPECIFIED.split())


@dataclass
class Layer:
    """Entries of one implementation; `missing` says why it is not there, if it is not.

    `over` makes an entry from the one of the layer below, which it hands on to what it cannot
    take; `when` guards an entry that takes everything it is given.
    """

    name: str
    entries: Mapping[str, Callable] = field(default_factory=dict)
    over: Mapping[str, Callable[[Callable], Callable]] = field(default_factory=dict)
    when: Mapping[str, Callable[..., bool]] = field(default_factory=dict)
    half: frozenset[str] = frozenset()
    missing: str | None = None


class Kernels:
    """The kernel table of one device: `k.matmul(x, y)`.

    `half` names the entries that take float16 / bfloat16 arrays as they are; for all others the
    operator widens to float32 and rounds the result once. `sources` says which layer serves an
    entry, `reasons` why the layers above it do not.
    """

    __slots__ = (
        "device",
        "name",
        "ndarray",
        "half",
        "sources",
        "reasons",
        *ARRAY_ENTRIES,
        *KERNEL_ENTRIES,
    )

    if TYPE_CHECKING:

        def __getattr__(self, entry: str) -> Callable[..., Any]: ...

    def __init__(self, device: str, module: Any, layers: Sequence[Layer]) -> None:
        self.device = device
        self.name = [layer.name for layer in layers if layer.missing is None][-1]
        self.ndarray = module.ndarray
        ARRAY_TYPES.add(module.ndarray)
        self.half = frozenset().union(*(layer.half for layer in layers))
        self.sources: dict[str, str] = {}
        self.reasons: dict[str, list[str]] = {}
        for entry, name in ARRAY_ENTRIES.items():
            if hasattr(module, name):
                self._set(entry, getattr(module, name), module.__name__)
        for layer in layers:
            for entry, function in layer.entries.items():
                guard = layer.when.get(entry)
                if guard is not None:
                    function = _guarded(function, guard, getattr(self, entry))
                self._set(entry, function, layer.name)
            for entry, make in layer.over.items():
                self._set(entry, make(getattr(self, entry)), layer.name)
            if layer.missing is not None:
                for entry in KERNEL_ENTRIES:
                    reason = f"{layer.name}: {layer.missing}"
                    self.reasons.setdefault(entry, []).append(reason)
        entries = (*ARRAY_ENTRIES, *KERNEL_ENTRIES)
        lacking = [entry for entry in entries if entry not in self.sources]
        if lacking:
            raise ArgumentError(f"no layer of the {device} table serves {', '.join(lacking)}")

    def _set(self, entry: str, function: Callable, layer: str) -> None:
        setattr(self, entry, function)
        self.sources[entry] = layer


def _guarded(function: Callable, when: Callable[..., bool], below: Callable) -> Callable:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return (function if when(*args, **kwargs) else below)(*args, **kwargs)

    return guarded


# name -> table ("default": the best of each entry; "start": the one that threads begin with), and
# what prepares the context in which a thread runs kernels; filled by minidl.backends
TABLES: dict[str, Kernels] = {}
# the array classes of the tables that were built, which are all that a tensor's `array` can be
ARRAY_TYPES: set[type] = {np.ndarray}
PREPARE: list[Callable[[], None]] = []


def table_named(name: str) -> Kernels:
    """The table of that name; a one-line error lists the ones there are."""
    if name not in TABLES:
        names = ", ".join(n for n in TABLES if n not in ("default", "start"))
        raise ArgumentError(f"backend must be one of {names}", got=repr(name))
    return TABLES[name]


class ThreadState:
    """What is active in one thread.

    `cpu` is the active kernel table of the CPU, `cuda` that of the GPU, or None before the first
    array there. `enter` calls a function with NumPy's floating point warnings
    off, in a context of its own (inf and nan are results here, as in PyTorch; the caller's own
    NumPy settings are left alone); it raises RuntimeError inside of itself, as from a signal
    handler or a `__del__` that interrupts a kernel. `recording` and `recorder` belong to
    `autograd.modes`: the first is False or the second, which is True or a function that is shown
    every node. `writes` is None or a function that is shown the storage of every in-place write
    before it happens.
    """

    __slots__ = ("cpu", "cuda", "enter", "recording", "recorder", "inference", "writes")

    def __init__(self) -> None:
        self.cpu: Any = TABLES["start"]
        self.cuda: Any = None
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        for prepare in PREPARE:
            context.run(prepare)
        self.enter = context.run
        self.recording: Any = True
        self.recorder: Any = True
        self.inference = False
        self.writes: Any = None

    def run(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """`enter`, or the plain call where the context is entered already."""
        try:
            return self.enter(function, *args, **kwargs)
        except RuntimeError as error:
            if not entered(error):
                raise
        return function(*args, **kwargs)


def entered(error: BaseException) -> bool:
    """Whether `error` says that a thread's context was entered from inside of itself."""
    return type(error) is RuntimeError and str(error).startswith("cannot enter context")


class Local(threading.local):
    """`local.state`: one look-up (50 ns) per operator, whatever it needs of the state."""

    def __init__(self) -> None:
        self.state = ThreadState()


class Device:
    """Where a tensor lives: `minidl.device("cpu")`, `minidl.device("cuda:1")`."""

    __slots__ = ("type", "index")

    def __init__(self, type: Any, index: int | None = None) -> None:
        if isinstance(type, Device):
            type, index = type.type, type.index if index is None else index
        elif isinstance(type, int) and not isinstance(type, bool):
            type, index = "cuda", type
        name, _, number = str(type).partition(":")
        if name not in ("cpu", "cuda") or not (number or "0").isdecimal():
            raise DeviceError("a device is 'cpu', 'cuda' or 'cuda:N'", got=repr(type))
        self.type = name
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Device) or self.type != other.type:
            return False
        return self.type == "cpu" or self.index == other.index

    def __hash__(self) -> int:
        return hash(self.type)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type='{self.type}'{'' if self.index is None else f', index={self.index}'})"


CPU = Device("cpu")

"""The gradients of a whole model against differences: `minidl gradcheck`.

The model is any object with the methods of `minidl.nn.Module`, whose layer is above this one.
"""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.autograd import backward, detect_anomaly, no_grad
from minidl.backends import local
from minidl.dtypes import FLOAT, float64
from minidl.errors import ArgumentError, GradientError
from minidl.ops.random import manual_seed
from minidl.tensor import Tensor

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
STEPS = (1e-6, 1e-7, 1e-5)  # the next is tried where one fails: it may cross a kink
ATOL, RTOL = 1e-7, 1e-4
DIRECTIONS, ELEMENTS = 3, 6

OK, WRONG, ZERO = "ok", "WRONG", "zero gradient"
UNUSED, FROZEN, NOT_FINITE = "no gradient: unused", "no gradient: frozen", "NaN or inf"
BAD = (WRONG, UNUSED, NOT_FINITE)  # what a parameter that wants a gradient must not be


@dataclass
class Verdict:
    """What was found of one parameter or input.

    checked: elements, beside DIRECTIONS random directions; absolute and relative: the largest
    difference between derivative and difference quotient; where: at which place of a wrong one.
    """

    name: str
    shape: tuple[int, ...]
    verdict: str
    checked: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    where: str = ""


@dataclass
class ModelReport:
    """The verdicts, the loss, and where the first NaN or infinity came from, if there was one."""

    loss: float
    training: bool
    verdicts: list[Verdict] = field(default_factory=list)
    origin: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every parameter that wants a gradient gets the right one."""
        return not self.origin and all(v.verdict not in BAD for v in self.verdicts)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors_in(item)]
    return []


def _converted(value: Any) -> Any:
    """A copy with floating point tensors in float64, as leaves that ask for what they did."""
    if isinstance(value, Tensor):
        if value.dtype.kind != FLOAT:
            return value
        return value.detach().clone().to(float64).requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: _converted(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_converted(item) for item in value)
    return value


class _Problem:
    """A model in float64 whose loss can be evaluated again and again."""

    def __init__(self, model: Any, inputs: Any, loss: Callable[..., Any] | None, seed: int) -> None:
        self.model = copy.deepcopy(model).double()
        self.inputs, self.loss, self.seed = _converted(inputs), loss, seed
        self.buffers = [(b, b.array.copy()) for b in self.model.buffers()]

    def value(self) -> Tensor:
        """The loss; random operators draw the same numbers and buffers start the same each time."""
        for buffer, before in self.buffers:
            buffer.array[...] = before
        manual_seed(self.seed)
        if isinstance(self.inputs, dict):
            output = self.model(**self.inputs)
        elif isinstance(self.inputs, tuple | list):
            output = self.model(*self.inputs)
        else:
            output = self.model(self.inputs)
        value = self.loss(output) if self.loss is not None else _weighted(output)
        if not isinstance(value, Tensor) or value.array.size != 1:
            got = value.shape if isinstance(value, Tensor) else type(value).__name__
            raise ArgumentError("the loss must be a tensor of one element", got=str(got))
        return value.sum()

    def number(self) -> float:
        """The loss without a graph."""
        with no_grad():
            return float(self.value().array)

    def leaves(self) -> list[tuple[str, Tensor]]:
        """Parameters by name, and inputs that ask for a gradient."""
        inputs = [t for t in tensors_in(self.inputs) if t.requires_grad]
        return [
            *self.model.named_parameters(),
            *((f"(input {i})", tensor) for i, tensor in enumerate(inputs)),
        ]


def _weighted(output: Any) -> Tensor:
    """The floating point outputs times fixed random numbers, summed."""
    found = [y for y in tensors_in(output) if y.dtype.kind == FLOAT]
    if not found:
        raise ArgumentError(
            "the model's output holds no floating point tensor; return a loss function as well",
            got=type(output).__name__,
        )
    rng = np.random.default_rng(0)
    parts = [(y * Tensor(np.asarray(rng.standard_normal(y.shape)))).sum() for y in found]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def check_model(
    model: Any,
    inputs: Any,
    loss: Callable[[Any], Tensor] | None = None,
    *,
    full: bool = False,
    training: bool | None = None,
    seed: int = 0,
) -> ModelReport:
    """Compare the gradient of every parameter of a float64 copy of `model` with differences.

    inputs: a Tensor, or a tuple or dict of arguments; those that require gradients are checked as
    well. loss: of the output, a scalar (default: the outputs weighted by random numbers). full:
    every element, not some and random directions. training: the mode (default: the model's own).
    seed: of random operators, the same for every evaluation.
    """
    problem = _Problem(model, inputs, loss, seed)
    if training is not None:
        problem.model.train(training)
    report = ModelReport(math.nan, problem.model.training)
    with _watched(problem.model) as origin:
        value = problem.value()
    report.loss = float(value.array)
    if not math.isfinite(report.loss):
        report.origin = f"first NaN or inf, forward: {origin[0] if origin else 'the loss'}"
        report.verdicts = [Verdict(n, p.shape, NOT_FINITE) for n, p in problem.leaves()]
        return report
    if value.dtype is not float64:
        report.notes.append(
            f"the loss is {value.dtype.name}: something in the model casts, and differences in"
            f" {value.dtype.name} are too coarse to judge small gradients"
        )
    leaves = problem.leaves()
    for _, leaf in leaves:
        leaf.grad = None
    if value.requires_grad:
        backward(value)
    grads = [None if p.grad is None else np.asarray(p.grad.array, np.float64) for _, p in leaves]
    if any(g is not None and not np.isfinite(g).all() for g in grads):
        report.origin = f"first NaN or inf, backward: {_backward_origin(problem)}"
    rng = np.random.default_rng(seed)
    for (name, leaf), grad in zip(leaves, grads, strict=True):
        report.verdicts.append(_verdict(problem, name, leaf, grad, full, rng, report.loss))
    return report


def _verdict(
    problem: _Problem,
    name: str,
    leaf: Tensor,
    grad: np.ndarray | None,
    full: bool,
    rng: np.random.Generator,
    loss: float,
) -> Verdict:
    if not leaf.requires_grad:
        return Verdict(name, leaf.shape, FROZEN)
    if grad is not None and not np.isfinite(grad).all():
        count = int(np.count_nonzero(~np.isfinite(grad)))
        return Verdict(name, leaf.shape, NOT_FINITE, where=f"{count} of {grad.size} elements")
    analytic = np.zeros(leaf.shape) if grad is None else grad
    found = Verdict(name, leaf.shape, OK if analytic.any() else ZERO)
    seen = False
    for where, direction in _directions(analytic, full, rng):
        found.checked += where.startswith("element")
        value = float(np.sum(analytic * direction))
        quotient = _quotient(problem, leaf, direction, value, loss)
        seen = seen or quotient != 0
        error = abs(quotient - value)
        found.absolute = max(found.absolute, error)
        size = max(abs(quotient), abs(value))
        if size > 1e-4:  # below, the quotient itself has few digits
            found.relative = max(found.relative, error / size)
        if not error <= _allowed(quotient, loss) and found.verdict != WRONG:
            found.verdict = WRONG
            found.where = f"{where}: derivative {value:.6g}, difference {quotient:.6g}"
    if grad is None:
        if found.verdict == WRONG:
            found.where += "; it gets no gradient, but the loss depends on it"
        else:
            found.verdict = UNUSED
    return found


def _allowed(quotient: float, loss: float) -> float:
    # the loss is rounded at 1e-16 of itself, the step divides by 1e-6
    return ATOL + 1e-8 * abs(loss) + RTOL * abs(quotient)


def _directions(
    grad: np.ndarray, full: bool, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    if not grad.size:
        return
    for i in range(DIRECTIONS):
        direction = rng.standard_normal(grad.shape)
        yield f"random direction {i}", direction / max(float(np.linalg.norm(direction)), 1e-30)
    if full or grad.size <= 2 * ELEMENTS:
        places = np.arange(grad.size)
    else:
        largest = np.argsort(-np.abs(grad), axis=None)[:ELEMENTS]
        places = np.unique(np.concatenate([largest, rng.integers(0, grad.size, ELEMENTS)]))
    for place in places:
        unit = np.zeros(grad.shape)
        unit.flat[place] = 1
        index = tuple(int(i) for i in np.unravel_index(int(place), grad.shape))
        yield f"element {index}", unit


def _quotient(
    problem: _Problem, leaf: Tensor, direction: np.ndarray, value: float, loss: float
) -> float:
    """The central difference, of the first step that agrees with `value`, else of the first."""
    before, first = leaf.array.copy(), math.nan
    try:
        for step in STEPS:
            ends = []
            for sign in (1, -1):
                leaf.array[...] = before + sign * step * direction
                ends.append(problem.number())
            quotient = (ends[0] - ends[1]) / (2 * step)
            if abs(quotient - value) <= _allowed(quotient, loss):
                return quotient
            first = quotient if math.isnan(first) else first
        return first
    finally:
        leaf.array[...] = before


# ---------------------------------------------------------------- where NaN and infinities begin


@contextmanager
def _watched(model: Any) -> Iterator[list[str]]:
    """Collect, in the order in which they end, the modules that made NaN or inf out of numbers.

    Each with the kernel that did, and the line that called it.
    """
    origins: list[str] = []
    kernels: list[str] = []

    def hook(name: str) -> Callable[..., None]:
        def after(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if _finite((args, kwargs)) and not _finite(output):
                path = f"module {name}" if name else "the model itself"
                kernel = f": {kernels[0]}" if kernels else ""
                origins.append(f"{path} ({type(module).__name__}){kernel}")

        return after

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    state = local.state
    table = state.cpu
    state.cpu = _Watching(table, kernels)
    try:
        yield origins
    finally:
        state.cpu = table
        for handle in handles:
            handle.remove()
        if not origins and kernels:
            origins.append(kernels[0])


class _Watching:
    """A kernel table that notes the entries which make NaN, or infinities, out of numbers."""

    def __init__(self, table: Any, found: list[str]) -> None:
        self._table, self._found = table, found

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._table, name)
        if not callable(function) or name in ("ndarray", "empty"):
            return function

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            arrays = [a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)]
            results = result if isinstance(result, tuple | list) else [result]
            made = [r for r in results if isinstance(r, np.ndarray)]
            if any(map(_nan, made)) and not any(map(_nan, arrays)):
                self._found.insert(0 if not self._has_nan() else len(self._found),
                                   f"{name} gave NaN, called at {_line()}")  # fmt: skip
            elif arrays and any(map(_inf, made)) and not any(map(_inf, arrays)):
                self._found.append(f"{name} gave infinity, called at {_line()}")
            return result

        return call

    def _has_nan(self) -> bool:
        return any("gave NaN" in text for text in self._found)


def _nan(array: np.ndarray) -> bool:
    return array.dtype.kind not in "biuO" and bool(np.isnan(array.astype(np.float64)).any())


def _inf(array: np.ndarray) -> bool:
    return array.dtype.kind not in "biuO" and bool(np.isinf(array.astype(np.float64)).any())


def _finite(value: Any) -> bool:
    return not any(_nan(t.array) or _inf(t.array) for t in tensors_in(value))


def _line() -> str:
    """The innermost line outside of minidl."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith((_PACKAGE, "<")):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "an unknown line"


def _backward_origin(problem: _Problem) -> str:
    """What `detect_anomaly` says of the first NaN; infinities are left to the verdicts."""
    try:
        with detect_anomaly():
            backward(problem.value())
    except GradientError as error:
        return str(error)
    return "an infinity; see the parameters below"

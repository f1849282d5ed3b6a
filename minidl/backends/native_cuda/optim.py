"""Optimiser steps, the norm of gradients and their scaling: many parameters in a launch.

What may change from step to step (learning rate, momentum, bias corrections) comes in doubles:
with the arguments, or in a graph from the words that every replay brings (see
`cupy_gpu.capture`). Arrays of other layouts than a kernel takes are copied, and copied back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl.backends.cupy_gpu.capture import recording, refreshing
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import KINDS, Family, pointer

_kernels = Family("optim")
_THREADS = 256
_STEPPED = 64  # parameters in a launch
_GRADS = 160  # gradients in a launch
_SQUARED = 4096  # elements whose squares a block adds up
_FLOAT, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def _wide(dtype: np.dtype) -> np.dtype:
    return _DOUBLE if dtype == _DOUBLE else _FLOAT


class _Copies:
    """Working copies, which live until their kernel is started."""

    def __init__(self) -> None:
        self._made: list[tuple[Any, Any, bool]] = []

    def of(self, array: Any, dtype: np.dtype, written: bool) -> Any:
        """`array` itself or a C-contiguous copy of this dtype."""
        if array is None or (array.dtype == dtype and array.flags.c_contiguous):
            return array
        copy = cp.array(array, dtype, order="C")
        self._made.append((array, copy, written))
        return copy

    def put_back(self) -> None:
        """Write what the kernel wrote into the arrays that were copied."""
        for array, copy, written in self._made:
            if written:
                array[...] = copy


# ---------------------------------------------------------------- steps


class _One(NamedTuple):
    """A parameter of a step; what has the same `key` may be stepped in one launch."""

    key: tuple
    arrays: tuple[Any, ...]  # param, grad, up to three states
    numbers: list[float]


def _sgd_step(below: Callable) -> Callable:
    def entry(
        params: Sequence[Any],
        grads: Sequence[Any],
        momenta: Sequence[Any],
        first: Sequence[bool],
        *,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
    ) -> None:
        numbers = [lr, momentum, 1 - dampening, weight_decay]
        flags = [momentum != 0, False, nesterov, maximize, weight_decay != 0, False, False]
        steps = []
        for param, grad, buffer, new in zip(params, grads, momenta, first, strict=True):
            buffer, new = (buffer, bool(new)) if momentum else (None, False)
            steps.append(_One((new,), (param, grad, buffer, None, None), numbers))
        _step("sgd", steps, lambda key: [flags[0], key[0], *flags[2:]])

    return entry


def _adam_step(below: Callable) -> Callable:
    def entry(
        params: Sequence[Any],
        grads: Sequence[Any],
        exp_avgs: Sequence[Any],
        exp_avg_sqs: Sequence[Any],
        max_exp_avg_sqs: Sequence[Any],
        steps: Sequence[int],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        amsgrad: bool,
        maximize: bool,
        decoupled: bool,
    ) -> None:
        numbers = {}
        for count in set(steps):
            size, root = lr / (1 - beta1**count), math.sqrt(1 - beta2**count)
            shrink = 1 - lr * weight_decay
            numbers[count] = [size, root, shrink, beta1, beta2, eps, weight_decay]
        flags = [False, False, False, maximize, weight_decay != 0, decoupled, amsgrad]
        peaks = max_exp_avg_sqs if amsgrad else [None] * len(params)
        states = zip(params, grads, exp_avgs, exp_avg_sqs, peaks, strict=True)
        ones = [
            _One((count,), arrays, numbers[count])
            for arrays, count in zip(states, steps, strict=True)
        ]
        _step("adam", ones, lambda key: flags)

    return entry


def _step(name: str, steps: list[_One], flags_of: Callable[[tuple], list[bool]]) -> None:
    graph = recording()
    for part in _launches(steps):
        *key, param_dtype, state_dtype = part[0].key
        numbers = part[0].numbers
        live = 0 if graph is None else graph.slots(numbers)
        if refreshing():
            continue  # the kernel is in the graph already
        if graph is not None:
            pointer(graph.words)
        copies, places, blocks = _Copies(), [], [0]
        for one in part:
            arrays = [
                copies.of(array, param_dtype if i < 2 else state_dtype, i != 1)
                for i, array in enumerate(one.arrays)
            ]
            places.append([pointer(array) for array in arrays])
            each = _THREADS * 16 // param_dtype.itemsize
            blocks.append(blocks[-1] - (-arrays[0].size // each))
        none = _STEPPED - len(part)
        given = [float(number) for number in numbers] + [0.0] * (8 - len(numbers))
        fields = [live, *given]
        for column in zip(*places, strict=True):
            fields += [*column, *([0] * none)]
        fields += [one.arrays[0].size for one in part] + [0] * none
        fields += blocks + [0] * none
        kernel = f"{name}_{KINDS[param_dtype]}_{KINDS[state_dtype]}"
        flags = map(int, flags_of(tuple(key)))
        _kernels.start(kernel, blocks[-1], _THREADS, 0, *fields, len(part), *flags)
        copies.put_back()


def _launches(steps: list[_One]) -> Iterator[list[_One]]:
    """What one launch steps; a parameter that is given twice steps twice, one after the other."""
    parts: dict[tuple, list[_One]] = {}
    seen: set[int] = set()
    for one in steps:
        if id(one.arrays[0]) in seen:
            yield from parts.values()
            parts, seen = {}, set()
        seen.add(id(one.arrays[0]))
        one = one._replace(key=(*one.key, *_dtypes(one.arrays)))
        part = parts.setdefault(one.key, [])
        part.append(one)
        if len(part) == _STEPPED:
            yield parts.pop(one.key)
    yield from parts.values()


def _dtypes(arrays: tuple[Any, ...]) -> tuple[np.dtype, np.dtype]:
    """Of parameter and gradient, and of the states: what a kernel takes, or the working dtype."""
    param, grad, *states = arrays
    wide = _wide(param.dtype)
    kinds = {state.dtype for state in states if state is not None}
    if wide == _DOUBLE or param.dtype == _FLOAT or grad.dtype != param.dtype:
        return wide, wide
    return param.dtype, param.dtype if kinds == {param.dtype} else wide


# ---------------------------------------------------------------- norm and scaling


def _start(kernel: str, part: list[Any], each: int, out: Any, live: Any, factor: float) -> None:
    """Start a kernel on up to _GRADS gradients, of which a block takes `each` elements."""
    blocks, none = [0], _GRADS - len(part)
    for grad in part:
        blocks.append(blocks[-1] - (-grad.size // each))
    _kernels.start(
        kernel, blocks[-1], _THREADS, 0, out, pointer(live), float(factor),
        *[pointer(grad) for grad in part], *([0] * none),
        *[grad.size for grad in part], *([0] * none), *blocks, *([0] * none), len(part),
    )  # fmt: skip


def _by_dtype(grads: Sequence[Any]) -> Iterator[list[Any]]:
    """Gradients of one dtype, in their order, as many as a launch takes, none of them twice."""
    parts: dict[np.dtype, list[Any]] = {}
    for grad in grads:
        part = parts.setdefault(grad.dtype, [])
        if len(part) == _GRADS or any(grad is other for other in part):
            yield parts.pop(grad.dtype)
            part = parts[grad.dtype] = []
        part.append(grad)
    yield from parts.values()


def _grad_norm(below: Callable) -> Callable:
    def entry(grads: Sequence[Any], norm_type: float) -> Any:
        taken = all([g.dtype in KINDS and g.dtype != _DOUBLE for g in grads])
        if norm_type != 2 or not grads or not taken:
            return below(grads, norm_type)
        grads = [cp.ascontiguousarray(g) for g in grads if g.size]
        count = sum(-(-g.size // _SQUARED) for g in grads)
        sums, out, done = cp.empty((count,), np.float64), cp.empty((), np.float64), 0
        for part in _by_dtype(grads):
            kernel = f"squares_{KINDS[part[0].dtype]}"
            _start(kernel, part, _SQUARED, pointer(sums) + 8 * done, None, 0.0)
            done += sum(-(-g.size // _SQUARED) for g in part)
        threads = 1024 if count > 1024 else 128
        _kernels.start("root_of_sum", 1, threads, 0, pointer(sums), pointer(out), count)
        return out

    return entry


def _grad_scale(below: Callable) -> Callable:
    def entry(grads: Sequence[Any], factor: Any) -> None:
        if not all([g.dtype in KINDS for g in grads]):
            below(grads, factor)
            return
        live, number = None, 0.0
        if isinstance(factor, cp.ndarray):
            live = factor.astype(np.float64, copy=False)
        else:
            number = float(factor)
        for part in _by_dtype(grads):
            dtype, copies = part[0].dtype, _Copies()
            arrays = [copies.of(g, dtype, True) for g in part]
            each = _THREADS * 16 // dtype.itemsize
            _start(f"scale_{KINDS[dtype]}", arrays, each, 0, live, number)
            copies.put_back()

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "sgd_step": _sgd_step,
    "adam_step": _adam_step,
    "grad_norm": _grad_norm,
    "grad_scale": _grad_scale,
}
HALF: frozenset[str] = frozenset()

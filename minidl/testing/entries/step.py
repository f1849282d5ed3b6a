"""Rows of optimiser steps: entries that write into what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import HALVES, DType, float32
from minidl.testing.case import Sample, sample
from minidl.testing.entries.draws import array, shape
from minidl.testing.entry import Entry, entry
from minidl.testing.targets import host


def _own(d: Any, shape: Any, dtype: DType, low: float = -3, extreme: bool = False) -> np.ndarray:
    """An array that can be written: no element in two places."""
    x = np.asarray(d.rng.uniform(low, 3, shape)).astype(dtype.numpy)
    if extreme and x.size and d.integer(0, 2) == 2:
        x.reshape(-1)[d.rng.integers(x.size)] = d.choice([np.inf, -np.inf, np.nan])
    return d.layout(x, broadcast=False)


def _tensors(d: Any) -> list[tuple[int, ...]]:
    return [shape(d) for _ in range(d.integer(1, 3))]


def _sgd(d: Any, dtype: DType) -> Sample:
    shapes = _tensors(d)
    momentum, nesterov = d.choice([0.0, 0.9]), d.boolean()
    nesterov = nesterov and momentum > 0
    first = [d.boolean() for _ in shapes]
    return Sample(
        (
            [_own(d, s, dtype, extreme=True) for s in shapes],
            [array(d, s, dtype) for s in shapes],
            [_own(d, s, dtype) if momentum else None for s in shapes],
            first,
        ),
        {
            "lr": 0.1,
            "momentum": momentum,
            "dampening": 0.0 if nesterov else d.choice([0.0, 0.5]),
            "weight_decay": d.choice([0.0, 0.1]),
            "nesterov": nesterov,
            "maximize": d.boolean(),
        },
    )


def _adam(d: Any, dtype: DType) -> Sample:
    shapes = _tensors(d)
    working = float32 if dtype in HALVES else dtype
    amsgrad = d.boolean()
    beta1, beta2 = d.choice([(0.9, 0.999), (0.4, 0.9), (0.0, 0.5)])
    return Sample(
        (
            [_own(d, s, dtype, extreme=True) for s in shapes],
            [array(d, s, dtype) for s in shapes],
            [_own(d, s, working) for s in shapes],
            [_own(d, s, working, 0.1) for s in shapes],
            [_own(d, s, working, 0.1) if amsgrad else None for s in shapes],
            [d.integer(1, 9) for _ in shapes],
        ),
        {
            "lr": 0.01,
            "beta1": beta1,
            "beta2": beta2,
            "eps": 1e-3,
            "weight_decay": d.choice([0.0, 0.1]),
            "amsgrad": amsgrad,
            "maximize": d.boolean(),
            "decoupled": d.boolean(),
        },
    )


def _norm(d: Any, dtype: DType) -> Sample:
    return sample([array(d, s, dtype) for s in _tensors(d)], d.choice([2.0, 1.0, 3.0, np.inf]))


def _scale(d: Any, dtype: DType) -> Sample:
    return sample([_own(d, s, dtype) for s in _tensors(d)], d.choice([0.3, 2.0, 0.0]))


def _sgd_floor(
    wants: list[Any], params: Any, grads: Any, averages: Any, *_: Any, **options: Any
) -> Any:
    """4 ULP of the update plus 1 of the parameter; of an average, of the terms that make it."""
    moved = [4 * np.abs(want - p) + np.abs(p) for want, p in zip(wants, params, strict=False)]
    return [*moved, *[2 * size for size in _terms(params, grads, averages, options)]][: len(wants)]


def _terms(params: Any, grads: Any, averages: Any, options: dict[str, Any]) -> list[Any]:
    """The size of what an average is made of: with weight decay the gradient may cancel."""
    decay = 0.0 if options.get("decoupled") else options["weight_decay"]
    return [
        (decay * np.abs(p) if decay else 0.0) + np.abs(g) + np.abs(0.0 if m is None else m)
        for p, g, m in zip(params, grads, averages, strict=True)
    ]


def _adam_floor(
    wants: list[Any],
    params: Any,
    grads: Any,
    averages: Any,
    squares: Any,
    peaks: Any,
    steps: Any,
    **options: Any,
) -> Any:
    """4 ULP of the terms that make the averages, through the update into the parameter."""
    count = len(params)
    sizes = _terms(params, grads, averages, options)
    second = [4 * (1 - options["beta2"]) * size**2 for size in sizes]
    last = wants[3 * count :] or wants[2 * count :]
    moved = []
    for i, (p, step) in enumerate(zip(params, steps, strict=True)):
        rate = options["lr"] / (1 - options["beta1"] ** step)
        root = np.sqrt(last[i] / (1 - options["beta2"] ** step)) + options["eps"]
        moved.append(4 * rate * sizes[i] / root + 4 * np.abs(wants[i] - p) + np.abs(p))
    return [*moved, *[4 * size for size in sizes], *second, *second][: len(wants)]


def _read(norm: Callable[..., Any]) -> Callable[..., float]:
    """On a GPU it is a 0-d array, so that nothing waits for it."""

    def read(*args: Any) -> float:
        value = norm(*args)
        return value if type(value) is float else float(host(value))

    return read


ROWS: tuple[Entry, ...] = (
    entry("sgd_step", _sgd, half="always", writes=(0, 2), floor=_sgd_floor),
    entry("adam_step", _adam, half="always", writes=(0, 2, 3, 4), floor=_adam_floor),
    # accumulated in float64 whatever the dtype: the result is a Python float
    entry("grad_norm", _norm, half="always", through=_read),
    entry("grad_scale", _scale, half="always", writes=(0,)),
)

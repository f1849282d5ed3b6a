"""Optimiser steps over all parameters, and clipping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import minidl
from benchmarks.harness import Row

rng = np.random.default_rng(0)
SHAPES = [(1024, 1024)] * 7 + [(1024,)] * 14  # 7.4 million in 21 tensors


def _parameters(library: Any) -> list[Any]:
    made = []
    for shape in SHAPES:
        p, g = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        parameter = library.tensor(p).requires_grad_()
        parameter.grad = library.tensor(g)
        made.append(parameter)
    return made


def rows() -> Iterator[Row]:
    """AdamW and SGD against torch's fused and foreach steps; the norm of gradients."""
    size = 4.0 * sum(float(np.prod(shape)) for shape in SHAPES)
    for name, bar in (("fused", 0.95), ("foreach", 5.0)):
        fused, foreach = name == "fused", name == "foreach"
        mine = minidl.optim.AdamW(_parameters(minidl))
        rival = torch.optim.AdamW(_parameters(torch), fused=fused, foreach=foreach)
        yield Row(
            f"AdamW, torch {name}",
            mine.step,
            {"torch": rival.step},
            bytes=7 * size,
            moved="adam",
            bar=bar,
        )
        sgd = minidl.optim.SGD(_parameters(minidl), lr=0.01, momentum=0.9)
        other = torch.optim.SGD(
            _parameters(torch), lr=0.01, momentum=0.9, fused=fused, foreach=foreach
        )
        yield Row(
            f"SGD, torch {name}",
            sgd.step,
            {"torch": other.step},
            bytes=5 * size,
            moved="momentum",
        )
    x, y = _parameters(minidl), _parameters(torch)
    yield Row(
        "clip_grad_norm_",
        lambda: minidl.nn.utils.clip_grad_norm_(x, 1e9),
        {"torch": lambda: torch.nn.utils.clip_grad_norm_(y, 1e9)},
        bytes=size,
        written=0.0,
    )

"""Whole training steps, eager against eager, from the same weights on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import minidl
from benchmarks.harness import Row
from benchmarks.models import Job, build, jobs, train


def _agree(name: str, steps: dict[str, Callable[[], float]]) -> None:
    """Stop unless the losses of all are equal over 20 steps."""
    for _ in range(20):
        losses = {library: step() for library, step in steps.items()}
        if max(losses.values()) - min(losses.values()) > 1e-4:
            raise SystemExit(f"{name}: the losses differ: {losses}")


def _numpy_step(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Callable:
    """The small MLP by hand: what a step costs in NumPy calls alone."""
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    p = [weights[name].copy() for name in names]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in p]
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        h = 1 / (1 + np.exp(-(x @ p[0].T + p[1])))
        z = h @ p[2].T + p[3]
        loss = np.mean(np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z))))
        dz = (1 / (1 + np.exp(-z)) - y) / np.float32(len(y))
        dh = dz @ p[2] * h * (1 - h)
        for w, (m, v), g in zip(
            p, moments, (dh.T @ x, dh.sum(0), dz.T @ h, dz.sum(0)), strict=True
        ):
            m += (g - m) * np.float32(0.1)
            v += (g * g - v) * np.float32(0.001)
            size = np.float32(1e-3 / (1 - 0.9**count))
            w -= size * m / (np.sqrt(v / np.float32(1 - 0.999**count)) + np.float32(1e-8))
        return float(loss)

    return step


# Bytes that a step moves per byte of weights: read forward and backward, gradients written, and the
# optimiser's 4 reads and 3 writes. What lies between layers may stay in caches.
MOVED, WRITTEN = 10, 4


def _row(job: Job, compiled: bool, jax: Any) -> Row:
    torch.manual_seed(0)
    net = job.model(torch)
    weights = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    steps = {"minidl": build(job, minidl, weights), "torch": train(job, torch, net, net)}
    if compiled:
        other = job.model(torch)
        other.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
        steps["torch.compile"] = train(job, torch, other, torch.compile(other))
    if job.name.startswith("MLP 64-64-1"):
        steps["numpy"] = _numpy_step(weights, *job.data(np.random.default_rng(0)))
    inputs = job.data(np.random.default_rng(0))
    case = ("train", *job.jax, 0.01 if job.optimizer == "AdamW" else 0.0, weights, *inputs)
    if jax and jax.prepare(*case):
        steps["jax"] = jax
    _agree(job.name, steps)
    return Row(
        job.name,
        steps.pop("minidl"),
        steps,
        job.operations,
        MOVED * 4.0 * sum(w.size for w in weights.values()),
        written=WRITTEN / MOVED,
        bars={"torch": job.bar, "torch.compile": 1.0},
        share_bar=job.share_bar,
        jax=case,
    )


def rows(only: str = "", compiled: bool = False, jax: Any = None) -> Iterator[Row]:
    """The models of the bars; `compiled` adds torch.compile as a rival, which is slow to begin.

    jax: remote.Remote, which takes the same weights; its losses are compared like the others'.
    """
    for job in jobs():
        if only in job.name:
            yield _row(job, compiled, jax)

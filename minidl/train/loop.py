"""The pieces that all recipes share: a run, a step, epochs, prediction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl import nn
from minidl.autograd import no_grad
from minidl.data import DataLoader, TensorDataset
from minidl.errors import MinidlError
from minidl.optim import Optimizer
from minidl.tensor import Tensor
from minidl.train.folder import RunFolder
from minidl.train.progress import Progress, Stop


@dataclass(frozen=True)
class Line:
    """One line of the final table: a result and what it is compared with.

    `holds` says whether the comparison went as it has to, None if there is nothing to hold.
    """

    measure: str
    value: float
    against: str
    other: float
    holds: bool | None


@dataclass
class Outcome:
    """What a recipe reached: figures for `metrics.json`, lines and text for the reader."""

    metrics: dict[str, Any]
    lines: list[Line]
    text: str = ""
    recipe: str = ""
    folder: Path = field(default_factory=Path)
    seconds: float = 0.0
    interrupted: bool = False
    judged: bool = False

    @property
    def missed(self) -> bool:
        """True if the recipe ran as it is meant to and a comparison does not hold."""
        return self.judged and any(line.holds is False for line in self.lines)


@dataclass(frozen=True)
class Run:
    """One recipe under way: its settings, its folder, and whether it was asked to stop."""

    recipe: str
    settings: Any
    folder: RunFolder
    stop: Stop


def diverged(what: str) -> MinidlError:
    """The error of a training whose numbers left the finite ones."""
    return MinidlError(f"training diverged: {what}; try a lower learning rate")


def step(loss: Tensor, optimizer: Optimizer, scheduler: Any = None, clip: float = 0.0) -> float:
    """Do one update from `loss` and return its value; `clip` bounds the gradients' joint norm.

    Raises MinidlError if the loss is infinite or NaN.
    """
    value = loss.item()
    if not math.isfinite(value):
        rate = optimizer.param_groups[0]["lr"]
        raise diverged(f"the loss is {value} at a learning rate of {rate:.3g}")
    optimizer.zero_grad()
    loss.backward()
    if clip:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(params, clip)
    optimizer.step()
    if scheduler is not None:
        scheduler.step()
    return value


def fit(
    run: Run,
    progress: Progress,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: np.ndarray,
    y: np.ndarray,
    optimizer: Optimizer,
    scheduler: Any = None,
    after_epoch: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Train for `run.settings.epochs` epochs, or until the run is asked to stop.

    x: (N, F), y: (N, ...). After every epoch one row goes to the metrics: "train_loss" and what
    `after_epoch` returns, which the model serves in eval mode.
    """
    data = TensorDataset(ops.tensor(x), ops.tensor(y))
    loader = DataLoader(data, batch_size=run.settings.batch_size, shuffle=True)
    for epoch in range(1, run.settings.epochs + 1):
        model.train()
        total, count = 0.0, 0
        for batch, target in loader:
            if run.stop:
                break
            value = step(loss(model(batch), target), optimizer, scheduler)
            total, count = total + value * len(batch), count + len(batch)
            progress.advance(epoch=epoch, loss=value)
        if count:
            model.eval()
            run.folder.log(x=epoch, train_loss=total / count, **after_epoch())
        if run.stop:
            return


def predict(model: nn.Module, x: np.ndarray, batch_size: int = 1024) -> np.ndarray:
    """Return the outputs for `x`: (N, F) in eval mode, as an array (N, ...).

    Raises MinidlError if one of them is infinite or NaN: the last update may have done it.
    """
    model.eval()
    with no_grad():
        parts = [
            model(ops.tensor(x[i : i + batch_size])).numpy() for i in range(0, len(x), batch_size)
        ]
    outputs = np.concatenate(parts)
    if not np.isfinite(outputs).all():
        raise diverged("the model's outputs are not finite")
    return outputs


def mean_and_deviation(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (of the sample, None for one value) and the values."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": deviation, "values": values}

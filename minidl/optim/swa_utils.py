"""Averages of a model's weights over its training, and the schedule that goes with them.

Sources: Izmailov et al., arXiv:1803.05407 (SWA); Polyak and Juditsky 1992 (averages).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.dtypes import int64
from minidl.errors import ArgumentError
from minidl.nn.module import Module
from minidl.optim.lr_scheduler.scheduler import LRScheduler, one_per_group
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ArgumentError("decay must lie in [0, 1]", operator="get_ema_avg_fn", got=repr(decay))


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[..., None]:
    """A function for `multi_avg_fn`: average <- decay * average + (1 - decay) * parameter."""
    _check_decay(decay)

    @no_grad
    def ema_update(averages: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
        for average, param in zip(averages, current, strict=True):
            _move(average, param, 1 - decay)

    return ema_update


def get_swa_multi_avg_fn() -> Callable[..., None]:
    """A function for `multi_avg_fn`: the mean of all parameters so far, each with equal weight."""

    @no_grad
    def swa_update(averages: list[Tensor], current: list[Tensor], num_averaged: Any) -> None:
        for average, param in zip(averages, current, strict=True):
            _move(average, param, 1 / (int(num_averaged) + 1))

    return swa_update


def _move(average: Tensor, param: Tensor, share: float) -> None:
    """Move the average by a share of the way, in place; integers are rounded towards zero."""
    if average.is_floating_point():
        average.lerp_(param, share)
    else:
        average.copy_(average * (1 - share) + param * share)


def get_ema_avg_fn(decay: float = 0.999) -> Callable[..., Tensor]:
    """A function for `avg_fn`: decay * average + (1 - decay) * parameter."""
    _check_decay(decay)

    @no_grad
    def ema_update(average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return decay * average + (1 - decay) * current

    return ema_update


def get_swa_avg_fn() -> Callable[..., Tensor]:
    """A function for `avg_fn`: the mean of all parameters so far, each with equal weight."""

    @no_grad
    def swa_update(average: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
        return average + (current - average) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model (`module`) that holds averages of its parameters.

    `update_parameters(model)` after a step takes the model's parameters in: the first are copied,
    then `avg_fn(average, parameter, n_averaged)` says the new average, or `multi_avg_fn` writes
    those of lists of tensors; by default the plain mean. Buffers are averaged too with
    `use_buffers`, else copied. The count `n_averaged` is saved with the state.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[..., Tensor] | None = None,
        multi_avg_fn: Callable[..., None] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError(
                "avg_fn and multi_avg_fn exclude each other", operator="AveragedModel"
            )
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", ops.tensor(0, dtype=int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the copy with the averages."""
        return self.module(*args, **kwargs)

    def _tensors(self, model: Module) -> list[Tensor]:
        buffers = model.buffers() if self.use_buffers else ()
        return [tensor.detach() for tensor in itertools.chain(model.parameters(), buffers)]

    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of `model` into the averages.

        Raises ArgumentError (a ValueError) for a model of other parameters; then nothing changes.
        """
        averages, current = self._tensors(self.module), self._tensors(model)
        shapes, wanted = ([tuple(t.shape) for t in part] for part in (current, averages))
        if shapes != wanted:
            raise ArgumentError(
                f"the model must have parameters of the shapes {wanted}",
                operator="AveragedModel",
                got=str(shapes),
            )
        with no_grad():
            if int(self.n_averaged) == 0:
                for average, param in zip(averages, current, strict=True):
                    average.copy_(param)
            elif self.avg_fn is None:
                update = self.multi_avg_fn or get_swa_multi_avg_fn()
                update(averages, current, self.n_averaged)
            else:
                for average, param in zip(averages, current, strict=True):
                    average.copy_(self.avg_fn(average, param, self.n_averaged))
            if not self.use_buffers:
                pairs = zip(self.module.buffers(), model.buffers(), strict=True)
                for kept, buffer in pairs:
                    kept.detach().copy_(buffer.detach())
            self.n_averaged += 1


@no_grad
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of batch normalisation anew from a pass over `loader`.

    Averages of weights have other activations than any of the models. A batch is the model's
    input, or a list or tuple that begins with it. Does nothing for a model without statistics.
    """
    momenta = {}
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None and hasattr(module, "momentum"):
            module.reset_running_stats()  # type: ignore[attr-defined]
            momenta[module] = module.momentum  # type: ignore[attr-defined]
    if not momenta:
        return
    was_training = model.training
    model.train()
    try:
        for module in momenta:
            module.momentum = None  # the plain mean of all batches
        for batch in loader:
            x = batch[0] if isinstance(batch, list | tuple) else batch
            model(x if device is None else x.to(device))
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        model.train(was_training)


class SWALR(LRScheduler):
    """The rates go to `swa_lr` within `anneal_epochs` steps, then stay there.

    swa_lr: one for all or one per group; anneal_strategy: "cos" or "linear".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        self._check_optimizer(optimizer)
        rates = one_per_group("SWALR", "swa_lr", swa_lr, optimizer)
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(
                "anneal_strategy is 'cos' or 'linear'", operator="SWALR", got=repr(anneal_strategy)
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(
                "anneal_epochs must be an integer and not negative",
                operator="SWALR",
                got=repr(anneal_epochs),
            )
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        t = max(0, min(1, step / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group in self.optimizer.param_groups:
            target = group["swa_lr"]
            start = target if before == 1 else (group["lr"] - before * target) / (1 - before)
            rates.append(target * now + start * (1 - now))
        return rates

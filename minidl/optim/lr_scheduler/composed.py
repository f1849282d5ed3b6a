"""Schedules made of schedules: one after the other, and all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from minidl.errors import ArgumentError
from minidl.optim.lr_scheduler.plateau import ReduceLROnPlateau
from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer


def _check_parts(name: str, optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
    for scheduler in schedulers:
        if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
            rule = "all schedules must belong to the given optimiser"
        elif isinstance(scheduler, ReduceLROnPlateau):
            rule = "ReduceLROnPlateau wants a metric and cannot be a part; step it by itself"
        else:
            continue
        raise ArgumentError(rule, operator=name, got=type(scheduler).__name__)


def _rewind(scheduler: LRScheduler) -> None:
    """Take back the step 0 that each schedule has set on being made."""
    for part in scheduler.__dict__.get("_schedulers", ()):
        _rewind(part)
    if "_schedulers" not in scheduler.__dict__:
        scheduler.last_epoch -= 1


class _Composed(LRScheduler):
    """Keeps the states of its parts in its own."""

    _parts = "_schedulers"
    _schedulers: list[LRScheduler]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser, the schedules as their states."""
        state = super().state_dict()
        state["_schedulers"] = [scheduler.state_dict() for scheduler in self._schedulers]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        rest = self._checked(state_dict)
        pairs = list(zip(self._schedulers, rest.pop("_schedulers"), strict=True))
        for scheduler, saved in pairs:  # all, before the first of them is changed
            scheduler._checked(saved)
        for scheduler, saved in pairs:
            scheduler.load_state_dict(saved)
        self.__dict__.update(rest)


class SequentialLR(_Composed):
    """Several schedules in turn; `milestones` are the steps at which the next one begins."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                "there must be one milestone fewer than schedules",
                operator="SequentialLR",
                got=f"{len(schedulers)} schedules, {len(milestones)} milestones",
            )
        _check_parts("SequentialLR", optimizer, schedulers)
        if list(milestones) != sorted(milestones):
            raise ArgumentError(
                "milestones must increase", operator="SequentialLR", got=str(list(milestones))
            )
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Each schedule has set its own step 0 on being made; only the first one's may count.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        _rewind(self)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next step; jumping to an `epoch` is not possible."""
        if epoch is not None:
            raise ArgumentError("epoch must be None", operator="SequentialLR", got=str(epoch))
        self.last_epoch += 1
        place = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[place]
        if place > 0 and self._milestones[place - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


class ChainedScheduler(_Composed):
    """Several schedules at once: each changes the rate that the one before has set."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        if not schedulers:
            raise ArgumentError("there must be a schedule", operator="ChainedScheduler")
        optimizer = optimizer or schedulers[0].optimizer
        _check_parts("ChainedScheduler", optimizer, schedulers)
        self._schedulers = list(schedulers)
        self.optimizer = optimizer
        self._last_lr = self._group_lrs()

    def _initial_step(self) -> None:
        for scheduler in self._schedulers:
            scheduler._initial_step()
        self._last_lr = self._group_lrs()

    def step(self) -> None:  # type: ignore[override]
        """Let every schedule take its step, in order."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._group_lrs()

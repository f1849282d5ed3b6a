"""LRScheduler: a rate per step, written into the optimiser's groups."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from minidl.errors import ArgumentError, DTypeError
from minidl.optim.optimizer import Optimizer


class LRScheduler:
    """Base of all schedules: `get_lr` says the rates of the groups at step `last_epoch`.

    Making a schedule sets the rates of step 0; `step()` after each `optimizer.step()` sets the
    next ones. `last_epoch` other than -1 resumes, and needs "initial_lr" in every group.
    """

    # The list attribute, if there is one, whose entries the state holds one by one.
    _parts = ""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._check_optimizer(optimizer)
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"[{type(self).__name__}] to resume at last_epoch={last_epoch}, load the "
                    f"optimiser's state first: group {number} has no 'initial_lr'"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _check_optimizer(self, optimizer: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise DTypeError(
                "a schedule needs an Optimizer",
                operator=type(self).__name__,
                got=type(optimizer).__name__,
            )

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """Compute the rates of the groups at `last_epoch`; every subclass defines it."""
        raise NotImplementedError(f"[{type(self).__name__}] a schedule must define get_lr")

    def get_last_lr(self) -> list[float]:
        """Return the rates set last, one per group."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next step, or to step `epoch`."""
        if self._step_count == 1 and self._optimizer_idle():
            warnings.warn(
                f"[{type(self).__name__}] step() ran before optimizer.step(), so the first rate "
                "of the schedule is skipped; call optimizer.step() first",
                stacklevel=2,
            )
        self._step_count += 1
        self._update_lr(epoch)

    def _optimizer_idle(self) -> bool:
        # An optimiser with a step of its own does not count its steps.
        counts = type(self.optimizer).step is Optimizer.step
        return counts and self.optimizer._steps_taken == 0

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed_form = getattr(self, "_get_closed_form_lr", None)
        rates = closed_form() if epoch is not None and closed_form else self.get_lr()
        if len(rates) != len(self.optimizer.param_groups):
            raise ArgumentError(
                f"there are {len(self.optimizer.param_groups)} groups; make the schedule after "
                "add_param_group",
                operator=type(self).__name__,
                got=f"{len(rates)} rates",
            )
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; DTypeError for anything else."""
        self.__dict__.update(self._checked(state_dict))

    def _checked(self, state_dict: Any) -> dict[str, Any]:
        """A copy of `state_dict`, if a schedule like this one may have returned it."""
        parts = self._parts
        count = len(getattr(self, parts)) if parts else 0
        fits = isinstance(state_dict, Mapping) and (parts or "last_epoch") in state_dict
        if not fits or (parts and len(state_dict.get(parts, ())) != count):
            raise DTypeError(
                "state_dict must be what the state_dict() of such a schedule returned"
                + (f", with {count} {parts}" if parts else ""),
                operator=type(self).__name__,
                got=", ".join(map(str, state_dict)) if fits else type(state_dict).__name__,
            )
        return dict(state_dict)

    def _group_lrs(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def one_per_group(name: str, argument: str, value: Any, optimizer: Optimizer) -> list[float]:
    """A number for every group, from one for all or a list of as many; else ArgumentError."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(
            f"{argument} must be one number or one per group ({count})",
            operator=name,
            got=str(len(value)),
        )
    return list(value)

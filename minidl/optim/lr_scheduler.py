"""Learning rate schedules: a rate per step, written into the optimiser's groups."""

from __future__ import annotations

import math
import types
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from minidl.errors import ArgumentError, DTypeError
from minidl.optim.optimizer import Optimizer

_WITHOUT_STATE = (types.FunctionType, types.BuiltinFunctionType)


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
        fits = isinstance(state_dict, Mapping) and "last_epoch" in state_dict
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


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(step)`; one function, or one per group."""

    _parts = "lr_lambdas"

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self._check_optimizer(optimizer)
        groups = len(optimizer.param_groups)
        if not isinstance(lr_lambda, list | tuple):
            self.lr_lambdas: list[Any] = [lr_lambda] * groups
        elif len(lr_lambda) != groups:
            raise ArgumentError(
                f"lr_lambda must have one function per group ({groups})",
                operator="LambdaLR",
                got=str(len(lr_lambda)),
            )
        else:
            self.lr_lambdas = list(lr_lambda)
        for factor in self.lr_lambdas:
            if not callable(factor):
                raise DTypeError(
                    "lr_lambda must be a function of the step, or one per group",
                    operator="LambdaLR",
                    got=type(factor).__name__,
                )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates of the groups at `last_epoch`."""
        return [
            base * factor(self.last_epoch)
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser; functions become None, callables their dict."""
        state = super().state_dict()
        state["lr_lambdas"] = [
            None if isinstance(factor, _WITHOUT_STATE) else dict(factor.__dict__)
            for factor in self.lr_lambdas
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; functions stay as they are."""
        rest = self._checked(state_dict)
        for factor, saved in zip(self.lr_lambdas, rest.pop("lr_lambdas"), strict=True):
            if saved is not None:
                factor.__dict__.update(saved)
        self.__dict__.update(rest)


class StepLR(LRScheduler):
    """The rate times `gamma` after every `step_size` steps."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        # 1.0 is how PyTorch's own tutorial says it
        if not isinstance(step_size, int | float) or step_size <= 0 or step_size % 1:
            raise ArgumentError(
                "step_size must be a positive integer", operator="StepLR", got=repr(step_size)
            )
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self._group_lrs()
        return [lr * self.gamma for lr in self._group_lrs()]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self.gamma ** (self.last_epoch // self.step_size)
        return [base * factor for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """The rate times `gamma` at each of the steps `milestones`."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = Counter(milestones)  # one that is given twice counts twice
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self.last_epoch not in self.milestones:
            return self._group_lrs()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self._group_lrs()]

    def _get_closed_form_lr(self) -> list[float]:
        passed = bisect_right(sorted(self.milestones.elements()), self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """The rate times `gamma` at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self._is_initial:
            return self._group_lrs()
        return [lr * self.gamma for lr in self._group_lrs()]

    def _get_closed_form_lr(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class ConstantLR(LRScheduler):
    """The rate times `factor` for `total_iters` steps, then the rate itself."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < factor <= 1:  # PyTorch takes 0 and divides by it later
            raise ArgumentError("factor must lie in (0, 1]", operator="ConstantLR", got=str(factor))
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self._group_lrs()]
        if self.last_epoch != self.total_iters:
            return self._group_lrs()
        return [lr * (1 / self.factor) for lr in self._group_lrs()]

    def _get_closed_form_lr(self) -> list[float]:
        factor = 1 if self.last_epoch >= self.total_iters else self.factor
        return [base * factor for base in self.base_lrs]


class LinearLR(LRScheduler):
    """A factor that runs linearly from `start_factor` to `end_factor` in `total_iters` steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ArgumentError(
                "start_factor must lie in (0, 1]", operator="LinearLR", got=str(start_factor)
            )
        if not 0 <= end_factor <= 1:
            raise ArgumentError(
                "end_factor must lie in [0, 1]", operator="LinearLR", got=str(end_factor)
            )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self._group_lrs()]
        if self._is_initial or self.last_epoch > self.total_iters:
            return self._group_lrs()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return [lr * (1 + rise / before) for lr in self._group_lrs()]

    def _get_closed_form_lr(self) -> list[float]:
        risen = (self.end_factor - self.start_factor) * min(self.total_iters, self.last_epoch)
        factor = self.start_factor + risen / self.total_iters
        return [base * factor for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` in `T_max` steps, and back up after it.

    Source: Loshchilov and Hutter, arXiv:1608.03983 (without the restarts).
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if not isinstance(T_max, Real) or T_max <= 0:
            raise ArgumentError(
                "T_max must be positive", operator="CosineAnnealingLR", got=repr(T_max)
            )
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates from the ones before, so that schedules can be chained."""
        if self._is_initial:
            return self._group_lrs()
        if self._step_count == 1 and self.last_epoch > 0:
            return self._get_closed_form_lr()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The rate before was eta_min, from which no ratio leads back up.
            first = (1 - math.cos(math.pi / self.T_max)) / 2
            return [
                lr + (base - self.eta_min) * first
                for lr, base in zip(self._group_lrs(), self.base_lrs, strict=True)
            ]
        ratio = self._height(self.last_epoch) / self._height(self.last_epoch - 1)
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in self._group_lrs()]

    def _height(self, step: int) -> float:
        return 1 + math.cos(math.pi * step / self.T_max)

    def _get_closed_form_lr(self) -> list[float]:
        height = self._height(self.last_epoch)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]


class SequentialLR(LRScheduler):
    """Several schedules in turn; `milestones` are the steps at which the next one begins."""

    _parts = "_schedulers"

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
        for scheduler in schedulers:
            if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
                raise ArgumentError(
                    "all schedules must belong to the given optimiser",
                    operator="SequentialLR",
                    got=type(scheduler).__name__,
                )
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
        self._rewind()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def _rewind(self) -> None:
        for scheduler in self._schedulers:
            if isinstance(scheduler, SequentialLR):
                scheduler._rewind()
            else:
                scheduler.last_epoch -= 1

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


def warmup_cosine(
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: int,
    min_factor: float = 0.0,
    last_epoch: int = -1,
) -> LambdaLR:
    """A linear rise over `warmup_steps`, then half a cosine down to `min_factor` at `total_steps`.

    The rate of step 0 is zero if there is a warm-up; after `total_steps` it stays at the bottom.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ArgumentError(
            "0 <= warmup_steps <= total_steps must hold",
            operator="warmup_cosine",
            got=f"{warmup_steps}, {total_steps}",
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor, last_epoch)

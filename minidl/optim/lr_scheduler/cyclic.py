"""Schedules that rise and fall, with momentum the other way: CyclicLR and OneCycleLR."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from minidl.errors import ArgumentError, OutOfRangeError
from minidl.optim.lr_scheduler.scheduler import LRScheduler, one_per_group
from minidl.optim.optimizer import Optimizer


class _WithMomentum(LRScheduler):
    """Cycles `momentum`, or the first of `betas`, against the rate."""

    cycle_momentum: bool
    use_beta1: bool

    def _begin_momentum(
        self, optimizer: Optimizer, base_momentum: Any, max_momentum: Any, last_epoch: int
    ) -> None:
        """Write the limits into the groups, which start at the larger one."""
        name = type(self).__name__
        if not {"momentum", "betas"} & optimizer.defaults.keys():
            raise ArgumentError(
                "cycle_momentum needs an optimiser with momentum or betas",
                operator=name,
                got=type(optimizer).__name__,
            )
        self.use_beta1 = "betas" in optimizer.defaults
        highs = one_per_group(name, "max_momentum", max_momentum, optimizer)
        lows = one_per_group(name, "base_momentum", base_momentum, optimizer)
        self._limits = (lows, highs)
        if last_epoch == -1:
            for group, high, low in zip(optimizer.param_groups, highs, lows, strict=True):
                self._set_momentum(group, high)
                group["max_momentum"] = high
                group["base_momentum"] = low

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class CyclicLR(_WithMomentum):
    """The rate goes up from `base_lr` to `max_lr` and down again, in lines.

    mode: "triangular", "triangular2" (half as high in each cycle), "exp_range" (gamma ** step), or
    a `scale_fn` of the cycle (from 1) or of the step, by `scale_mode`. `cycle_momentum` moves the
    momentum from `max_momentum` down to `base_momentum` meanwhile. Source: Smith, arXiv:1506.01186.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self._check_optimizer(optimizer)
        modes = ("triangular", "triangular2", "exp_range")
        if mode not in modes and scale_fn is None:
            raise ArgumentError(
                f"mode is one of {modes}, or scale_fn is given", operator="CyclicLR", got=repr(mode)
            )
        base_lrs = one_per_group("CyclicLR", "base_lr", base_lr, optimizer)
        self.max_lrs = one_per_group("CyclicLR", "max_lr", max_lr, optimizer)
        up = float(step_size_up)
        down = up if step_size_down is None else float(step_size_down)
        self.total_size = up + down
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._begin_momentum(optimizer, base_momentum, max_momentum, last_epoch)
            self.base_momentums, self.max_momentums = self.__dict__.pop("_limits")
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                group["lr"] = lr
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """Return the height of the cycle or step `x`, a share of the whole."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular2":
            return 1 / (2.0 ** (x - 1))
        return self.gamma**x if self.mode == "exp_range" else 1.0

    def get_lr(self) -> list[float]:
        """Compute the rates at `last_epoch`, and set the momentum."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        rise = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            limits = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, limits, strict=True):
                self._set_momentum(group, high - (high - low) * rise * scale)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * rise * scale for low, high in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser; a function becomes None, a callable its dict."""
        state = super().state_dict()
        custom = state["_scale_fn_custom"]
        plain = custom is None or isinstance(custom, types.FunctionType)
        state["_scale_fn_custom"] = None if plain else dict(custom.__dict__)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; a function stays as it is."""
        rest = self._checked(state_dict)
        saved = rest.pop("_scale_fn_custom", None)
        if saved is not None:
            self._scale_fn_custom.__dict__.update(saved)
        self.__dict__.update(rest)


class OneCycleLR(_WithMomentum):
    """One rise to `max_lr` and one fall far below the start, within `total_steps` steps.

    total_steps, or epochs and steps_per_epoch. The rate starts at max_lr / div_factor, rises for
    the share `pct_start` of the steps, and ends at that start / final_div_factor; `three_phase`
    first falls back to the start. anneal_strategy: "cos" or "linear". `cycle_momentum` moves the
    momentum the other way. Source: Smith and Topin, arXiv:1708.07120.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self._check_optimizer(optimizer)
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ArgumentError(
                "pct_start must be a float in [0, 1]", operator="OneCycleLR", got=repr(pct_start)
            )
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(
                "anneal_strategy is 'cos' or 'linear'",
                operator="OneCycleLR",
                got=repr(anneal_strategy),
            )
        rise, last = float(pct_start * self.total_steps) - 1, self.total_steps - 1
        phases = [(rise, "initial_lr", "max_lr", "max_momentum", "base_momentum")]
        if three_phase:
            fall = float(2 * pct_start * self.total_steps) - 2
            phases += [(fall, "max_lr", "initial_lr", "base_momentum", "max_momentum")]
            phases += [(last, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        else:
            phases += [(last, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        names = ("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum")
        self._schedule_phases: list[dict[str, Any]] = [
            dict(zip(names, phase, strict=True)) for phase in phases
        ]
        self._anneal_func_type = anneal_strategy
        max_lrs = one_per_group("OneCycleLR", "max_lr", max_lr, optimizer)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._begin_momentum(optimizer, base_momentum, max_momentum, last_epoch)
            del self._limits
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, max_lrs, strict=True):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Compute the rates at `last_epoch`, and set the momentum."""
        step = self.last_epoch
        if step > self.total_steps:
            raise OutOfRangeError(
                f"the schedule has {self.total_steps} steps", operator="OneCycleLR", got=str(step)
            )
        start = 0.0
        *early, last = self._schedule_phases
        phase = last
        for candidate in early:
            if step <= candidate["end_step"]:
                phase = candidate
                break
            start = candidate["end_step"]
        share = (step - start) / (phase["end_step"] - start)
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                first, end = group[phase["start_momentum"]], group[phase["end_momentum"]]
                self._set_momentum(group, self._between(first, end, share))
        return [
            self._between(group[phase["start_lr"]], group[phase["end_lr"]], share)
            for group in self.optimizer.param_groups
        ]

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _total(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ArgumentError(
            "needs total_steps, or epochs and steps_per_epoch", operator="OneCycleLR"
        )
    given = (epochs, steps_per_epoch) if total_steps is None else (total_steps,)
    for count in given:
        if not isinstance(count, int) or count <= 0:
            raise ArgumentError(
                "numbers of steps and epochs must be positive integers",
                operator="OneCycleLR",
                got=repr(count),
            )
    return math.prod(given)

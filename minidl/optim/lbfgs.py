"""L-BFGS with an optional line search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import minidl.ops as ops
from minidl.autograd import enable_grad, no_grad
from minidl.errors import ArgumentError, DTypeError
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of position and gradient.

    `step(closure)` runs up to `max_iter` iterations and `max_eval` calls of the closure, which
    clears the gradients, computes the loss, calls backward and returns the loss. It ends early when
    no gradient element exceeds `tolerance_grad`, or loss or parameters change by less than
    `tolerance_change`. line_search_fn: None steps by `lr`, "strong_wolfe" searches. There is one
    parameter group. Source: Nocedal and Wright, "Numerical Optimization" (2006), 3.5 and 7.2.
    """

    _unlike = ("d", "t", "H_diag", "prev_flat_grad")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take the only group; ArgumentError (a ValueError) for a second."""
        if self.param_groups:
            raise ArgumentError(
                "there can be one parameter group only: all parameters are one vector",
                operator="LBFGS",
            )
        super().add_param_group(param_group)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        search = group["line_search_fn"]
        known = (None, "strong_wolfe")
        self._require(search in known, f"line_search_fn is one of {known}", repr(search))

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Run the iterations and return the loss before them, as `closure` gave it."""
        if not callable(closure):
            raise DTypeError(
                "step needs a closure that returns the loss",
                operator="LBFGS",
                got=type(closure).__name__,
            )
        group = self.param_groups[0]
        self._steps_taken += 1
        with no_grad():
            return _Run(group, self.state[group["params"][0]], enable_grad()(closure)).minimise()


class _Run:
    """One call of `step`: all parameters as one vector, and the history that the state keeps."""

    def __init__(
        self, group: dict[str, Any], state: dict[str, Any], closure: Callable[[], Any]
    ) -> None:
        self.group, self.state, self.closure = group, state, closure
        self.params: list[Tensor] = group["params"]

    def minimise(self) -> Any:
        group, state = self.group, self.state
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first = self.closure()
        loss, grad, calls = float(first), self.gradient(), 1
        state["func_evals"] += 1
        if self.is_flat(grad):
            return first
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self.direction(grad)
            before = state["prev_loss"] = loss
            state["prev_flat_grad"] = grad.clone()
            rate = group["lr"]
            if state["n_iter"] == 1:
                rate *= min(1.0, 1.0 / grad.abs().sum().item())
            state["t"] = rate
            slope = grad.dot(direction).item()
            if slope > -group["tolerance_change"]:
                break
            spent = 0
            if group["line_search_fn"]:
                search = _WolfeSearch(self, direction, _Point(0.0, loss, grad, slope))
                best, spent = search.run(rate, group["max_eval"] - calls)
                state["t"], loss, grad = best.rate, best.loss, best.grad
                self.move(best.rate, direction)
            else:
                self.move(rate, direction)
                if iteration != group["max_iter"]:  # the last one need not know where it is
                    loss, grad, spent = float(self.closure()), self.gradient(), 1
            calls += spent
            state["func_evals"] += spent
            change = group["tolerance_change"]
            if (
                calls >= group["max_eval"]
                or self.is_flat(grad)
                or direction.abs().max().item() * abs(state["t"]) <= change
                or abs(loss - before) < change
            ):
                break
        return first

    def direction(self, grad: Tensor) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient, by the two loops."""
        state = self.state
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            state["d"] = -grad
            return state["d"]
        y, s = grad - state["prev_flat_grad"], state["d"] * state["t"]
        changes, steps, weights = state["old_dirs"], state["old_stps"], state["ro"]
        curvature = y.dot(s)
        if curvature.item() > 1e-10:
            if len(changes) == self.group["history_size"]:
                for kept in (changes, steps, weights):
                    kept.pop(0)
            changes.append(y)
            steps.append(s)
            weights.append(1.0 / curvature)
            state["H_diag"] = curvature / y.dot(y)
        found = -grad
        shares = state.setdefault("al", [None] * self.group["history_size"])
        for i in reversed(range(len(changes))):
            shares[i] = steps[i].dot(found) * weights[i]
            found.sub_(changes[i] * shares[i])
        found = found * state["H_diag"]
        for i in range(len(changes)):
            found.add_(steps[i] * (shares[i] - changes[i].dot(found) * weights[i]))
        state["d"] = found
        return found

    def is_flat(self, grad: Tensor) -> bool:
        return grad.abs().max().item() <= self.group["tolerance_grad"]

    def gradient(self) -> Tensor:
        """The gradients of all parameters as one new vector; zeros where there is none."""
        parts = [ops.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        return ops.cat([part.reshape(-1) for part in parts])

    def move(self, rate: float, direction: Tensor) -> None:
        """Add `rate * direction` to the parameters."""
        start = 0
        for param in self.params:
            stop = start + param.numel()
            param.add_(direction[start:stop].view_as(param), alpha=rate)
            start = stop

    def probe(self, rate: float, direction: Tensor) -> _Point:
        """Loss and gradient at `rate` along the direction; the parameters stay where they are."""
        kept = [param.clone() for param in self.params]
        self.move(rate, direction)
        loss, grad = float(self.closure()), self.gradient()
        for param, value in zip(self.params, kept, strict=True):
            param.copy_(value)
        return _Point(rate, loss, grad, grad.dot(direction).item())


@dataclass
class _Point:
    """A place on the line: how far, the loss, its gradient, and its slope along the line."""

    rate: float
    loss: float
    grad: Tensor
    slope: float


class _WolfeSearch:
    """Look along a line for a point that fulfils the strong Wolfe conditions."""

    DECREASE, CURVATURE, TOLERANCE = 1e-4, 0.9, 1e-9

    def __init__(self, run: _Run, direction: Tensor, start: _Point) -> None:
        self.run_of, self.direction, self.start = run, direction, start
        self.calls = 0

    def probe(self, rate: float) -> _Point:
        self.calls += 1
        return self.run_of.probe(rate, self.direction)

    def too_high(self, point: _Point) -> bool:
        start = self.start
        return point.loss > start.loss + self.DECREASE * point.rate * start.slope

    def flat_enough(self, point: _Point) -> bool:
        return abs(point.slope) <= -self.CURVATURE * self.start.slope

    def run(self, rate: float, limit: int) -> tuple[_Point, int]:
        """The best point found with about `limit` calls, and how many there were."""
        previous, point = self.start, self.probe(rate)
        for tries in range(limit):
            if self.too_high(point) or (tries > 1 and point.loss >= previous.loss):
                return self.zoom(previous, point, limit - tries), self.calls
            if self.flat_enough(point):
                return point, self.calls
            if point.slope >= 0:
                return self.zoom(previous, point, limit - tries), self.calls
            least = point.rate + 0.01 * (point.rate - previous.rate)
            further = _cubic_minimum(previous, point, (least, point.rate * 10))
            previous, point = point, self.probe(further)
        return min(self.start, point, key=lambda p: p.loss), self.calls

    def zoom(self, low: _Point, high: _Point, limit: int) -> _Point:
        """Narrow the bracket between two points; `low` is kept the one of lower loss."""
        ends = [low, high]  # in the order in which they were found, which cubic steps depend on
        at = 0 if low.loss <= high.loss else 1
        near_end = False
        width = self.direction.abs().max().item()
        for _ in range(limit):
            if abs(ends[1].rate - ends[0].rate) * width < self.TOLERANCE:
                break
            rate = _cubic_minimum(ends[0], ends[1])
            least, most = sorted(end.rate for end in ends)
            margin = 0.1 * (most - least)
            if min(most - rate, rate - least) < margin:
                if near_end or rate >= most or rate <= least:
                    rate = most - margin if abs(rate - most) < abs(rate - least) else least + margin
                    near_end = False
                else:
                    near_end = True
            else:
                near_end = False
            point = self.probe(rate)
            if self.too_high(point) or point.loss >= ends[at].loss:
                ends[1 - at] = point
                at = 0 if ends[0].loss <= ends[1].loss else 1
                continue
            done = self.flat_enough(point)
            if not done and point.slope * (ends[1 - at].rate - ends[at].rate) >= 0:
                ends[1 - at] = ends[at]
            ends[at] = point
            if done:
                break
        return ends[at]


def _cubic_minimum(one: _Point, two: _Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is least, within the bounds."""
    least, most = bounds or (min(one.rate, two.rate), max(one.rate, two.rate))
    first, second = (one, two) if one.rate <= two.rate else (two, one)
    gap = second.rate - first.rate
    bend = first.slope + second.slope - 3 * (first.loss - second.loss) / -gap
    square = bend**2 - first.slope * second.slope
    if square < 0:
        return (least + most) / 2
    root = math.sqrt(square)
    divisor = second.slope - first.slope + 2 * root
    found = second.rate - gap * (second.slope + root - bend) / divisor if divisor else math.inf
    return min(max(found, least), most)

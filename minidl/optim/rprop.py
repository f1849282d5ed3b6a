"""Resilient backpropagation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer, scalar
from minidl.tensor import Tensor


class Rprop(ParameterwiseOptimizer):
    """Steps by the sign of the gradient; a step grows while the sign lasts and shrinks as it turns.

    etas: the factors of shrinking and growing; step_sizes: the limits of a step. For whole batches.
    Source: Riedmiller and Braun, ICNN 1993. `capturable` and `foreach` are accepted and change
    nothing.
    """

    _tensors = ("prev", "step_size")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        shrink, grow = group["etas"]
        self._require(0 < shrink < 1 < grow, "etas must be 0 < shrink < 1 < grow", group["etas"])

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "prev": ops.zeros_like(param),
            "step_size": ops.full_like(param, group["lr"]),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        shrink, grow = group["etas"]
        agreement = grad * state["prev"]
        factor = ops.ones_like(param).masked_fill_(agreement > 0, grow)
        factor.masked_fill_(agreement < 0, shrink)
        size = state["step_size"].mul_(factor).clamp_(*group["step_sizes"])
        grad = grad.masked_fill(agreement < 0, 0)  # no step where the sign has turned
        param.addcmul_(grad.sign(), size, value=-1)
        state["prev"].copy_(grad)

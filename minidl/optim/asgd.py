"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer, decayed, scalar
from minidl.tensor import Tensor


class ASGD(ParameterwiseOptimizer):
    """Gradient descent with a falling rate, beside which the mean of the parameters is kept.

    The mean, from step `t0` on, is `state[param]["ax"]`. Source: Polyak and Juditsky, SIAM J.
    Control Optim. 30 (1992). `capturable` and `foreach` are accepted and change nothing.
    """

    _scalars = ("step", "eta", "mu")
    _tensors = ("ax",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "eta": scalar(group["lr"]),
            "mu": scalar(1),
            "ax": ops.zeros_like(param),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        step, eta, mu = (state[name].item() for name in ("step", "eta", "mu"))
        lr, shrink, mean = group["lr"], group["lambd"], state["ax"]
        grad = decayed(param, grad, group)
        param.mul_(1 - shrink * eta).add_(grad, alpha=-eta)
        if mu == 1:
            mean.copy_(param)
        else:
            mean.add_(param.sub(mean).mul_(mu))
        state["eta"].copy_(scalar(lr / (1 + shrink * lr * step) ** group["alpha"]))
        state["mu"].copy_(scalar(1 / max(1, step - group["t0"])))

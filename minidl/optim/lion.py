"""Lion: steps by the sign of an interpolation between momentum and gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer
from minidl.tensor import Tensor


class Lion(ParameterwiseOptimizer):
    """p <- p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p); m <- beta2 m + ... g.

    Every element moves by `lr`, so rates are 3 to 10 times smaller than AdamW's, and the decay as
    much larger. Source: Chen et al., arXiv:2302.06675. `foreach` is accepted and changes nothing.
    """

    _scalars = ()
    _tensors = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._check_betas(group)

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"exp_avg": ops.zeros_like(param)}

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        update = state["exp_avg"].lerp(grad, 1 - beta1).sign()
        param.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
        state["exp_avg"].lerp_(grad, 1 - beta2)

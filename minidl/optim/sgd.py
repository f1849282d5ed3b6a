"""Stochastic gradient descent, with momentum and Nesterov's variant of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.ops import training
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


class SGD(Optimizer):
    """p <- p - lr * v with v <- momentum * v + (1 - dampening) * (grad + weight_decay * p).

    The first v is the gradient itself. `foreach` and `fused` are accepted: one kernel call serves
    a whole group either way. Source of the Nesterov form: Sutskever et al., ICML 2013.
    """

    _capturable = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        momentum, dampening = group["momentum"], group["dampening"]
        self._require_number(group, "momentum")
        self._require(
            not group["nesterov"] or (momentum > 0 and dampening == 0),
            "nesterov needs momentum > 0 and dampening = 0",
            f"momentum={momentum}, dampening={dampening}",
        )

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        momenta: list[Tensor | None] = [None] * len(params)
        first = [False] * len(params)
        if group["momentum"] != 0:
            momenta = [self.state[param].get("momentum_buffer") for param in params]
            for i, param in enumerate(params):
                if momenta[i] is None:
                    first[i] = True
                    momenta[i] = self.state[param]["momentum_buffer"] = ops.zeros_like(param)
        training.sgd_step(
            params,
            grads,
            momenta,
            first,
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )

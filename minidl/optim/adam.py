"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.dtypes import float32
from minidl.errors import ArgumentError
from minidl.ops import training
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


class Adam(Optimizer):
    """Steps by the running mean of the gradient over the root of that of its square.

    `weight_decay` is added to the gradient, or with `decoupled_weight_decay` shrinks the parameter
    directly (AdamW). `foreach`, `fused` and `capturable` are accepted: one kernel call serves a
    whole group either way. Sources: Kingma and Ba, arXiv:1412.6980; Reddi et al.,
    arXiv:1904.09237 (amsgrad); Loshchilov and Hutter, arXiv:1711.05101 (decoupled decay).
    """

    _capturable = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._require_number(group, "eps")
        self._check_betas(group)

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        amsgrad = group["amsgrad"]
        states = [self.state[param] for param in params]
        for param, state in zip(params, states, strict=True):
            if not state:
                # PyTorch keeps the step as a float32 scalar; so checkpoints pass both ways.
                state["step"] = ops.zeros((), dtype=float32)
                state["exp_avg"] = ops.zeros_like(param)
                state["exp_avg_sq"] = ops.zeros_like(param)
            if amsgrad and "max_exp_avg_sq" not in state:
                state["max_exp_avg_sq"] = ops.zeros_like(param)
        training.adam_step(
            params,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] if amsgrad else None for state in states],
            [state["step"] for state in states],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            amsgrad=amsgrad,
            maximize=group["maximize"],
            decoupled=group["decoupled_weight_decay"],
        )

    def _adopt(self, state: dict[str, Any]) -> None:
        """Refuse another optimiser's state; accept checkpoints whose step is a plain number."""
        if state and not {"step", "exp_avg", "exp_avg_sq"} <= state.keys():
            raise ArgumentError(
                "the state must have step, exp_avg and exp_avg_sq",
                operator="load_state_dict",
                got=", ".join(map(str, state)),
            )
        if state and not isinstance(state["step"], Tensor):
            state["step"] = ops.tensor(float(state["step"]), dtype=float32)


class AdamW(Adam):
    """Adam with decoupled weight decay: p <- p - lr * weight_decay * p before the step.

    Source: Loshchilov and Hutter, arXiv:1711.05101.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

"""Adagrad and Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer, decayed, scalar
from minidl.tensor import Tensor


class Adagrad(ParameterwiseOptimizer):
    """Divides the gradient by the root of the sum of all its squares so far.

    Source: Duchi, Hazan and Singer, JMLR 12 (2011). `foreach` and `fused` are accepted and change
    nothing.
    """

    _tensors = ("sum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        # There from the start, as in PyTorch: a checkpoint before the first step has it.
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param].update(self._fresh(param, group))

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._require_number(group, "lr_decay", "eps", "initial_accumulator_value")

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        total = ops.full_like(param, self.defaults["initial_accumulator_value"])
        return {"step": scalar(0), "sum": total}

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        grad = decayed(param, grad, group)
        rate = group["lr"] / (1 + (state["step"].item() - 1) * group["lr_decay"])
        root = state["sum"].addcmul_(grad, grad).sqrt().add_(group["eps"])
        param.addcdiv_(grad, root, value=-rate)


class Adadelta(ParameterwiseOptimizer):
    """Scales the gradient by the root mean squares of past steps over those of past gradients.

    Source: Zeiler, arXiv:1212.5701. `capturable` and `foreach` are accepted and change nothing.
    """

    _tensors = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._require_number(group, "eps", "rho")
        self._require(group["rho"] <= 1, "rho must lie in [0, 1]", group["rho"])

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "square_avg": ops.zeros_like(param),
            "acc_delta": ops.zeros_like(param),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        rho, eps = group["rho"], group["eps"]
        grad = decayed(param, grad, group)
        root = state["square_avg"].mul_(rho).addcmul_(grad, grad, value=1 - rho).add(eps).sqrt_()
        delta = state["acc_delta"].add(eps).sqrt_().div_(root).mul_(grad)
        state["acc_delta"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
        param.add_(delta, alpha=-group["lr"])

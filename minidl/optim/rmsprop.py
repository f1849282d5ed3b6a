"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer, decayed, scalar
from minidl.tensor import Tensor


class RMSprop(ParameterwiseOptimizer):
    """Divides the gradient by the root of a running mean of its square, optionally centred.

    Source: Tieleman and Hinton, "Lecture 6.5: rmsprop", Coursera 2012; centred: Graves,
    arXiv:1308.0850. `capturable` and `foreach` are accepted and change nothing.
    """

    _tensors = ("square_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._require_number(group, "eps", "momentum", "alpha")

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state = {"step": scalar(0), "square_avg": ops.zeros_like(param)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = ops.zeros_like(param)
        if group["centered"]:
            state["grad_avg"] = ops.zeros_like(param)
        return state

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        alpha, lr = group["alpha"], group["lr"]
        grad = decayed(param, grad, group)
        square = state["square_avg"].mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        if group["centered"]:
            mean = state["grad_avg"].lerp_(grad, 1 - alpha)
            square = square.addcmul(mean, mean, value=-1)
        root = square.sqrt().add_(group["eps"])
        if group["momentum"] > 0:
            speed = state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(grad, root)
            param.add_(speed, alpha=-lr)
        else:
            param.addcdiv_(grad, root, value=-lr)

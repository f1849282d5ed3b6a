"""Relatives of Adam: Adamax, NAdam and RAdam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.optim.parameterwise import ParameterwiseOptimizer, decayed, scalar
from minidl.tensor import Tensor


class _AdamVariant(ParameterwiseOptimizer):
    """Options that Adam's relatives share."""

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._check_betas(group)
        self._require_number(group, "eps")


class Adamax(_AdamVariant):
    """Adam by the largest gradient of the recent past instead of the root of the mean square.

    Source: Kingma and Ba, arXiv:1412.6980, section 7. `capturable` and `foreach` are accepted and
    change nothing.
    """

    _tensors = ("exp_avg", "exp_inf")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "exp_avg": ops.zeros_like(param),
            "exp_inf": ops.zeros_like(param),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        grad = decayed(param, grad, group)
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        past = state["exp_inf"].mul_(beta2)
        past.copy_(ops.maximum(past, grad.abs().add_(group["eps"])))
        rate = group["lr"] / (1 - beta1 ** state["step"].item())
        param.addcdiv_(mean, past, value=-rate)


class NAdam(_AdamVariant):
    """Adam with Nesterov's momentum, whose share grows by a schedule.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016. `capturable`
    and `foreach` are accepted and change nothing.
    """

    _scalars = ("step", "mu_product")
    _tensors = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        self._require_number(group, "momentum_decay")

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "mu_product": scalar(1),
            "exp_avg": ops.zeros_like(param),
            "exp_avg_sq": ops.zeros_like(param),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        (beta1, beta2), lr, step = group["betas"], group["lr"], state["step"].item()
        if group["decoupled_weight_decay"]:
            param.mul_(1 - lr * group["weight_decay"])
        else:
            grad = decayed(param, grad, group)
        share, following = (
            beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1)
        )
        state["mu_product"] *= share
        product = state["mu_product"].item()
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = square.div(1 - beta2**step).sqrt_().add_(group["eps"])
        param.addcdiv_(grad, root, value=-lr * (1 - share) / (1 - product))
        param.addcdiv_(mean, root, value=-lr * following / (1 - product * following))


class RAdam(_AdamVariant):
    """Adam that divides by the root mean square once its estimate varies little enough.

    Source: Liu et al., arXiv:1908.03265. `capturable` and `foreach` are accepted and change
    nothing.
    """

    _tensors = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": scalar(0),
            "exp_avg": ops.zeros_like(param),
            "exp_avg_sq": ops.zeros_like(param),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        (beta1, beta2), lr, step = group["betas"], group["lr"], state["step"].item()
        if group["decoupled_weight_decay"]:
            param.mul_(1 - lr * group["weight_decay"])
        else:
            grad = decayed(param, grad, group)
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        update = mean / (1 - beta1**step) * lr
        # the length of the average at the end and now (rho in the paper)
        whole, bias = 2 / (1 - beta2) - 1, 1 - beta2**step
        length = whole - 2 * step * beta2**step / bias
        if length > 5:
            rectified = (length - 4) * (length - 2) * whole
            rectified /= (whole - 4) * (whole - 2) * length
            update = update * (bias**0.5 / square.sqrt().add_(group["eps"])) * rectified**0.5
        param.add_(update, alpha=-1)

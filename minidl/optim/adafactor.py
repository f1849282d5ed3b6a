"""Adafactor: the second moment of a matrix by its rows and columns only."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import Any

import minidl.ops as ops
from minidl.dtypes import finfo
from minidl.optim.parameterwise import ParameterwiseOptimizer, scalar
from minidl.tensor import Tensor


class Adafactor(ParameterwiseOptimizer):
    """Adam without momentum whose memory is one number per row and column of the last two axes.

    `lr` bounds a rate that is relative to the size of the parameter; eps: (of the second moment,
    None for the dtype's; of the size); d: the largest root mean square of an update. Source:
    Shazeer and Stern, arXiv:1804.04235. `foreach` is accepted and changes nothing.
    """

    _unlike = ("row_var", "col_var", "variance")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        eps = group["eps"]
        self._require(
            len(eps) == 2
            and (eps[0] is None or (isinstance(eps[0], Real) and eps[0] >= 0))
            and eps[1] >= 0,
            "eps must be (None or a number, a number), none negative",
            eps,
        )
        self._require(group["beta2_decay"] <= 0, "beta2_decay must be <= 0", group["beta2_decay"])
        self._require(group["d"] >= 1, "d must be >= 1", group["d"])

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        if param.dim() < 2:
            return {"step": scalar(0), "variance": ops.zeros_like(param)}
        *rest, rows, columns = param.shape
        return {
            "step": scalar(0),
            "row_var": ops.zeros((*rest, rows, 1), dtype=param.dtype, device=param.device),
            "col_var": ops.zeros((*rest, 1, columns), dtype=param.dtype, device=param.device),
        }

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if not param.numel():
            return
        (least, smallest), lr, step = group["eps"], group["lr"], state["step"].item()
        least = finfo(param.dtype).eps if least is None else least
        size = max(smallest, param.norm(2).item() / param.numel() ** 0.5)
        rate = size * min(lr, step**-0.5)
        if group["weight_decay"]:
            param.mul_(1 - lr * group["weight_decay"])
        fresh = step ** group["beta2_decay"]
        if grad.dim() > 1:
            for name, dim in (("row_var", -1), ("col_var", -2)):
                state[name].lerp_(grad.norm(2, dim, True).square().div_(grad.shape[dim]), fresh)
            row, column = state["row_var"], state["col_var"]
            moment = (row @ column).div_(row.mean(-2, True).clamp_(min=least))
        else:
            moment = state["variance"].lerp_(grad * grad, fresh)
        update = moment.clamp(min=least * least).rsqrt_().mul_(grad)
        excess = max(1.0, update.norm(2).item() / (update.numel() ** 0.5 * group["d"]))
        param.add_(update, alpha=-rate / excess)

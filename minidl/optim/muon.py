"""Muon: momentum whose matrix is made nearly orthogonal before the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError
from minidl.optim.parameterwise import ParameterwiseOptimizer
from minidl.tensor import Tensor


class Muon(ParameterwiseOptimizer):
    """Steps of matrices by the orthogonal factor of their momentum; other parameters need AdamW.

    adjust_lr_fn: "original" (None) scales the rate by sqrt(max(1, rows / columns)),
    "match_rms_adamw" to the root mean square of AdamW's steps. Sources: Jordan et al., "Muon"
    (2024); Liu et al., arXiv:2502.16982. Raises ArgumentError (a ValueError) for a parameter that
    is no matrix.
    """

    _scalars = ()
    _tensors = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of matrices with options of its own."""
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.dim() != 2:
                del self.param_groups[-1]
                raise ArgumentError(
                    "a parameter must be a matrix; give the others to AdamW",
                    operator="Muon",
                    got=str(tuple(param.shape)),
                )

    def _check_options(self, group: dict[str, Any]) -> None:
        self._check_common(group)
        self._require_number(group, "momentum", "eps")
        known = (None, "original", "match_rms_adamw")
        self._require(
            group["adjust_lr_fn"] in known, f"adjust_lr_fn is one of {known}", group["adjust_lr_fn"]
        )
        self._require(
            len(group["ns_coefficients"]) == 3, "needs 3 coefficients", group["ns_coefficients"]
        )
        self._require(0 <= group["ns_steps"] < 100, "ns_steps is below 100", group["ns_steps"])

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"momentum_buffer": ops.zeros_like(param)}

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        lr, momentum, (rows, columns) = group["lr"], group["momentum"], param.shape
        buffer = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        if group["adjust_lr_fn"] == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        else:
            ratio = math.sqrt(max(1, rows / columns))
        param.mul_(1 - lr * group["weight_decay"])
        param.add_(update.to(param.dtype), alpha=-lr * ratio)


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring the singular values of a matrix (m, n) near 1, in bfloat16.

    A quintic Newton-Schulz iteration: X <- a X + (b A + c A A) X with A = X X^T.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.t() if tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.t()
        gram = ops.addmm(gram, gram, gram, beta=b, alpha=c)
        x = ops.addmm(x, gram, x, beta=a)
    return x.t() if tall else x

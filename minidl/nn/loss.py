"""Loss functions as modules; what each computes is said where its operator is defined."""

from __future__ import annotations

from typing import Any

import minidl.ops as ops
from minidl.errors import UnsupportedError
from minidl.nn.module import Module
from minidl.tensor import Tensor


class _Loss(Module):
    """Keeps `reduction`: "mean", "sum" or "none"; the operator refuses any other."""

    def __init__(self, size_average: Any, reduce: Any, reduction: str) -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            raise UnsupportedError(
                "size_average and reduce are gone; use reduction='mean', 'sum' or 'none'",
                operator=type(self).__name__,
            )
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """Cross entropy of logits against class indices or class probabilities.

    input: (C), (N, C) or (N, C, d1, ...); target: () / (N) / (N, d1, ...) integers, or
    probabilities of the input's shape.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `input` against `target`."""
        return ops.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Negative log likelihood of log-probabilities against class indices."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of log-probabilities `input` against `target`."""
        return ops.nll_loss(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class BCELoss(_Loss):
    """Binary cross entropy of probabilities in [0, 1] against targets in [0, 1]."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of probabilities `input` against `target`, of the same shape."""
        return ops.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross entropy of logits, safe from overflow at both ends."""

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    weight: Tensor | None
    pos_weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `input` against `target`, of the same shape."""
        return ops.binary_cross_entropy_with_logits(
            input,
            target,
            weight=self.weight,
            reduction=self.reduction,
            pos_weight=self.pos_weight,
        )


class MSELoss(_Loss):
    """Squared difference."""

    def __init__(
        self, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of `input` against `target`, of the same shape."""
        return ops.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Absolute difference."""

    def __init__(
        self, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of `input` against `target`, of the same shape."""
        return ops.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Squared difference below `beta`, absolute difference above, joined smoothly."""

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of `input` against `target`, of the same shape."""
        return ops.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Squared difference below `delta`, `delta` times the absolute difference above, joined."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(None, None, reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of `input` against `target`, of the same shape."""
        return ops.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of `target` from log-probabilities `input`.

    Also takes reduction="batchmean", the sum divided by the batch size, which is the divergence.
    """

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the divergence of `target` from `input`, of the same shape."""
        return ops.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)

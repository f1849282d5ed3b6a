"""Continuous relaxations of discrete distributions, whose draws have gradients.

Source: Maddison, Mnih and Teh, "The Concrete Distribution", arXiv:1611.00712; Jang, Gu and Poole,
"Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.bernoulli import Binary
from minidl.distributions.categorical import Categorical
from minidl.distributions.distribution import Distribution
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import ExpTransform, SigmoidTransform
from minidl.distributions.utils import broadcast_all, clamp_probs
from minidl.ops.activation import softplus
from minidl.ops.random import rand
from minidl.ops.reduce import logsumexp, sum
from minidl.ops.transcendental import log, log1p
from minidl.tensor import Tensor

__all__ = [
    "ExpRelaxedCategorical",
    "LogitRelaxedBernoulli",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
]


class LogitRelaxedBernoulli(Binary):
    """The log-odds of a relaxed Bernoulli variable of the given temperature."""

    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        self.temperature = temperature
        (given,) = self._set(probs, logits)
        super().__init__(given.shape, validate_args=validate_args)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        u = clamp_probs(rand(shape, dtype=self.logits.dtype, device=self.logits.device))
        return (log(u) - log1p(-u) + self.logits) / self.temperature

    def _log_prob(self, value: Tensor) -> Tensor:
        z = self.logits - value * self.temperature
        (scale,) = broadcast_all(self.temperature)
        return log(scale) + z - softplus(z) * 2


class _Relaxed(TransformedDistribution):
    """What both relaxations hand on from their base distributions."""

    @property
    def temperature(self) -> Any:
        """The temperature: the nearer to 0, the nearer to discrete."""
        return self.base_dist.temperature  # type: ignore[attr-defined]

    @property
    def logits(self) -> Tensor:
        """Log-odds, or logarithms of the probabilities."""
        return self.base_dist.logits  # type: ignore[attr-defined]

    @property
    def probs(self) -> Tensor:
        """Probabilities."""
        return self.base_dist.probs  # type: ignore[attr-defined]


class RelaxedBernoulli(_Relaxed):
    """Numbers in (0, 1) that come near to 0 and 1 as the temperature falls."""

    arg_constraints: ClassVar = {
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    support = constraints.unit_interval  # type: ignore[assignment]

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        base = LogitRelaxedBernoulli(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args=False)
        self._validate_args = base._validate_args


class ExpRelaxedCategorical(Distribution):
    """The logarithms of a relaxed one-hot vector."""

    arg_constraints: ClassVar = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)
        self._validate_args = self._categorical._validate_args

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def probs(self) -> Tensor:
        """Probabilities that add up to 1."""
        return self._categorical.probs

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = super()._expanded(shape)
        new._categorical = self._categorical.expand(shape)
        return new

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        gumbel = -log(
            -log(clamp_probs(rand(shape, dtype=self.logits.dtype, device=self.logits.device)))
        )
        scores = (self.logits + gumbel) / self.temperature
        return scores - logsumexp(scores, -1, True)

    def _log_prob(self, value: Tensor) -> Tensor:
        k = self._event_shape[0]
        (scale,) = broadcast_all(self.temperature)
        scores = self.logits - value * scale
        scores = sum(scores - logsumexp(scores, -1, True), -1)
        return scores + log(scale) * (k - 1) + math.lgamma(k)


class RelaxedOneHotCategorical(_Relaxed):
    """Points of the simplex that come near to its corners as the temperature falls."""

    arg_constraints: ClassVar = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }
    support = constraints.simplex  # type: ignore[assignment]

    def __init__(
        self,
        temperature: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args=False)
        self._validate_args = base._validate_args

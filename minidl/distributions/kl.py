"""Kullback-Leibler divergences in closed form, by the types of both distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl.distributions.bernoulli import Bernoulli
from minidl.distributions.beta import Beta
from minidl.distributions.binomial import Binomial
from minidl.distributions.categorical import Categorical
from minidl.distributions.cauchy import Cauchy
from minidl.distributions.dirichlet import Dirichlet
from minidl.distributions.distribution import Distribution
from minidl.distributions.exponential import Exponential
from minidl.distributions.gamma import Gamma
from minidl.distributions.geometric import Geometric
from minidl.distributions.gumbel import Gumbel
from minidl.distributions.half_cauchy import HalfCauchy
from minidl.distributions.half_normal import HalfNormal
from minidl.distributions.independent import Independent
from minidl.distributions.laplace import Laplace
from minidl.distributions.multivariate_normal import MultivariateNormal, half_log_det, mahalanobis
from minidl.distributions.normal import Normal
from minidl.distributions.one_hot_categorical import OneHotCategorical
from minidl.distributions.pareto import Pareto
from minidl.distributions.poisson import Poisson
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import sum_rightmost
from minidl.distributions.uniform import Uniform
from minidl.distributions.utils import EULER, HALF_LOG_TAU
from minidl.errors import DTypeError, UnsupportedError
from minidl.ops.arithmetic import abs
from minidl.ops.compare import gt, lt
from minidl.ops.linalg import solve_triangular
from minidl.ops.reduce import sum
from minidl.ops.select import where
from minidl.ops.special import digamma, lgamma, ndtr, xlogy
from minidl.ops.transcendental import exp, log, log1p
from minidl.tensor import Tensor

__all__ = ["kl_divergence", "register_kl"]

_TABLE: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Callable], Callable]:
    """Decorate the function of (p, q) that `kl_divergence` calls for these types.

    Subclasses are served too, by the function of the nearest types.
    """
    for kind in (type_p, type_q):
        if not isinstance(kind, type) or not issubclass(kind, Distribution):
            raise DTypeError("types must be classes of distributions", operator="register_kl",
                             got=repr(kind))  # fmt: skip

    def decorate(function: Callable) -> Callable:
        _TABLE[type_p, type_q] = function
        return function

    return decorate


def _function_for(type_p: type, type_q: type) -> Callable[[Any, Any], Tensor]:
    """The registered function whose types are nearest to these, those of p first."""
    for kind_p in type_p.__mro__:
        for kind_q in type_q.__mro__:
            if (kind_p, kind_q) in _TABLE:
                return _TABLE[kind_p, kind_q]
    raise UnsupportedError(
        "no closed form is registered; estimate it by (p.log_prob(x) - q.log_prob(x)).mean() over"
        " x = p.sample((n,)), or add one with register_kl",
        operator="kl_divergence", got=f"{type_p.__name__}, {type_q.__name__}",
    )  # fmt: skip


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The divergence of p from q, the mean of log(p / q) under p: the batch shapes broadcast.

    Infinite where p has values that q has not. Raises UnsupportedError for pairs without a
    registered function.
    """
    return _function_for(type(p), type(q))(p, q)


def _infinite(p: Any, q: Any) -> Tensor:
    """p has values outside the support of q."""
    return p.mean.detach() * 0 + math.inf


# ---------------------------------------------------------------- one family


@register_kl(Bernoulli, Bernoulli)
def _(p: Bernoulli, q: Bernoulli) -> Tensor:
    return _xlog_ratio(p.probs, q.probs) + _xlog_ratio(1 - p.probs, 1 - q.probs)


def _xlog_ratio(x: Tensor, y: Tensor) -> Tensor:
    """x log(x / y): 0 where x is 0, infinite where y alone is."""
    return xlogy(x, x) - xlogy(x, y)


@register_kl(Beta, Beta)
def _(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    total, other = a + b, c + d
    norms = lgamma(c) + lgamma(d) + lgamma(total) - lgamma(other) - lgamma(a) - lgamma(b)
    means = (a - c) * digamma(a) + (b - d) * digamma(b) + (other - total) * digamma(total)
    return norms + means


@register_kl(Binomial, Binomial)
def _(p: Binomial, q: Binomial) -> Tensor:
    # more trials than q has: outcomes that q cannot have; fewer: no closed form
    if bool(lt(p.total_count, q.total_count).any()):
        raise UnsupportedError("p needs at least as many trials as q", operator="kl_divergence")
    one = _xlog_ratio(p.probs, q.probs) + _xlog_ratio(1 - p.probs, 1 - q.probs)
    return where(gt(p.total_count, q.total_count), math.inf, p.total_count * one)


@register_kl(Categorical, Categorical)
def _(p: Categorical, q: Categorical) -> Tensor:
    # a category that p cannot have counts 0, one that only q cannot have inf
    terms = p.probs * (p.logits - q.logits)
    terms = where((q.probs == 0).logical_and(p.probs > 0), math.inf, terms)
    return sum(where(p.probs == 0, 0.0, terms), -1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return kl_divergence(p._categorical, q._categorical)


@register_kl(Cauchy, Cauchy)
def _(p: Cauchy, q: Cauchy) -> Tensor:
    # Chyzak, Nielsen, "A closed-form formula for the Kullback-Leibler divergence between Cauchy
    # distributions", arXiv:1905.10965
    wide, gap = p.scale + q.scale, p.loc - q.loc
    return log(wide * wide + gap * gap) - log(p.scale * q.scale * 4)


@register_kl(Dirichlet, Dirichlet)
def _(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    total = sum(a, -1)
    norms = lgamma(total) - lgamma(sum(b, -1)) - sum(lgamma(a) - lgamma(b), -1)
    return norms + sum((a - b) * (digamma(a) - digamma(total).unsqueeze(-1)), -1)


@register_kl(Exponential, Exponential)
def _(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - log(ratio) - 1


@register_kl(Gamma, Gamma)
def _(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (
        b * log(p.rate / q.rate)
        + lgamma(b)
        - lgamma(a)
        + (a - b) * digamma(a)
        + (q.rate - p.rate) * (a / p.rate)
    )


@register_kl(Geometric, Geometric)
def _(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - log1p(-q.probs) / p.probs - q.logits


@register_kl(Gumbel, Gumbel)
def _(p: Gumbel, q: Gumbel) -> Tensor:
    ratio, gap = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return -log(ratio) + gap + ratio * EULER + exp(lgamma(ratio + 1) - gap) - (1 + EULER)


@register_kl(HalfCauchy, HalfCauchy)
def _(p: HalfCauchy, q: HalfCauchy) -> Tensor:
    wide = p.scale + q.scale  # as of Cauchy variables around 0
    return log(wide * wide) - log(p.scale * q.scale * 4)


@register_kl(HalfNormal, HalfNormal)
def _(p: HalfNormal, q: HalfNormal) -> Tensor:
    ratio = p.scale / q.scale
    return (ratio * ratio - 1) * 0.5 - log(ratio)


@register_kl(Laplace, Laplace)
def _(p: Laplace, q: Laplace) -> Tensor:
    ratio, gap = p.scale / q.scale, abs(p.loc - q.loc)
    return -log(ratio) + gap / q.scale + ratio * exp(-gap / p.scale) - 1


@register_kl(MultivariateNormal, MultivariateNormal)
def _(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    mine, other = p._factor, q._factor
    ratio = solve_triangular(other, mine, upper=False)
    trace = sum(ratio * ratio, (-2, -1))
    spread = mahalanobis(other, q.loc - p.loc)
    return half_log_det(other) - half_log_det(mine) + (trace + spread - p.event_shape[0]) * 0.5


@register_kl(Normal, Normal)
def _(p: Normal, q: Normal) -> Tensor:
    ratio, gap = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return (ratio * ratio + gap * gap - 1) * 0.5 - log(ratio)


@register_kl(Pareto, Pareto)
def _(p: Pareto, q: Pareto) -> Tensor:
    ratio = q.alpha / p.alpha
    found = q.alpha * log(p.scale / q.scale) - log(ratio) + ratio - 1
    return where(p.scale < q.scale, math.inf, found)


@register_kl(Poisson, Poisson)
def _(p: Poisson, q: Poisson) -> Tensor:
    return _xlog_ratio(p.rate, q.rate) - (p.rate - q.rate)


@register_kl(Uniform, Uniform)
def _(p: Uniform, q: Uniform) -> Tensor:
    found = log((q.high - q.low) / (p.high - p.low))
    return where((q.low > p.low).logical_or(q.high < p.high), math.inf, found)


@register_kl(Independent, Independent)
def _(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise UnsupportedError("both need the same reinterpreted_batch_ndims",
                               operator="kl_divergence")  # fmt: skip
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise UnsupportedError("both need the same transforms", operator="kl_divergence")
    return kl_divergence(p.base_dist, q.base_dist)


# ---------------------------------------------------------------- two families


def _against_normal(mean: Tensor, variance: Tensor, q: Normal) -> Tensor:
    """The cross-entropy of a distribution of these moments against a normal one."""
    gap = mean - q.loc
    return (variance + gap * gap) / (q.scale * q.scale * 2) + log(q.scale) + HALF_LOG_TAU


def _normal(p: Any, q: Normal) -> Tensor:
    return _against_normal(p.mean, p.variance, q) - p.entropy()


def _exponential(p: Any, q: Exponential) -> Tensor:
    return q.rate * p.mean - log(q.rate) - p.entropy()


def _gamma(p: Any, q: Gamma, mean_log: Tensor) -> Tensor:
    norm = q.concentration * log(q.rate) - lgamma(q.concentration)
    return q.rate * p.mean - norm - (q.concentration - 1) * mean_log - p.entropy()


for _kind in (Beta, Exponential, Gamma, Gumbel, Laplace, Pareto, Uniform):
    register_kl(_kind, Normal)(_normal)
for _kind in (Beta, Gamma, Pareto, Uniform):
    register_kl(_kind, Exponential)(_exponential)
for _pair in [
    (Poisson, Bernoulli), (Poisson, Binomial),
    (Exponential, Beta), (Exponential, Uniform),
    (Gamma, Beta), (Gamma, Uniform),
    (Gumbel, Beta), (Gumbel, Exponential), (Gumbel, Gamma), (Gumbel, Uniform),
    (Laplace, Beta), (Laplace, Exponential), (Laplace, Gamma), (Laplace, Uniform),
    (Normal, Beta), (Normal, Exponential), (Normal, Gamma), (Normal, Uniform),
    (Pareto, Beta), (Pareto, Uniform), (Beta, Pareto), (Exponential, Pareto), (Gamma, Pareto),
    (Gumbel, Pareto), (Laplace, Pareto), (Normal, Pareto),
]:  # fmt: skip
    register_kl(*_pair)(_infinite)


@register_kl(Bernoulli, Poisson)
def _(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs * log(q.rate) - q.rate)


@register_kl(Beta, Gamma)
def _(p: Beta, q: Gamma) -> Tensor:
    total = p.concentration1 + p.concentration0
    return _gamma(p, q, digamma(p.concentration1) - digamma(total))


@register_kl(Beta, Uniform)
def _(p: Beta, q: Uniform) -> Tensor:
    found = log(q.high - q.low) - p.entropy()
    return where((q.low > 0).logical_or(q.high < 1), math.inf, found)


@register_kl(Exponential, Gamma)
def _(p: Exponential, q: Gamma) -> Tensor:
    return _gamma(p, q, -log(p.rate) - EULER)


@register_kl(Exponential, Gumbel)
def _(p: Exponential, q: Gumbel) -> Tensor:
    # E exp(-x / s) = r / (r + 1 / s)
    by_scale = p.rate * q.scale
    tail = exp(q.loc / q.scale) * (by_scale / (by_scale + 1))
    return log(by_scale) - q.loc / q.scale + 1 / by_scale + tail - 1


@register_kl(Gamma, Gumbel)
def _(p: Gamma, q: Gumbel) -> Tensor:
    by_scale = p.rate * q.scale
    tail = exp(q.loc / q.scale) * (1 + 1 / by_scale) ** -p.concentration
    return (p.mean - q.loc) / q.scale + tail + log(q.scale) - p.entropy()


@register_kl(Normal, Gumbel)
def _(p: Normal, q: Gumbel) -> Tensor:
    ratio, gap = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return gap + exp(ratio * ratio * 0.5 - gap) + log(q.scale) - p.entropy()


@register_kl(Normal, Laplace)
def _(p: Normal, q: Laplace) -> Tensor:
    gap = p.loc - q.loc
    z = gap / p.scale
    mean = p.scale * exp(z * z * -0.5) * math.sqrt(2 / math.pi) + gap * (ndtr(z) * 2 - 1)
    return mean / q.scale + log(q.scale * 2) - p.entropy()


@register_kl(Uniform, Beta)
def _(p: Uniform, q: Beta) -> Tensor:
    width = p.high - p.low
    a, b = q.concentration1, q.concentration0
    logs = (xlogy(p.high, p.high) - xlogy(p.low, p.low)) / width - 1
    others = (xlogy(1 - p.low, 1 - p.low) - xlogy(1 - p.high, 1 - p.high)) / width - 1
    found = -log(width) - (a - 1) * logs - (b - 1) * others + lgamma(a) + lgamma(b) - lgamma(a + b)
    return where((p.low < 0).logical_or(p.high > 1), math.inf, found)


@register_kl(Pareto, Gamma)
def _(p: Pareto, q: Gamma) -> Tensor:
    return _gamma(p, q, log(p.scale) + 1 / p.alpha)


@register_kl(Uniform, Pareto)
def _(p: Uniform, q: Pareto) -> Tensor:
    width = p.high - p.low
    logs = (xlogy(p.high, p.high) - xlogy(p.low, p.low)) / width - 1
    found = (q.alpha + 1) * logs - log(width) - log(q.alpha) - q.alpha * log(q.scale)
    return where(p.low < q.scale, math.inf, found)


@register_kl(Uniform, Gamma)
def _(p: Uniform, q: Gamma) -> Tensor:
    width = p.high - p.low
    found = _gamma(p, q, (xlogy(p.high, p.high) - xlogy(p.low, p.low)) / width - 1)
    return where(p.low < 0, math.inf, found)


@register_kl(Uniform, Exponential)
def _(p: Uniform, q: Exponential) -> Tensor:
    return where(p.low < 0, math.inf, _exponential(p, q))


@register_kl(Uniform, Gumbel)
def _(p: Uniform, q: Gumbel) -> Tensor:
    width = p.high - p.low
    tail = exp((q.loc - p.low) / q.scale) - exp((q.loc - p.high) / q.scale)
    return (p.mean - q.loc) / q.scale + tail * q.scale / width + log(q.scale) - log(width)

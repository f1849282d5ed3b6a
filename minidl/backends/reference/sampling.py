"""Gamma, Poisson and binomial variables: rejection, the same for every thread count.

Element i draws from counter `offset + i`; attempt t of its rejection reads the four words of that
counter in lane t (the counter's third word), so no element's result depends on another's. Each
entry consumes four words per element. Everything is computed in float64 and rounded once.
"""

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.reference.host import host
from minidl.backends.reference.random import philox_at
from minidl.backends.reference.special import lgamma

_BOOST = 0xFFFFFFFF  # the lane of a gamma variable's second number; no rejection gets that far
_SMALL = 10  # mean up to which counts are found by adding up probabilities
_MOST = 200  # such sums are over by then: the probability of 100 at mean 10 is 1e-63


def _wide(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Uniform on (0, 1) from two words: multiples of 2^-53, moved by half of one."""
    bits = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _uniform(word: np.ndarray) -> np.ndarray:
    return (word.astype(np.float64) + 0.5) * 2.0**-32


def _counters(offset: int, elements: np.ndarray) -> np.ndarray:
    return elements.astype(np.uint64) + np.uint64(offset & 0xFFFFFFFFFFFFFFFF)


def _reject(
    attempt: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    out: np.ndarray,
    elements: np.ndarray,
    seed: int,
    offset: int,
) -> None:
    """Fill `out[elements]`: `attempt(words, elements)` gives values and which of them hold."""
    lane = 0
    while elements.size:
        words = philox_at(_counters(offset, elements), lane, seed)
        values, accepted = attempt(words, elements)
        done = np.flatnonzero(accepted)
        out[elements[done]] = values[done]
        elements = elements[np.flatnonzero(~accepted)]
        lane += 1


def log_standard_gamma(a: np.ndarray, seed: int, offset: int) -> np.ndarray:
    """The logarithm of a gamma variable of shape a and scale 1, in the shape and dtype of `a`.

    The logarithm, as for small shapes the variable itself underflows. 0 gives -inf, inf gives inf,
    what is negative or NaN gives NaN. Source: Marsaglia and Tsang 2000; below 1 a variable of
    shape a + 1 times the power 1 / a of a uniform one.
    """
    shape = a.reshape(-1).astype(np.float64)
    out = np.where(shape == np.inf, np.inf, np.where(shape == 0, -np.inf, np.nan))
    valid = np.flatnonzero((shape > 0) & (shape < np.inf))
    d = shape + np.where(shape < 1, 1, 0) - 1 / 3

    def attempt(words: np.ndarray, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = np.sqrt(-2 * np.log(_wide(words[0], words[1])))
        z = radius * np.cos(2 * math.pi * _uniform(words[2]))
        own = d[elements]
        log = 3 * np.log1p(z / np.sqrt(9 * own))  # NaN, and so refused, below -1
        limit = 0.5 * z * z + own * (1 - np.exp(log) + log)
        return np.log(own) + log, np.log(_uniform(words[3])) < limit

    _reject(attempt, out, valid, seed, offset)
    low = valid[np.flatnonzero(shape[valid] < 1)]
    words = philox_at(_counters(offset, low), _BOOST, seed)
    out[low] += np.log(_wide(words[0], words[1])) / shape[low]
    return out.reshape(a.shape).astype(a.dtype, copy=False)


def _search(
    out: np.ndarray,
    elements: np.ndarray,
    first: np.ndarray,
    following: Callable[[np.ndarray, int], np.ndarray],
    seed: int,
    offset: int,
) -> None:
    """The smallest count whose probabilities, `first` and on, add up to more than a uniform."""
    words = philox_at(_counters(offset, elements), 0, seed)
    rest = _wide(words[0], words[1]) - first
    probability, count = first, np.zeros_like(first)
    for k in range(1, _MOST):
        more = rest >= 0
        if not host(more.any()):
            break
        probability = probability * following(elements, k)
        count += more
        rest = np.where(more, rest - probability, rest)
    out[elements] = count


def poisson(rate: np.ndarray, seed: int, offset: int) -> np.ndarray:
    """Poisson variables of mean `rate` >= 0, in its shape and dtype; NaN gives NaN.

    Source: up to 10 by adding up probabilities, beyond by PTRS (Hoermann 1993, "The transformed
    rejection method for generating Poisson random variables").
    """
    mean = rate.reshape(-1).astype(np.float64)
    out = np.where(mean < np.inf, 0.0, mean)
    small = np.flatnonzero((mean > 0) & (mean <= _SMALL))
    _search(out, small, np.exp(-mean[small]), lambda here, k: mean[here] / k, seed, offset)
    log = np.log(mean)
    b = 0.931 + 2.53 * np.sqrt(mean)
    a = -0.059 + 0.02483 * b

    def attempt(words: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = _wide(words[0], words[1]) - 0.5, _wide(words[2], words[3])
        mu, slope, width = mean[here], b[here], a[here]
        edge = 0.5 - np.abs(u)
        k = np.floor((2 * width / edge + slope) * u + mu + 0.43)
        squeezed = (edge >= 0.07) & (v <= 0.9277 - 3.6224 / (slope - 2))
        left = np.log(v * (1.1239 + 1.1328 / (slope - 3.4)) / (width / (edge * edge) + slope))
        within = (k >= 0) & ((edge >= 0.013) | (v <= edge))
        return k, squeezed | (within & (left <= k * log[here] - mu - lgamma(k + 1)))

    _reject(attempt, out, np.flatnonzero((mean > _SMALL) & (mean < np.inf)), seed, offset)
    return out.reshape(rate.shape).astype(rate.dtype, copy=False)


def binomial(n: np.ndarray, p: np.ndarray, seed: int, offset: int) -> np.ndarray:
    """Successes in n trials of probability p, of one shape and dtype; NaN gives NaN.

    n: whole numbers >= 0; 0 <= p <= 1. Source: where the rarer outcome's mean is at most 10 by
    adding up probabilities, beyond by BTRS (Hoermann 1993, "The generation of binomial random
    variates").
    """
    count, chance = n.reshape(-1).astype(np.float64), p.reshape(-1).astype(np.float64)
    flipped = chance > 0.5
    chance = np.where(flipped, 1 - chance, chance)
    odds = chance / (1 - chance)
    mean = count * chance
    out = np.where(np.isnan(mean), mean, 0.0)
    small = np.flatnonzero((mean > 0) & (mean <= _SMALL))
    first = np.exp(count[small] * np.log1p(-chance[small]))
    _search(out, small, first, lambda here, k: odds[here] * (count[here] - k + 1) / k, seed, offset)
    root = np.sqrt(mean * (1 - chance))
    b = 1.15 + 2.53 * root
    a = -0.0873 + 0.0248 * b + 0.01 * chance
    mode = np.floor((count + 1) * chance)
    peak = lgamma(mode + 1) + lgamma(count - mode + 1)

    def attempt(words: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = _wide(words[0], words[1]) - 0.5, _wide(words[2], words[3])
        slope, width, total = b[here], a[here], count[here]
        edge = 0.5 - np.abs(u)
        k = np.floor((2 * width / edge + slope) * u + mean[here] + 0.5)
        squeezed = (edge >= 0.07) & (v <= 0.92 - 4.2 / slope)
        scaled = v * (2.83 + 5.1 / slope) * root[here] / (width / (edge * edge) + slope)
        right = peak[here] - lgamma(k + 1) - lgamma(total - k + 1)
        right += (k - mode[here]) * np.log(odds[here])
        within = (k >= 0) & (k <= total)
        return k, within & (squeezed | (np.log(scaled) <= right))

    _reject(attempt, out, np.flatnonzero(mean > _SMALL), seed, offset)
    out = np.where(flipped, count - out, out)
    return out.reshape(n.shape).astype(n.dtype, copy=False)

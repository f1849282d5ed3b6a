"""An interpolated character trigram: what a language model has to beat."""

from __future__ import annotations

import numpy as np

from minidl.errors import ArgumentError

_ORDERS = 3


class CharTrigram:
    """Mixture of the trigram, bigram, unigram and uniform distributions with fixed weights.

    Counts come from `ids`: (N,) integers in [0, vocab). The weights are fitted by expectation
    maximisation on the last `held_out` share of `ids` with the counts of the part before, and the
    counts then taken from all of it. Source: Jelinek and Mercer, "Interpolated estimation of
    Markov source parameters from sparse data", 1980.
    """

    def __init__(
        self, ids: np.ndarray, vocab: int, held_out: float = 0.1, iterations: int = 100
    ) -> None:
        ids = np.asarray(ids, dtype=np.int64)
        split = len(ids) - int(held_out * len(ids))
        if not _ORDERS <= split < len(ids):
            raise ArgumentError(
                "too few characters to fit", operator="CharTrigram", got=f"{len(ids)}"
            )
        self.vocab = vocab
        self._count(ids[:split])
        parts = self._parts(ids, split)
        weights = np.full(len(parts), 1 / len(parts))
        for _ in range(iterations):
            share = weights[:, None] * parts
            # One pseudo-count each: no weight is zero, so no probability is.
            expected = (share / share.sum(0)).sum(1) + 1
            weights = expected / expected.sum()
        self.weights = weights
        self._count(ids)

    def probabilities(self, ids: np.ndarray, start: int) -> np.ndarray:
        """Probability of each of `ids[start:]` after what stands before it; start >= 2."""
        return self.weights @ self._parts(np.asarray(ids, dtype=np.int64), start)

    def loss(self, ids: np.ndarray, start: int) -> float:
        """Mean of -log p over `ids[start:]`, in nats per character; start >= 2."""
        return float(-np.log(self.probabilities(ids, start)).mean())

    def _count(self, ids: np.ndarray) -> None:
        """Count the n-grams, and the contexts of those that something follows."""
        self._grams = []
        for order in range(1, _ORDERS + 1):
            codes = self._codes(ids, order)
            keys, counts = np.unique(codes, return_counts=True)
            contexts, totals = np.unique(codes // self.vocab, return_counts=True)
            self._grams.append((keys, counts, contexts, totals))

    def _codes(self, ids: np.ndarray, order: int) -> np.ndarray:
        """One number for every n-gram, in the order of their last characters."""
        codes = np.zeros(len(ids) - order + 1, dtype=np.int64)
        for place in range(order):
            codes = codes * self.vocab + ids[place : place + len(codes)]
        return codes

    def _parts(self, ids: np.ndarray, start: int) -> np.ndarray:
        """Conditional probability of `ids[start:]` by each order: (4, len(ids) - start)."""
        if not _ORDERS - 1 <= start < len(ids):
            raise ArgumentError(
                "start must leave two characters of context and one to predict",
                operator="CharTrigram",
                got=f"start={start}, {len(ids)} characters",
            )
        parts = [np.full(len(ids) - start, 1 / self.vocab)]
        for order, (keys, counts, contexts, totals) in enumerate(self._grams, 1):
            codes = self._codes(ids[start - order + 1 :], order)
            seen = _look_up(contexts, totals, codes // self.vocab)
            parts.append(_look_up(keys, counts, codes) / np.maximum(seen, 1))
        return np.stack(parts[::-1])


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where there is none; `keys` ascend."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)

"""Random numbers of samples: a function of (seed, epoch, place), whoever reads the sample.

For each sample of a pass three generators start from such a key: minidl's default one, Python's
`random` and NumPy's global one. So augmentation draws the same with any number of workers. In the
process of the caller their states are put back after each batch: reading data leaves them alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minidl.ops as ops


def start(seed: int, epoch: int, place: int) -> None:
    """Start all three generators from a key of integers, none negative."""
    import random

    words = np.random.SeedSequence([seed, epoch, place]).generate_state(4)
    whole = int.from_bytes(words.tobytes(), "little")
    ops.default_generator.manual_seed(whole)
    random.seed(whole)
    np.random.seed(words)


class Apart:
    """Blocks with states of their own, which the caller's are put back after.

    `kept`: a block goes on where the one before has ended, else each begins with the caller's.
    """

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self._own: Any = None
        self._outer: Any = None

    def __enter__(self) -> None:
        self._outer = _states()
        if self._own is not None:
            _restore(self._own)

    def __exit__(self, *error: Any) -> None:
        if self._kept:
            self._own = _states()
        _restore(self._outer)


def _states() -> tuple[Any, Any, Any]:
    import random

    return ops.get_rng_state(), random.getstate(), np.random.get_state()


def _restore(states: tuple[Any, Any, Any]) -> None:
    import random

    ops.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])

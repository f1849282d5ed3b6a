"""Random numbers from counters: generators, and the operators that draw.

Philox4x32-10 (Salmon et al. 2011): a draw is a function of (seed, offset), so a gradient or a
recomputation draws the same numbers again without keeping them.
"""

from __future__ import annotations

import secrets
import threading
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.errors import ArgumentError, DTypeError
from minidl.ops.arithmetic import mul
from minidl.tensor import Tensor, as_device


class Generator:
    """A stream of random numbers: a seed and how many counters were used. Thread-safe."""

    def __init__(self, device: Any = "cpu") -> None:
        self.device = as_device(device)
        self._lock = threading.Lock()
        self._seed = 67280421310721  # the seed of an unseeded generator, as in PyTorch
        self._offset = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` (any integer, taken modulo 2**64)."""
        with self._lock:
            self._seed, self._offset = int(seed) % 2**64, 0
        return self

    def seed(self) -> int:
        """Start the stream of a seed from the operating system; returns it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the stream was started with."""
        return self._seed

    def get_state(self) -> Tensor:
        """Seed and position, as a uint8 tensor of 16 elements."""
        with self._lock:
            words = np.array([self._seed, self._offset], "<u8")
        return constant(words.view(np.uint8).copy())

    def set_state(self, state: Tensor) -> Generator:
        """Go back to a position that `get_state` returned."""
        array = state.array if type(state) is Tensor else None
        if array is None or array.dtype != np.uint8 or array.shape != (16,):
            raise ArgumentError("a generator's state is a uint8 tensor of shape (16,)")
        words = np.ascontiguousarray(array).view("<u8")
        with self._lock:
            self._seed, self._offset = int(words[0]), int(words[1])
        return self

    def reserve(self, words: int) -> tuple[int, int]:
        """Take counters for that many 32-bit words; returns (seed, offset) for the kernels."""
        with self._lock:
            offset = self._offset
            self._offset += -(-words // 4)
            return self._seed, offset


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def drawn(generator: Generator | None, words: int) -> tuple[int, int]:
    """(seed, offset) of a draw of that many words from `generator` or the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise DTypeError("generator must be a minidl.Generator", got=type(generator).__name__)
    return (generator or default_generator).reserve(words)


@op
def _dropout(k: Any, input: Array, p: float, seed: int, offset: int) -> Any:
    keep = k.bernoulli(input.shape, 1 - p, seed, offset)
    return k.mul(input, keep * input.dtype.type(1 / (1 - p) if p < 1 else 0))


@_dropout.gradient
def _(g: Tensor, p: float, seed: int, offset: int) -> Any:
    return _dropout(g, p, seed, offset)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p), in training.

    The mask is drawn again for the gradient instead of being kept (Srivastava et al. 2014).
    """
    if not 0 <= p <= 1:
        raise ArgumentError("p must be a probability", operator="dropout", got=repr(p))
    if not training or not p:
        return input
    out = _dropout(input, p, *drawn(generator, input.array.size))
    return input.copy_(out) if inplace else out  # type: ignore[attr-defined]

"""Random numbers from counters: generators, and the operators that draw.

Philox4x32-10 (Salmon et al. 2011): a draw is a function of (seed, offset), the same for any
thread count and layout; a generator is a seed and the position in its stream.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, in_place, op, writable, write
from minidl.backends import ARRAY_TYPES, cuda, host, moved
from minidl.dtypes import (
    BOOL,
    FLOAT,
    DType,
    bfloat16,
    dtype_of,
    finfo,
    float16,
    float64,
    get_default_dtype,
    iinfo,
    int64,
)
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.convert import cast
from minidl.ops.creation import empty, named, sizes
from minidl.ops.method import check_tensor, method
from minidl.tensor import Tensor, as_device

__all__ = [
    "Generator",
    "bernoulli",
    "default_generator",
    "dropout",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "multinomial",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
]


class Generator:
    """A stream of random numbers: a seed and how many counters were used. Thread-safe."""

    watcher: Any = None  # a function that is told of every draw, or None

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
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
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
            rule = "a generator's state is a uint8 tensor of shape (16,)"
            raise ArgumentError(rule, operator="set_state")
        words = np.ascontiguousarray(host(array)).view("<u8")
        with self._lock:
            self._seed, self._offset = int(words[0]), int(words[1])
        return self

    def __reduce__(self) -> tuple[Any, tuple[Tensor]]:
        return _restored, (self.get_state(),)

    def reserve(self, words: int) -> tuple[int, int]:
        """Take counters for that many 32-bit words; returns (seed, offset) for the kernels."""
        if Generator.watcher is not None:
            Generator.watcher()
        with self._lock:
            offset = self._offset
            self._offset += -(-words // 4)
            return self._seed, offset


def _restored(state: Tensor) -> Generator:
    return Generator().set_state(state)


default_generator = Generator()
default_generator.seed()  # runs differ until `manual_seed` is called, as in PyTorch
cuda.register_generator(default_generator)  # its numbers are fresh in every replay of a graph


def manual_seed(seed: int) -> Generator:
    """Seed the default generator."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """State of the default generator, as a uint8 tensor."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back into a state that `get_rng_state` returned."""
    default_generator.set_state(new_state)


def drawn(generator: Generator | None, words: int) -> tuple[int, int]:
    """(seed, offset) of a draw of that many words from `generator` or the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise DTypeError("generator must be a minidl.Generator", got=type(generator).__name__)
    return (generator or default_generator).reserve(words)


# ---------------------------------------------------------------- draws


def _count(size: tuple[int, ...]) -> int:
    if any(n < 0 for n in size):
        raise ShapeError("sizes must not be negative", got=str(size))
    return math.prod(size)


def _real(dtype: Any, name: str) -> DType:
    """The dtype to draw in; the default one for None."""
    wanted = get_default_dtype() if dtype is None else dtype_of(dtype)
    if wanted.kind != FLOAT:
        raise DTypeError("needs a floating point dtype", operator=name, got=repr(wanted))
    return wanted


@op(nondiff=True)
def _rand(
    k: Any, size: tuple, dtype: DType, low: Any, high: Any, generator: Any, device: Any
) -> Any:
    width = 2 if dtype is float64 else 1
    seed, offset = drawn(generator, _count(size) * width)
    out = k.uniform(size, np.float64 if dtype is float64 else np.float32, seed, offset)
    bits = {float16: 11, bfloat16: 8}.get(dtype)
    if bits:  # cut, not rounded, so that 1 is never drawn
        k.floor(k.mul(out, 2.0**bits, out=out), out=out)
        k.mul(out, 2.0**-bits, out=out)
    if (low, high) != (0, 1):
        k.add(k.mul(out, high - low, out=out), low, out=out)
    return out.astype(dtype.numpy, copy=False)


@op(nondiff=True)
def _randn(k: Any, size: tuple, dtype: DType, generator: Any, device: Any) -> Any:
    pairs = -(-_count(size) // 2)
    seed, offset = drawn(generator, pairs * (4 if dtype is float64 else 2))
    wide = np.float64 if dtype is float64 else np.float32
    return k.normal(size, wide, seed, offset).astype(dtype.numpy, copy=False)


@op(nondiff=True)
def _randint(
    k: Any, low: int, high: int, size: tuple, dtype: DType, generator: Any, device: Any
) -> Any:
    if low >= high:
        raise ArgumentError("low must be less than high", got=f"{low}, {high}")
    least, most = (0, 1) if dtype.kind == BOOL else _limits(dtype)
    if low < least or high - 1 > most:
        raise ArgumentError(f"{dtype.name} holds {least} to {most}", got=f"{low}, {high}")
    seed, offset = drawn(generator, 2 * _count(size))
    return k.randint(low, high, size, seed, offset).astype(dtype.numpy, copy=False)


def _limits(dtype: DType) -> tuple[Any, Any]:
    limits = finfo(dtype) if dtype.kind == FLOAT else iinfo(dtype)
    return limits.min, limits.max


@op(nondiff=True)
def _randperm(k: Any, n: int, dtype: DType, generator: Any, device: Any) -> Any:
    if n < 0:
        raise ArgumentError("n must not be negative", got=repr(n))
    return k.permutation(n, *drawn(generator, 2 * n)).astype(dtype.numpy, copy=False)


def _whole(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise DTypeError("needs an integer", operator=name, got=repr(value)) from None


# ---------------------------------------------------------------- new tensors


def rand(
    *args: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the sizes `args` (or `size`), uniform on [0, 1)."""
    where = as_device(device)
    out = _rand(named(args, size, "rand"), _real(dtype, "rand"), 0, 1, generator, where)
    return out.requires_grad_(requires_grad)


def randn(
    *args: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the sizes `args` (or `size`) from the standard normal distribution."""
    where = as_device(device)
    out = _randn(named(args, size, "randn"), _real(dtype, "randn"), generator, where)
    return out.requires_grad_(requires_grad)


def randint(
    low: int = 0,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers of [low, high), int64 by default: `randint(high, size)` or `(low, high, size)`."""
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    where = as_device(device)
    if not isinstance(size, list | tuple):
        raise ArgumentError("size must be a tuple", operator="randint", got=repr(size))
    wanted = int64 if dtype is None else dtype_of(dtype)
    limits = _whole(low, "randint"), _whole(high, "randint")
    out = _randint(*limits, sizes((size,), "randint"), wanted, generator, where)
    return out.requires_grad_(requires_grad)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The integers 0 .. n - 1 in random order, int64 by default: (n,)."""
    where = as_device(device)
    wanted = int64 if dtype is None else dtype_of(dtype)
    out = _randperm(_whole(n, "randperm"), wanted, generator, where)
    return out.requires_grad_(requires_grad)


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`rand` in the shape and dtype of `input`."""
    check_tensor("rand_like", "input", input)
    return rand(input.shape, generator=generator, dtype=dtype or input.dtype,
                device=device or input.device,
                requires_grad=requires_grad)  # fmt: skip


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randn` in the shape and dtype of `input`."""
    check_tensor("randn_like", "input", input)
    return randn(input.shape, generator=generator, dtype=dtype or input.dtype,
                device=device or input.device,
                 requires_grad=requires_grad)  # fmt: skip


def randint_like(
    input: Tensor,
    low: int = 0,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randint` in the shape and dtype of `input`: `(input, high)` or `(input, low, high)`."""
    check_tensor("randint_like", "input", input)
    return randint(low, high, input.shape, generator=generator, dtype=dtype or input.dtype,
                   device=device or input.device, requires_grad=requires_grad)  # fmt: skip


# ---------------------------------------------------------------- draws that depend on tensors


@op(nondiff=True)
def _normal(k: Any, mean: Array, std: Array, generator: Any) -> Any:
    dtype = mean.dtype if type(mean) in ARRAY_TYPES else std.dtype
    if dtype.kind != "f":
        raise DTypeError("mean and std must be floating point")
    k.refuse(k.lt(std, 0), ArgumentError("std must not be negative"))
    shape = np.broadcast_shapes(*[x.shape for x in (mean, std) if type(x) in ARRAY_TYPES])
    pairs = -(-math.prod(shape) // 2)
    seed, offset = drawn(generator, pairs * (4 if dtype == np.float64 else 2))
    return k.add(k.mul(k.normal(shape, dtype, seed, offset), std), mean)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normally distributed numbers: one per element of `mean` and `std` (broadcast), or `size`.

    mean, std: Tensors or floats; with two floats `size` is needed. A draw has no gradient.
    """
    if type(mean) is Tensor or type(std) is Tensor:
        if size is not None or dtype is not None:
            raise ArgumentError("size and dtype go with two floats", operator="normal")
        return _normal(mean, std, generator)
    if size is None:
        raise ArgumentError("two floats need a size", operator="normal")
    shape = sizes((size,), "normal")
    out = empty(shape, dtype=_real(dtype, "normal"), device=device)
    return normal_(out, mean, std, generator=generator).requires_grad_(requires_grad)


def _improbable(k: Any, p: Array) -> Any:
    """What is no probability, NaN included."""
    return k.logical_not(k.logical_and(k.ge(p, 0), k.le(p, 1)))


@op(nondiff=True)
def _bernoulli(k: Any, input: Array, generator: Any) -> Any:
    if input.dtype.kind != "f":
        raise DTypeError("probabilities must be floating point")
    k.refuse(_improbable(k, input), ArgumentError("probabilities must lie in [0, 1]"))
    hits = k.bernoulli(input.shape, input, *drawn(generator, input.size))
    return hits.astype(input.dtype)


@method("bernoulli")
def bernoulli(
    input: Tensor, p: float | None = None, *, generator: Generator | None = None
) -> Tensor:
    """1 with the probability that each element says (or `p`, in the shape of `input`), else 0."""
    check_tensor("bernoulli", "input", input)
    if p is not None:
        out = empty(input.shape, dtype=input.dtype, device=input.device)
        return bernoulli_(out, p, generator=generator)
    return _bernoulli(input, generator)


@method("multinomial")
@op(nondiff=True)
def multinomial(
    k: Any,
    input: Array,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Any = None,
) -> Any:
    """Categories (int64) drawn with probabilities proportional to the rows of `input`.

    input (..., C) of one or two axes, not negative, finite, rows with a positive sum
    -> (..., num_samples). Without replacement a row needs num_samples positive entries.
    """
    if input.ndim not in (1, 2) or not input.shape[-1]:
        raise ShapeError("input needs one or two axes and one category or more")
    if input.dtype.kind != "f":
        raise DTypeError("input must be floating point")
    if num_samples < 1:
        raise ArgumentError("num_samples must be positive", got=repr(num_samples))
    rule = ArgumentError("rows must be finite, >= 0 and have a positive sum")
    k.refuse(k.logical_not(k.logical_and(k.isfinite(input), k.ge(input, 0))), rule)
    k.refuse(k.logical_not(k.any(input, axis=-1)), rule)
    if not replacement:
        few = ArgumentError(f"fewer than num_samples={num_samples} categories are possible")
        k.refuse(k.lt(k.count_nonzero(input, axis=-1), num_samples), few)
    rows = math.prod(input.shape[:-1])
    words = 2 * rows * (num_samples if replacement else input.shape[-1])
    return k.multinomial(input, num_samples, replacement, *drawn(generator, words))


# ---------------------------------------------------------------- in place


def _fill(name: str, input: Tensor, draw: Any) -> Tensor:
    """Write the tensor that `draw()` makes into `input`."""
    recording = writable(name, input)
    write(name, input, draw(), recording)
    return input


def _uniform(input: Tensor, low: float, high: float, generator: Generator | None) -> Tensor:
    return _rand(input.shape, input.dtype, low, high, generator, input.device)


def _gaussian(input: Tensor, generator: Generator | None) -> Tensor:
    return _randn(input.shape, input.dtype, generator, input.device)


@method("uniform_")
def uniform_(
    input: Tensor, from_: float = 0, to: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers uniform on [from_, to)."""
    if not from_ <= to:
        raise ArgumentError("from_ must not exceed to", operator="uniform_", got=f"{from_}, {to}")
    _real(input.dtype, "uniform_")
    return _fill("uniform_", input, lambda: _uniform(input, from_, to, generator))


@method("normal_")
def normal_(
    input: Tensor, mean: float = 0, std: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """Fill with normally distributed numbers."""
    if not std >= 0:
        raise ArgumentError("std must not be negative", operator="normal_", got=repr(std))
    _real(input.dtype, "normal_")

    def draw() -> Tensor:
        out = _gaussian(input, generator)
        return out if (mean, std) == (0, 1) else out.detach() * std + mean

    return _fill("normal_", input, draw)


@method("exponential_")
def exponential_(input: Tensor, lambd: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponentially distributed numbers of mean 1 / lambd."""
    if not lambd > 0:
        raise ArgumentError("lambd must be positive", operator="exponential_", got=repr(lambd))
    _real(input.dtype, "exponential_")
    return _fill(
        "exponential_",
        input,
        lambda: _exponential(_uniform(input, 0, 1, generator), lambd),
    )


@method("log_normal_")
def log_normal_(
    input: Tensor, mean: float = 1, std: float = 2, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers whose logarithm is normal with `mean` and `std`."""
    if not std > 0:
        raise ArgumentError("std must be positive", operator="log_normal_", got=repr(std))
    _real(input.dtype, "log_normal_")
    return _fill("log_normal_", input,
                 lambda: (_gaussian(input, generator).detach() * std + mean).exp())  # type: ignore[attr-defined] # fmt: skip


@method("cauchy_")
def cauchy_(
    input: Tensor, median: float = 0, sigma: float = 1, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers of Cauchy's distribution: median, and half its width at half height."""
    if not sigma > 0:
        raise ArgumentError("sigma must be positive", operator="cauchy_", got=repr(sigma))
    _real(input.dtype, "cauchy_")

    def draw() -> Tensor:
        return _cauchy(_uniform(input, 0, 1, generator), median, sigma)

    return _fill("cauchy_", input, draw)


@op(nondiff=True)
def _cauchy(k: Any, input: Array, median: float, sigma: float) -> Any:
    return k.add(k.mul(k.tan(k.mul(k.sub(input, 0.5), math.pi)), sigma), median)


@method("geometric_")
def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with numbers of trials up to the first success, 1, 2, ..., each of probability `p`."""
    if not 0 < p < 1:
        raise ArgumentError("p must lie between 0 and 1", operator="geometric_", got=repr(p))
    _real(input.dtype, "geometric_")
    rate = -math.log1p(-p)
    return _fill("geometric_", input,
                 lambda: _geometric(_uniform(input, 0, 1, generator), rate))  # fmt: skip


@op(nondiff=True)
def _geometric(k: Any, input: Array, rate: float) -> Any:
    return k.maximum(k.ceil(k.div(k.log1p(k.neg(input)), -rate)), 1)


@op(nondiff=True)
def _exponential(k: Any, input: Array, lambd: float) -> Any:
    return k.div(k.log1p(k.neg(input)), -lambd)


@method("random_")
def random_(
    input: Tensor,
    from_: int | None = None,
    to: int | None = None,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Fill with integers of [from_, to): `random_()`, `random_(to)` or `random_(from_, to)`.

    Without bounds: from 0 to the largest that the dtype holds (floats: counts without gaps).
    """
    dtype = input.dtype
    if from_ is None:
        low, high = 0, to
    else:
        low, high = (0, from_) if to is None else (from_, to)
    if high is None:
        digits = (
            {2: 8 if dtype is bfloat16 else 11, 4: 24, 8: 53}[dtype.itemsize]
            if (dtype.kind == FLOAT)
            else 0
        )
        high = 2**digits + 1 if digits else (1 if dtype.kind == BOOL else iinfo(dtype).max) + 1
    return _fill(
        "random_", input, lambda: _randint(low, high, input.shape, dtype, generator, input.device)
    )


@method("bernoulli_")
def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fill with 1 with probability `p` (float or a Tensor that broadcasts), else 0."""
    where = input.device
    values = moved(p.array, where) if type(p) is Tensor else p

    def draw() -> Tensor:
        return cast(_bernoulli_(input.shape, values, generator, where), input.dtype)

    return _fill("bernoulli_", input, draw)


@op(nondiff=True)
def _bernoulli_(k: Any, size: tuple, p: Any, generator: Any, device: Any) -> Any:
    rule = "probabilities must lie in [0, 1]"
    if type(p) in ARRAY_TYPES:
        shown = repr(p) if isinstance(p, np.ndarray) else None  # a GPU's are not read
        k.refuse(_improbable(k, p), ArgumentError(rule, got=shown))
    elif not 0 <= p <= 1:
        raise ArgumentError(rule, got=repr(p))
    return k.bernoulli(size, p, *drawn(generator, _count(size)))


# ---------------------------------------------------------------- dropout


@op
def _dropout(k: Any, input: Array, p: float, seed: int, offset: int) -> Any:
    return k.dropout(input, p, seed, offset)


@_dropout.gradient
def _(g: Tensor, p: float, seed: int, offset: int) -> Any:
    return _dropout(g, p, seed, offset)  # the numbers once more: cheaper than what keeps them


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p), in training.

    Source: Srivastava et al., "Dropout", 2014.
    """
    if not 0 <= p <= 1:
        raise ArgumentError("p must be a probability", operator="dropout", got=repr(p))
    check_tensor("dropout", "input", input)
    if not training or not p:
        return input
    if input.dtype.kind != FLOAT:
        raise DTypeError("input must be floating point", operator="dropout", got=repr(input.dtype))
    seed, offset = drawn(generator, input.numel())
    return (_dropout_in_place if inplace else _dropout)(input, float(p), seed, offset)


_dropout_in_place = in_place("dropout_", _dropout)

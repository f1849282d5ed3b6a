"""Samplers: the order in which a loader reads the samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import minidl.ops as ops
from minidl.dtypes import float64
from minidl.errors import ArgumentError, ShapeError

T = TypeVar("T")


class Sampler(Generic[T]):
    """Base of samplers: subclasses define `__iter__`, which yields indices, and `__len__`."""

    def __iter__(self) -> Iterator[T]:
        """Yield the indices of one pass."""
        raise NotImplementedError(f"[{type(self).__name__}] a sampler must define __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, 2, ... to the end."""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one pass."""
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A new permutation on every pass, or independent draws with `replacement`.

    `num_samples` indices are drawn, by default as many as there are samples; without replacement
    more than that begins another permutation. `generator` is the source of randomness, by
    default the global one.
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise ArgumentError(
                "replacement must be a bool", operator="RandomSampler", got=repr(replacement)
            )
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            # as in PyTorch: a training loop that shuffles nothing would run and learn nothing
            raise ArgumentError(
                "the number of samples must be a positive integer",
                operator="RandomSampler",
                got=repr(self.num_samples),
            )

    @property
    def num_samples(self) -> int:
        """How many indices one pass yields."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one pass."""
        size, left = len(self.data_source), self.num_samples
        if left and not size:
            raise ArgumentError("there is nothing to draw from", operator="RandomSampler")
        if self.replacement:
            yield from ops.randint(0, size, (left,), generator=self.generator).tolist()
            return
        while left > 0:
            order = ops.randperm(size, generator=self.generator).tolist()
            yield from order[:left]
            left -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices, in a new random order on every pass."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one pass."""
        for place in ops.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[place]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` indices, drawn with probabilities proportional to `weights`.

    weights: one number per sample, which need not sum to one; without `replacement` every index
    comes at most once. Serves classes of unequal size: weight 1 / count of the sample's class.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Any = None,
    ) -> None:
        name = "WeightedRandomSampler"
        self.weights = ops.as_tensor(weights, dtype=float64)
        if self.weights.dim() != 1:
            raise ShapeError(
                "weights must have one axis", operator=name, got=str(tuple(self.weights.shape))
            )
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples <= 0:
            raise ArgumentError(
                "num_samples must be a positive integer", operator=name, got=repr(num_samples)
            )
        if not isinstance(replacement, bool):
            raise ArgumentError("replacement must be a bool", operator=name, got=repr(replacement))
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of one pass."""
        drawn = ops.multinomial(
            self.weights, self.num_samples, self.replacement, generator=self.generator
        )
        yield from drawn.tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of `sampler`; `drop_last` leaves out a shorter last one."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size <= 0:
            raise ArgumentError(
                "batch_size must be a positive integer",
                operator="BatchSampler",
                got=str(batch_size),
            )
        if not isinstance(drop_last, bool):
            raise ArgumentError(
                "drop_last must be a bool", operator="BatchSampler", got=repr(drop_last)
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one pass."""
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


class DistributedSampler(Sampler[int]):
    """The part of a data set that one of several processes reads; all parts are of one length.

    num_replicas, rank: how many processes, and which is this one; by default from the variables
    WORLD_SIZE and RANK. The order is one permutation per epoch, the same in all processes: call
    `set_epoch` before each pass. What does not divide is filled up from the start, or left out with
    `drop_last`.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        name = "DistributedSampler"
        if num_replicas is None or rank is None:
            missing = [v for v in ("WORLD_SIZE", "RANK") if v not in os.environ]
            if missing:
                raise ArgumentError(
                    f"give num_replicas and rank, or set {' and '.join(missing)}", operator=name
                )
        self.num_replicas = int(os.environ["WORLD_SIZE"]) if num_replicas is None else num_replicas
        self.rank = int(os.environ["RANK"]) if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ArgumentError(
                f"rank must lie in [0, {self.num_replicas})", operator=name, got=str(self.rank)
            )
        self.dataset = dataset
        self.epoch = 0
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        size, parts = len(dataset), self.num_replicas
        self.num_samples = size // parts if drop_last else -(-size // parts)
        self.total_size = self.num_samples * parts

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this process's part."""
        size = len(self.dataset)
        if self.shuffle:
            generator = ops.Generator().manual_seed(self.seed + self.epoch)
            order = ops.randperm(size, generator=generator).tolist()
        else:
            order = list(range(size))
        if size:
            order = (order * -(-self.total_size // size))[: self.total_size]
        return iter(order[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of the next pass."""
        self.epoch = epoch

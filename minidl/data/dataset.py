"""Data sets: anything with a length and an index, and the few ready-made ones."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from numbers import Real
from typing import Any, Generic, TypeVar

import minidl.ops as ops
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from minidl.tensor import Tensor

T = TypeVar("T")
BatchReader = Callable[[Sequence[int]], list[Tensor]]


class Dataset(Generic[T]):
    """Base of data sets: subclasses define `__getitem__(index)` and `__len__()`."""

    def __getitem__(self, index: Any) -> T:
        """Return one sample."""
        raise NotImplementedError(f"[{type(self).__name__}] a data set must define __getitem__")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        """Append another data set."""
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Base of streams: subclasses define `__iter__()`.

    In a loader with workers each worker reads a copy: split the stream by `get_worker_info()`.
    """

    def __iter__(self) -> Iterator[T]:
        """Yield the samples of one pass."""
        raise NotImplementedError(f"[{type(self).__name__}] a stream must define __iter__")

    def __add__(self, other: Any) -> Any:
        """Append another stream."""
        return ChainDataset([self, other])


class ChainDataset(IterableDataset[T]):
    """Several streams, one after the other."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = datasets

    def __iter__(self) -> Iterator[T]:
        """Yield the samples of all streams."""
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise DTypeError(
                    "all parts must be IterableDatasets",
                    operator="ChainDataset",
                    got=type(dataset).__name__,
                )
            yield from dataset

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)  # type: ignore[arg-type]


class StackDataset(Dataset[Any]):
    """Samples of several data sets side by side: tuples, or dictionaries for named ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ArgumentError(
                "needs data sets either in order or by name", operator="StackDataset"
            )
        self.datasets: Any = args or kwargs
        parts = list(args or kwargs.values())
        for part in parts:
            _need_length(part, "StackDataset")
        self._length = len(parts[0])
        lengths = [len(part) for part in parts]
        if len(set(lengths)) > 1:
            raise ArgumentError(
                "data sets must be of one length", operator="StackDataset", got=str(lengths)
            )

    def __getitem__(self, index: Any) -> Any:
        """Return one sample of each, as a tuple or a dictionary."""
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples along the first axis of one or more tensors."""

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ArgumentError("at least one tensor is needed", operator="TensorDataset")
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise DTypeError(
                    "samples must be rows of Tensors; wrap arrays with minidl.tensor(...)",
                    operator="TensorDataset",
                    got=type(tensor).__name__,
                )
        if any(t.dim() == 0 or t.shape[0] != tensors[0].shape[:1][0] for t in tensors):
            raise ShapeError(
                "first axes must be equal",
                operator="TensorDataset",
                got=", ".join(str(tuple(t.shape)) for t in tensors),
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        """Return one sample, a tuple of tensors."""
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


class ConcatDataset(Dataset[T]):
    """Several data sets, one after the other."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ArgumentError("at least one data set is needed", operator="ConcatDataset")
        for dataset in self.datasets:
            _need_length(dataset, "ConcatDataset")
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __getitem__(self, index: int) -> T:
        """Return one sample."""
        count = len(self)
        if not -count <= index < count:
            raise OutOfRangeError(
                f"index must lie in [{-count}, {count})", operator="ConcatDataset", got=str(index)
            )
        place = index % count
        number = bisect_right(self.cumulative_sizes, place)
        return self.datasets[number][place - (self.cumulative_sizes[number - 1] if number else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class Subset(Dataset[T]):
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        """Return one sample."""
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Any = None
) -> list[Subset[Any]]:
    """Split at random into non-overlapping subsets of the given lengths.

    Lengths that are fractions of one are rounded down and the rest is dealt out from the first
    subset on. Raises ArgumentError (a ValueError) if the lengths do not sum to that of `dataset`.
    """
    _need_length(dataset, "random_split")
    total = len(dataset)
    given, lengths = lengths, list(lengths) if isinstance(lengths, Iterable) else []
    if not lengths or not all(isinstance(length, Real) for length in lengths):
        raise ArgumentError(
            "lengths must be a list of sizes or fractions",
            operator="random_split",
            got=repr(given),
        )
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        if any(not 0 <= fraction <= 1 for fraction in lengths):
            raise ArgumentError(
                "fractions must lie in [0, 1]", operator="random_split", got=str(list(lengths))
            )
        counts = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
    else:
        # -1, which is refused below, for what is neither a fraction of one nor whole
        counts = [int(length) if float(length).is_integer() else -1 for length in lengths]
    if sum(counts) != total or min(counts) < 0:
        raise ArgumentError(
            f"lengths must sum to {total}", operator="random_split", got=str(list(lengths))
        )
    order = ops.randperm(total, generator=generator).tolist()
    splits, start = [], 0
    for count in counts:
        splits.append(Subset(dataset, order[start : start + count]))
        start += count
    return splits


def _need_length(dataset: Any, operator: str) -> None:
    if not hasattr(dataset, "__len__"):
        raise DTypeError("a data set needs __len__", operator=operator, got=type(dataset).__name__)


def batch_reader(dataset: Any) -> BatchReader | None:
    """Return a function that reads a whole batch with one index per tensor, or None.

    It exists where that gives what collating single samples would: for a TensorDataset, and
    for a Subset of one; subclasses may index in their own way and are read sample by sample.
    """
    if type(dataset) is TensorDataset:
        return lambda indices: _gather(dataset.tensors, indices)
    if type(dataset) is Subset:
        inner = batch_reader(dataset.dataset)
        if inner is not None:
            chosen = dataset.indices
            return lambda indices: inner([chosen[i] for i in indices])
    return None


def _gather(tensors: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    indices = list(indices)  # a batch sampler may yield arrays or tensors
    if not indices:
        return [tensor[:0] for tensor in tensors]
    index = ops.tensor(indices)
    return [tensor[index] for tensor in tensors]

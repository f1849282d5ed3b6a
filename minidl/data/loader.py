"""DataLoader: batches of a data set, read in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import batch_reader
from minidl.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from minidl.errors import ArgumentError, UnsupportedError

T = TypeVar("T")


class DataLoader(Generic[T]):
    """Iterates over `dataset` in batches; every `iter()` is a pass of its own.

    `shuffle` draws a new order per pass from `generator`; `sampler` and `batch_sampler` give the
    order instead. `collate_fn` makes a batch of a list of samples. `batch_size=None` yields the
    samples themselves. Worker processes do not exist yet: `num_workers` must be 0.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _refuse_workers(
            num_workers=num_workers,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
            multiprocessing_context=multiprocessing_context,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
        )
        if pin_memory or pin_memory_device:
            raise UnsupportedError(
                "pinned memory is not supported; use pin_memory=False", operator="DataLoader"
            )
        if not hasattr(dataset, "__getitem__"):
            raise UnsupportedError(
                "data sets without __getitem__ are not supported; read the stream into a list",
                operator="DataLoader",
                got=type(dataset).__name__,
            )
        if sampler is not None and shuffle:
            _refuse("shuffle must not be set together with sampler")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                _refuse("batch_sampler excludes batch_size, shuffle, sampler and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            _refuse("drop_last needs a batch_size")
        if sampler is None:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.collate_fn = collate_fn
        self.generator = generator
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one pass."""
        dataset, collate = self.dataset, self.collate_fn
        if self.batch_sampler is None:
            for index in self.sampler:
                yield collate(dataset[index])
            return
        read = batch_reader(dataset) if collate is default_collate else None
        for indices in self.batch_sampler:
            if read is not None:
                yield read(indices)
            else:
                yield collate([dataset[index] for index in indices])

    def __len__(self) -> int:
        """Return the number of batches of one pass."""
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]


def _refuse_workers(num_workers: int, **options: Any) -> None:
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ArgumentError(
            "num_workers must be an integer and not negative",
            operator="DataLoader",
            got=repr(num_workers),
        )
    if num_workers > 0:
        raise UnsupportedError(
            "worker processes are planned and not there yet; use num_workers=0",
            operator="DataLoader",
            got=str(num_workers),
        )
    for name, value in options.items():
        if value:
            _refuse(f"{name} needs num_workers > 0")


def _refuse(rule: str) -> None:
    raise ArgumentError(rule, operator="DataLoader")

"""DataLoader: batches of a data set, read in this process or by workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import minidl.ops as ops
from minidl.backends import cuda
from minidl.data import randomness
from minidl.data.collate import default_collate, default_convert, pinned
from minidl.data.dataset import IterableDataset
from minidl.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from minidl.data.worker import Job, Pool, Reader, WorkerPass
from minidl.errors import ArgumentError, UnsupportedError

T = TypeVar("T")


class DataLoader(Generic[T]):
    """Iterates over `dataset` in batches; every `iter()` is a pass of its own.

    `shuffle` draws a new order per pass from `generator`; `sampler` and `batch_sampler` give the
    order instead. `collate_fn` makes a batch of a list of samples. `batch_size=None` yields the
    samples themselves. An IterableDataset gives its own order.

    `num_workers` processes read ahead, `prefetch_factor` (2) batches each; they end with the pass
    unless `persistent_workers`. `multiprocessing_context` is a start method ("fork", the default on
    Linux, "spawn", "forkserver") or a context; a worker computes on one thread. `worker_init_fn`
    gets the worker's number. Random numbers of a sample depend on (seed, epoch, place in the pass)
    only, so that any number of workers gives equal batches: the seed is that of `generator` or of
    `minidl.manual_seed`, `epoch` counts the passes of this loader and may be set to go on after a
    checkpoint. (A loader made anew for each pass begins with epoch 0 each time.) Of an
    IterableDataset every worker reads its own copy, keyed by (seed, epoch, worker);
    `get_worker_info()` tells it which part is its own. Batches come in the order of the sampler, or
    as they are ready with `in_order=False`. Raises what a worker raised with the worker's
    traceback, and MinidlError for a worker that died or a batch that took longer than
    `timeout` seconds. With `pin_memory` batches lie in memory from which copies
    to a GPU are faster; where there is no GPU it changes nothing, and warns.
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
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        if num_workers == 0 and multiprocessing_context is not None:
            _refuse("multiprocessing_context needs num_workers > 0")
        if (pin_memory or pin_memory_device) and not cuda.is_available():
            warnings.warn(
                "[DataLoader] pin_memory changes nothing: there is no GPU here", stacklevel=2
            )
        iterable = isinstance(dataset, IterableDataset)
        if not iterable and not hasattr(dataset, "__getitem__"):
            raise UnsupportedError(
                "data sets need __getitem__; derive a stream from IterableDataset",
                operator="DataLoader",
                got=type(dataset).__name__,
            )
        if iterable and (shuffle or sampler is not None or batch_sampler is not None):
            _refuse("an IterableDataset has its own order: no shuffle, sampler or batch_sampler")
        if sampler is not None and shuffle:
            _refuse("shuffle must not be set together with sampler")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                _refuse("batch_sampler excludes batch_size, shuffle, sampler and drop_last")
            batch_size = None
        elif batch_size is None and drop_last:
            _refuse("drop_last needs a batch_size")
        if sampler is None and not iterable:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        if batch_sampler is None and batch_size is not None:
            # of a stream it only checks the size
            batch_sampler = BatchSampler(() if iterable else sampler, batch_size, drop_last)  # type: ignore[arg-type]
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.collate_fn = collate_fn
        self.generator = generator
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._pins = pin_memory and cuda.is_available()
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers else prefetch_factor
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.epoch = 0
        self._iterable = iterable
        self._idle: Any = None  # the pool of persistent workers between two passes

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one pass."""
        batches = self._batches()
        return map(pinned, batches) if self._pins else batches

    def _batches(self) -> Iterator[Any]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        seed = (self.generator or ops.default_generator).initial_seed()
        job = Job(
            self.dataset,
            self._iterable,
            self.collate_fn,
            self.batch_size,
            self.drop_last,
            self.worker_init_fn,
            self.num_workers,
            auto_collation=self.batch_sampler is not None,
        )
        if not self.num_workers:
            return self._read_here(job, seed, epoch)
        pool = self._idle or Pool(job, seed, self.multiprocessing_context, self.timeout)
        self._idle = None

        def done(broken: bool) -> None:
            if self.persistent_workers and not broken and self._idle is None:
                self._idle = pool
            else:
                pool.close()

        try:
            pool.begin(seed, epoch)
        except BaseException:
            pool.close()
            raise
        tasks = None if self._iterable else self._tasks()
        return WorkerPass(pool, tasks, self.prefetch_factor or 2, self.in_order, done)

    def _tasks(self) -> Iterator[tuple[Any, int]]:
        """The indices of each batch (or of each sample), and how many samples come before."""
        place = 0
        if self.batch_sampler is None:
            for place, index in enumerate(self.sampler or ()):
                yield index, place
            return
        for indices in self.batch_sampler:
            batch = list(indices)
            yield batch, place
            place += len(batch)

    def _read_here(self, job: Job, seed: int, epoch: int) -> Iterator[Any]:
        apart = randomness.Apart(kept=self._iterable)
        with apart:
            reader = Reader(job, seed, epoch, 0)
        if self._iterable:
            while True:
                with apart:
                    there, batch = reader.following()
                if not there:
                    return
                yield batch
        for indices, place in self._tasks():
            if reader.whole is not None:
                yield reader.whole(indices)
                continue
            with apart:
                batch = reader.read(indices, place)
            yield batch

    def __len__(self) -> int:
        """Return the number of batches of one pass; of a stream, by the length it has."""
        if self._iterable:
            count = len(self.dataset)
            if self.batch_size is None:
                return count
            return count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_idle": None}  # processes stay where they are


def _check_workers(
    num_workers: Any, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise ArgumentError(
            "num_workers must be an integer and not negative",
            operator="DataLoader",
            got=repr(num_workers),
        )
    if timeout < 0:
        _refuse("timeout must not be negative")
    if num_workers == 0:
        if timeout:
            _refuse("timeout needs num_workers > 0")
        if prefetch_factor is not None:
            _refuse("prefetch_factor needs num_workers > 0")
        if persistent_workers:
            _refuse("persistent_workers needs num_workers > 0")
    elif prefetch_factor is not None and prefetch_factor < 1:
        _refuse("prefetch_factor must be positive")


def _refuse(rule: str) -> None:
    raise ArgumentError(rule, operator="DataLoader")

"""Worker processes of a loader: what runs in them, and the pool that the loader talks to."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from minidl.backends import set_num_threads
from minidl.data import randomness, shared
from minidl.data.collate import default_collate
from minidl.data.dataset import batch_reader
from minidl.errors import ArgumentError, MinidlError

_GRACE = 0.3  # seconds that a worker has to end by itself before it is told to
_current: WorkerInfo | None = None


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker knows of itself: its number, how many there are, its seed, its data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


def get_worker_info() -> WorkerInfo | None:
    """The WorkerInfo of this process, or None where no loader's worker runs."""
    return _current


@dataclass(frozen=True)
class Job:
    """All that a worker needs to read batches."""

    dataset: Any
    iterable: bool
    collate: Callable[[Any], Any]
    batch_size: int | None
    drop_last: bool
    init: Callable[[int], None] | None
    count: int
    auto_collation: bool


class Reader:
    """Reads the batches of one pass, in a worker or in the process of the caller."""

    def __init__(self, job: Job, seed: int, epoch: int, number: int) -> None:
        self.job, self.seed, self.epoch = job, seed, epoch
        plain = job.auto_collation and job.collate is default_collate and not job.iterable
        self.whole = batch_reader(job.dataset) if plain else None  # draws nothing
        if job.iterable:
            randomness.start(seed, epoch, number)
            self.stream = iter(job.dataset)

    def read(self, indices: Any, place: int) -> Any:
        """The batch of these indices, or one sample; `place` counts samples from the start."""
        job = self.job
        if self.whole is not None:
            return self.whole(indices)
        if not job.auto_collation:
            randomness.start(self.seed, self.epoch, place)
            return job.collate(job.dataset[indices])
        samples = []
        for offset, index in enumerate(indices):
            randomness.start(self.seed, self.epoch, place + offset)
            samples.append(job.dataset[index])
        return job.collate(samples)

    def following(self) -> tuple[bool, Any]:
        """Whether the stream had another batch, and the batch."""
        job = self.job
        if not job.auto_collation:
            for sample in self.stream:
                return True, job.collate(sample)
            return False, None
        samples = []
        for sample in self.stream:
            samples.append(sample)
            if len(samples) == job.batch_size:
                return True, job.collate(samples)
        if samples and not job.drop_last:
            return True, job.collate(samples)
        return False, None


# ---------------------------------------------------------------- in the worker


def _main(job: Job, number: int, seed: int, link: Any, others: list[Any]) -> None:
    """Answer the tasks that come through `link` until it is closed."""
    global _current
    import multiprocessing
    import signal
    from multiprocessing.connection import wait

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:  # a fork has the ends of its brothers, who would never see them closed
        other.close()
    set_num_threads(1)
    from threadpoolctl import threadpool_limits

    parent: Any = multiprocessing.parent_process()
    _current = WorkerInfo(number, job.count, seed, job.dataset)
    with threadpool_limits(1):
        failed = None
        try:
            if job.init is not None:
                job.init(number)
        except Exception:
            failed = _Failure(number)
        reader: Reader | None = None
        told = True
        while told and wait([link, parent.sentinel]) and link.poll():
            try:
                kind, task, *rest = link.recv()
            except (EOFError, ConnectionResetError):
                return
            try:
                if failed is not None:
                    raise _Told
                if kind == "pass":
                    reader = Reader(job, rest[0], rest[1], number)
                    continue
                assert reader is not None  # the pool sends "pass" first
                if job.iterable:
                    there, batch = reader.following()
                    if not there:
                        link.send((task, "end", None))
                        continue
                else:
                    batch = reader.read(*rest)
                shared.send(link, task, batch)
            except _Told:
                told = kind == "pass" or _tell(link, task, failed)
            except Exception:
                failure = _Failure(number)
                if kind == "pass":
                    failed = failure
                else:
                    told = _tell(link, task, failure)


def _tell(link: Any, task: int, failure: _Failure | None) -> bool:
    """Report a failure; say whether there is somebody to hear it."""
    try:
        link.send((task, "failed", failure))
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


class _Told(Exception):
    """A failure of before that is told again."""


class _Failure:
    """An exception on its way to the parent: its class if that can travel, and its traceback."""

    def __init__(self, number: int) -> None:
        import traceback

        kind, error, _ = sys.exc_info()
        self.text = (
            f"[DataLoader] worker {number} (pid {os.getpid()}) failed:\n\n{traceback.format_exc()}"
        )
        self.kind: Any = kind
        self.key = isinstance(error, KeyError)
        try:
            pickle.dumps(kind)
        except Exception:
            self.kind = RuntimeError

    def raise_again(self) -> None:
        """Raise the class of the original with a message that holds the worker's traceback."""
        message: Any = _Readable(self.text) if self.key else self.text
        try:
            error = self.kind(message)
        except Exception:
            error = RuntimeError(self.text)
        raise error


class _Readable(str):
    """A message that KeyError shows as it is, instead of its repr."""

    def __repr__(self) -> str:
        return str(self)


# ---------------------------------------------------------------- in the parent


class Pool:
    """The workers of a loader, for one pass or for all that it makes."""

    def __init__(self, job: Job, seed: int, context: Any, timeout: float) -> None:
        self.timeout = timeout
        self.job = job
        self.workers: list[Any] = []
        self.links: list[Any] = []
        made = _context(context)
        try:
            for number in range(job.count):
                self._add(made, number, seed)
        except BaseException:
            self.close()
            raise

    def _add(self, context: Any, number: int, seed: int) -> None:
        from multiprocessing import Pipe

        ours, theirs = Pipe()
        forked = context.get_start_method() == "fork"
        others = [*self.links, ours] if forked else []
        worker = context.Process(
            target=_main,
            args=(self.job, number, seed, theirs, others),
            name=f"minidl-loader-{number}",
            daemon=True,
        )
        self.links.append(ours)
        try:
            with warnings.catch_warnings():
                # Python warns of any thread at a fork, such as BLAS's; the kernels' have ended
                warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
                worker.start()
        except AssertionError as error:  # multiprocessing's, of daemons
            raise ArgumentError(
                f"a worker cannot have workers: {error}", operator="DataLoader"
            ) from error
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"data set, collate_fn and worker_init_fn must be picklable for the start method "
                f"{context.get_start_method()!r}: {error}",
                operator="DataLoader",
            ) from error
        finally:
            theirs.close()
        self.workers.append(worker)

    def begin(self, seed: int, epoch: int) -> None:
        """Tell all workers that a pass begins."""
        for link in self.links:
            self._tell(link, ("pass", -1, seed, epoch))

    def ask(self, number: int, task: int, *rest: Any) -> None:
        """Give worker `number` a task."""
        self._tell(self.links[number], ("batch", task, *rest))

    def _tell(self, link: Any, message: Any) -> None:
        try:
            link.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._report(self.links.index(link))

    def answers(self, wanted: int | None) -> Iterator[tuple[int, int, str, Any]]:
        """Wait until there is an answer; yields (worker, task, kind, value).

        kind: "batch", "end" of the worker's stream, or "failed" with a _Failure. wanted: the worker
        whose answer is waited for, or None for any. Raises MinidlError for a worker that is gone
        and when the time is up.
        """
        from multiprocessing.connection import wait

        until = time.monotonic() + self.timeout if self.timeout else None
        while True:
            sentinels = {worker.sentinel: i for i, worker in enumerate(self.workers)}
            left = None if until is None else max(0.0, until - time.monotonic())
            ready: list[Any] = wait([*self.links, *sentinels], left)
            if not ready:
                raise MinidlError(
                    f"[DataLoader] no batch came within {self.timeout} s (timeout); "
                    f"waited for worker {'any' if wanted is None else wanted}"
                )
            seen = False
            for link in ready:
                if link in sentinels:
                    continue
                number = self.links.index(link)
                try:
                    message = link.recv()
                    task, kind, value = message
                    if isinstance(kind, bytes | int):
                        kind, value = "batch", shared.receive(link, message)
                except (EOFError, ConnectionResetError):
                    self._report(number)
                    return
                seen = True
                yield number, task, kind, value
            if seen:
                return
            for gone in ready:
                if gone in sentinels:
                    self._report(sentinels[gone])

    def _report(self, number: int) -> None:
        import signal

        worker = self.workers[number]
        worker.join(5)
        code = worker.exitcode
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        else:
            how = f"exited with code {code}"
        raise MinidlError(f"[DataLoader] worker {number} (pid {worker.pid}) {how}")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the workers: those that wait see their link closed, the others are told to."""
        for link in self.links:
            link.close()
        until = time.monotonic() + _GRACE
        for worker in self.workers:
            worker.join(max(0.0, until - time.monotonic()))
        for stop in (lambda w: w.terminate(), lambda w: w.kill()):
            for worker in self.workers:
                if worker.is_alive():
                    stop(worker)
            for worker in self.workers:
                worker.join(2)
        for worker in self.workers:
            if not worker.is_alive():
                worker.close()
        self.workers, self.links = [], []


def _context(context: Any) -> Any:
    """The multiprocessing context of a name; by default fork on Linux, spawn elsewhere."""
    import multiprocessing

    if context is None:
        context = "fork" if sys.platform == "linux" else "spawn"
    if not isinstance(context, str):
        return context
    try:
        return multiprocessing.get_context(context)
    except ValueError:
        raise ArgumentError(
            f"multiprocessing_context must be one of {multiprocessing.get_all_start_methods()}",
            operator="DataLoader",
            got=repr(context),
        ) from None


class WorkerPass:
    """The batches of one pass, read by a pool."""

    def __init__(
        self,
        pool: Pool,
        tasks: Iterable[tuple[Any, int]] | None,
        prefetch: int,
        in_order: bool,
        done: Callable[[bool], None],
    ) -> None:
        self._pool, self._done, self._in_order = pool, done, in_order
        self._tasks = None if tasks is None else iter(tasks)  # None: the workers' own streams
        self._lock = threading.Lock()
        self._sent = self._next = 0
        self._owner: dict[int, int] = {}  # open tasks, and who has them
        self._found: dict[int, tuple[str, Any]] = {}
        self._running = set(range(pool.job.count))
        self._turn = 0
        self._open = True
        try:
            for _ in range(prefetch * pool.job.count):
                self._send()
        except BaseException:
            self.close(broken=True)
            raise

    def _send(self) -> None:
        """Give the next task to the next worker in turn that has not ended."""
        if not self._running:
            return
        rest: Any = ()
        if self._tasks is not None:
            rest = next(self._tasks, None)
            if rest is None:
                return
        while self._turn % self._pool.job.count not in self._running:
            self._turn += 1
        number = self._turn % self._pool.job.count
        self._turn += 1
        self._pool.ask(number, self._sent, *rest)
        self._owner[self._sent] = number
        self._sent += 1

    def __iter__(self) -> WorkerPass:
        return self

    def __next__(self) -> Any:
        """The next batch."""
        if not self._open:
            raise StopIteration
        try:
            return self._following()
        except StopIteration:
            self.close()
            raise
        except BaseException:
            self.close(broken=True)
            raise

    def _following(self) -> Any:
        while True:
            task = self._ready()
            if task is not None:
                kind, value = self._found.pop(task)
                if task == self._next:
                    self._next += 1
                if kind == "failed":
                    value.raise_again()
                if kind == "end":
                    continue
                self._send()
                return value
            if not self._owner:
                raise StopIteration
            wanted = self._owner.get(self._next) if self._in_order else None
            for number, found, kind, value in self._pool.answers(wanted):
                del self._owner[found]
                if kind == "end" and number in self._running:
                    self._running.discard(number)
                    self._send()
                self._found[found] = (kind, value)

    def _ready(self) -> int | None:
        if not self._in_order:
            return next(iter(self._found), None)
        return self._next if self._next in self._found else None

    def close(self, broken: bool = False) -> None:
        """End the pass; its workers end too, or wait for the next one."""
        if self._open:
            self._open = False
            self._done(broken or bool(self._owner))

    def __del__(self) -> None:
        self.close(broken=True)

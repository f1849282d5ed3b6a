"""Loaders with worker processes: equal batches, and every way in which a process can fail."""

import gc
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.data import (
    ChainDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    StackDataset,
    TensorDataset,
    get_worker_info,
)
from minidl.errors import ArgumentError, MinidlError

ROOT = Path(__file__).parents[1]


def children() -> list[int]:
    """The processes that this one has started, less those that Python keeps for itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        if parent == os.getpid() and not re.search("resource_tracker|forkserver", command):
            found.append(int(folder.name))
    return found


@pytest.fixture(autouse=True)
def nothing_stays():
    """No process and no shared memory outlives a test."""
    before, shared = set(children()), set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    until = time.monotonic() + 5
    while set(children()) - before and time.monotonic() < until:
        time.sleep(0.02)
    assert set(children()) <= before
    mine = [name for name in os.listdir("/dev/shm") if "minidl" in name]
    assert not mine and set(os.listdir("/dev/shm")) - shared == set()


class Augmented(Dataset):
    """Samples that draw from every generator there is."""

    def __init__(self, size=23):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        noise = minidl.randn(3) + index
        return noise, np.random.rand(2), random.random(), index, f"sample {index}"


class Large(Augmented):
    """Samples that do not go through a pipe."""

    def __getitem__(self, index):
        return np.full((100, 100), index, np.float32), minidl.rand(50, 50)


Pair = namedtuple("Pair", "x y")


class Odd(Augmented):
    """Samples of all kinds of tensors and objects, which a collate function passes on."""

    def __getitem__(self, index):
        return {
            "half": minidl.full((2, 3), float(index)).bfloat16(),
            "scalar": minidl.tensor(index),
            "empty": minidl.zeros(0, 3),
            "turned": minidl.arange(6.0).view(2, 3).t(),
            "leaf": minidl.ones(2, requires_grad=True),
            "parameter": nn.Parameter(minidl.ones(2), requires_grad=False),
            "strided": np.arange(10)[::2],
            "bool": np.array([True, False]),
            "complex": np.array([1j]),
            "text": np.array(["a", "b"]),
            "object": Pair(index, [None, b"bytes", {1, 2}]),
        }


def keep(samples):
    return samples


def equal(a, b):
    if isinstance(a, minidl.Tensor):
        assert a.dtype is b.dtype and a.shape == b.shape
        assert (a.requires_grad, a.is_parameter) == (b.requires_grad, b.is_parameter)
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        equal(list(a.values()), list(b.values()))
    elif isinstance(a, list | tuple):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        assert a == b and type(a) is type(b)


def passes(dataset, workers, count=2, **options):
    minidl.manual_seed(5)
    loader = DataLoader(dataset, num_workers=workers, **options)
    return [list(loader) for _ in range(count)]


OPTIONS = [
    {"batch_size": 4},
    {"batch_size": 4, "shuffle": True, "drop_last": True},
    {"batch_size": None},
    {"batch_sampler": [[3, 1], [], [2, 2, 2], [0]], "collate_fn": keep},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "shuffled", "samples", "batches"])
def test_any_number_of_workers_gives_equal_batches(options):
    expected = passes(Augmented(), 0, **options)
    for workers in (1, 2):
        equal(expected, passes(Augmented(), workers, **options))
    equal(expected, passes(Augmented(), 2, persistent_workers=True, prefetch_factor=1, **options))
    first, second = expected
    drawn = [
        batch[0] if isinstance(batch, list | tuple) else batch for batch in (first[0], second[0])
    ]
    if options.get("batch_size"):
        assert not minidl.equal(*drawn)  # every epoch draws anew


def test_large_and_odd_batches():
    equal(passes(Large(), 0, 1, batch_size=5), passes(Large(), 2, 1, batch_size=5))
    options = {"batch_size": 3, "collate_fn": keep}
    equal(passes(Odd(7), 0, 1, **options), passes(Odd(7), 2, 1, **options))


def test_batches_may_be_written_and_outlive_the_loader():
    batches = passes(Large(), 2, 1, batch_size=8)[0]
    for array, drawn in batches:
        array.add_(1)
        drawn.mul_(2)
    assert batches[0][0][3].eq(4).all()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_start_methods(method):
    expected = passes(Augmented(6), 0, 1, batch_size=4)
    equal(expected, passes(Augmented(6), 1, 1, batch_size=4, multiprocessing_context=method))


def test_the_state_of_the_caller_is_left_alone():
    for workers in (0, 2):
        minidl.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        list(DataLoader(Augmented(), 4, num_workers=workers))
        found = minidl.rand(1).item(), random.random(), np.random.rand()
        minidl.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        assert found == (minidl.rand(1).item(), random.random(), np.random.rand())


def test_the_epoch_may_be_set():
    loader = DataLoader(Augmented(), 4, num_workers=1)
    minidl.manual_seed(2)
    _, second = list(loader), list(loader)
    other = DataLoader(Augmented(), 4)
    other.epoch = 1
    equal(second, list(other))


def test_tensor_data_sets_are_read_whole():
    data = TensorDataset(minidl.arange(10.0), minidl.arange(10))
    equal(passes(data, 0, batch_size=3), passes(data, 2, batch_size=3))


# ---------------------------------------------------------------- streams


class Stream(IterableDataset):
    """Numbers with noise; split among the workers if it is told to be."""

    def __init__(self, size=11, split=False):
        self.size, self.split = size, split

    def __iter__(self):
        info = get_worker_info()
        start, step = (info.id, info.num_workers) if info and self.split else (0, 1)
        for i in range(start, self.size, step):
            yield i, minidl.rand(2), random.random()

    def __len__(self):
        return self.size


def test_streams():
    for options in ({"batch_size": 4}, {"batch_size": 4, "drop_last": True}, {"batch_size": None}):
        expected = passes(Stream(), 0, **options)
        equal(expected, passes(Stream(), 1, **options))
        assert len(expected[0]) == len(DataLoader(Stream(), **options))
    both = passes(Stream(), 2, 1, batch_size=4)[0]
    assert sorted(i for batch in both for i in batch[0].tolist()) == sorted([*range(11)] * 2)
    split = passes(Stream(split=True), 3, 1, batch_size=2)[0]
    assert sorted(i for batch in split for i in batch[0].tolist()) == [*range(11)]
    assert [batch[0].tolist() for batch in split[:3]] == [[0, 3], [1, 4], [2, 5]]
    equal(
        passes(Stream(split=True), 2, batch_size=2),
        passes(Stream(split=True), 2, batch_size=2, persistent_workers=True),
    )
    with pytest.raises(ArgumentError, match="own order"):
        DataLoader(Stream(), shuffle=True)


def test_chains_and_stacks():
    chain = Stream(2) + Stream(3)
    assert isinstance(chain, ChainDataset) and len(chain) == 5
    assert [i for i, *_ in chain] == [0, 1, 0, 1, 2]
    with pytest.raises(TypeError, match="IterableDatasets"):
        list(ChainDataset([[1]]))
    data = TensorDataset(minidl.arange(3))
    assert StackDataset(data, [5, 6, 7])[1] == ((minidl.tensor(1),), 6)
    assert StackDataset(x=[1, 2], y=[3, 4])[1] == {"x": 2, "y": 4}
    assert len(StackDataset([1, 2], [3, 4])) == 2
    for wrong in (lambda: StackDataset(), lambda: StackDataset([1], x=[2])):
        with pytest.raises(ArgumentError):
            wrong()
    with pytest.raises(ArgumentError, match="one length"):
        StackDataset([1], [2, 3])


def test_what_a_worker_knows():
    class Told(Augmented):
        def __getitem__(self, index):
            info = get_worker_info()
            return (
                info.id,
                info.num_workers,
                info.seed,
                info.dataset is self,
                minidl.get_num_threads(),
            )

    minidl.manual_seed(9)
    for batch in DataLoader(Told(4), None, num_workers=2, collate_fn=keep):
        assert batch[1:] == (2, 9, True, 1)
    assert get_worker_info() is None


# ---------------------------------------------------------------- failures


class Faulty(Augmented):
    """Does `act` at sample 5."""

    def __init__(self, act, size=12):
        super().__init__(size)
        self.act = act

    def __getitem__(self, index):
        if index == 5:
            self.act()
        return index


def raise_value_error():
    raise ValueError("sample 5 is torn")


def raise_key_error():
    return {}["colour"]


class Picky(Exception):
    """An exception that a message alone cannot make."""

    def __init__(self, one, two):
        super().__init__(one, two)


def raise_picky():
    raise Picky(1, 2)


@contextmanager
def soon(seconds=5.0):
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


@pytest.mark.parametrize(
    ("act", "kind", "text"),
    [
        (raise_value_error, ValueError, "worker 0 .*raise_value_error.*sample 5 is torn"),
        (raise_key_error, KeyError, "worker 0 .*colour"),
        (raise_picky, RuntimeError, "worker 0 .*Picky"),
        (lambda: sys.exit(3), MinidlError, r"worker 0 \(pid \d+\) exited with code 3"),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_an_exception_arrives_with_its_traceback(act, kind, text, persistent):
    loader = DataLoader(Faulty(act), 2, num_workers=2, persistent_workers=persistent)
    found = []
    with soon(), pytest.raises(kind) as caught:
        for batch in loader:
            found.append(batch.tolist())
    assert re.search(text, str(caught.value), re.S)
    if kind is not MinidlError:  # what came before has arrived
        assert found == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "killed by SIGSEGV"),
        (lambda: os._exit(7), "exited with code 7"),
    ],
)
def test_a_worker_that_dies_is_named(act, text):
    with soon(), pytest.raises(MinidlError, match=rf"worker 0 \(pid \d+\) (was )?{text}"):
        list(DataLoader(Faulty(act), 2, num_workers=2))


def test_a_worker_that_is_killed_while_it_waits():
    loader = DataLoader(Augmented(200), 2, num_workers=2)
    batches = iter(loader)
    next(batches)
    victim = batches._pool.workers[0].pid
    os.kill(victim, signal.SIGKILL)
    with soon(), pytest.raises(MinidlError, match=rf"worker 0 \(pid {victim}\) was killed"):
        list(batches)
    assert list(batches) == []


def test_a_failing_init():
    def init(number):
        if number == 1:
            raise ValueError("no disk")

    with soon(), pytest.raises(ValueError, match="no disk"):
        list(DataLoader(Augmented(), 2, num_workers=2, worker_init_fn=init))


def test_a_batch_that_cannot_travel():
    class Unpicklable(Augmented):
        def __getitem__(self, index):
            return lambda: index

    with (
        soon(),
        pytest.raises((AttributeError, RuntimeError, MinidlError, Exception), match="worker"),
    ):
        list(DataLoader(Unpicklable(), 2, num_workers=1, collate_fn=keep))


def test_a_batch_that_takes_too_long():
    with soon(), pytest.raises(MinidlError, match="within 0.3 s"):
        list(DataLoader(Faulty(lambda: time.sleep(60)), 2, num_workers=2, timeout=0.3))


def test_a_data_set_that_cannot_be_pickled():
    class Local(Augmented):
        pass

    with pytest.raises(ArgumentError, match="picklable for the start method .spawn."):
        list(DataLoader(Local(), 2, num_workers=1, multiprocessing_context="spawn"))
    with pytest.raises(ArgumentError, match="must be one of"):
        list(DataLoader(Augmented(), 2, num_workers=1, multiprocessing_context="thread"))


class Remote(Augmented):
    def __getitem__(self, index):
        raise ConnectionResetError("the server hung up")


def test_a_data_set_may_lose_a_connection_of_its_own():
    with pytest.raises(ConnectionResetError, match="the server hung up"):
        list(DataLoader(Remote(), num_workers=1))


def test_a_pool_that_is_left_says_nothing():
    program = """
    import numpy as np, minidl
    from minidl.data import DataLoader, Dataset

    class Large(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            return np.zeros((64, 64), np.float32)

    for _ in range(20):
        for batch in DataLoader(Large(), batch_size=8, num_workers=2):
            break
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


class Nested(Augmented):
    """A data set that reads through a loader with workers of its own."""

    def __getitem__(self, index):
        return next(iter(DataLoader(Augmented(), 2, num_workers=1)))


def test_a_worker_has_no_workers():
    with pytest.raises(ArgumentError, match="cannot have workers"):
        list(DataLoader(Nested(2), num_workers=1, collate_fn=keep))


def test_passes_that_are_left():
    loader = DataLoader(Large(200), 2, num_workers=2, persistent_workers=True)
    one, two = iter(loader), iter(loader)
    assert next(one)[0].shape == next(two)[0].shape
    del one
    assert len(list(two)) == 99
    assert len(list(loader)) == 100
    with soon():
        slow = iter(DataLoader(Faulty(lambda: time.sleep(60)), 1, num_workers=2))
        next(slow)
        del slow


def test_order_may_be_given_up():
    class Uneven(Augmented):
        def __getitem__(self, index):
            time.sleep(0.3 if index == 0 else 0)
            return index

    loader = DataLoader(Uneven(8), 1, num_workers=2, in_order=False)
    found = [batch.item() for batch in loader]
    assert sorted(found) == [*range(8)] and found[0] != 0
    assert [batch.item() for batch in DataLoader(Uneven(8), 1, num_workers=2)] == [*range(8)]


SCRIPT = """
import os, sys, time
import minidl
from minidl.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.01)
        return index

if __name__ == "__main__":
    batches = iter(DataLoader(Slow(), 2, num_workers=2))
    next(batches)
    print(*[worker.pid for worker in batches._pool.workers], flush=True)
    for batch in batches:
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(tmp_path, number):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does: to the workers as well
        else:
            parent.kill()
        _, errors = parent.communicate(timeout=10)
    until = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert errors.count("Traceback") == (number == signal.SIGINT)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_kernels_run_on_both_sides_of_a_fork():
    x = minidl.randn(300, 300)
    minidl.set_num_threads(2)
    expected = (x @ x).numpy()

    class Products(Augmented):
        def __getitem__(self, index):
            return x @ x

    for batch in DataLoader(Products(6), None, num_workers=2):
        np.testing.assert_array_equal(batch.numpy(), expected)
        np.testing.assert_array_equal((x @ x).numpy(), expected)


# ---------------------------------------------------------------- parts of several processes


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 10])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_distributed_parts(size, count, drop_last):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    data = list(range(size))
    for rank in range(count):
        options = {"shuffle": False, "drop_last": drop_last}
        mine = DistributedSampler(data, count, rank, **options)
        other = torch.utils.data.DistributedSampler(data, count, rank, **options)
        assert len(mine) == len(other)
        if size:
            assert list(mine) == list(other)


def test_distributed_orders(monkeypatch):
    data = list(range(10))
    parts = [DistributedSampler(data, 2, rank, seed=3) for rank in range(2)]
    first = [i for part in parts for i in part]
    assert sorted(first) == data and first != data
    for part in parts:
        part.set_epoch(1)
    assert [i for part in parts for i in part] != first
    with pytest.raises(ArgumentError, match="WORLD_SIZE and RANK"):
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        DistributedSampler(data)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert list(DistributedSampler(data, shuffle=False)) == [3, 7, 1]
    with pytest.raises(ArgumentError, match="rank"):
        DistributedSampler(data, 2, 2)

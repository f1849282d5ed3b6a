"""The native table as a whole: instruction sets, threads, recycled memory, what is handed on."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from conftest import ISAS, on_table

import minidl
from minidl.backends import Kernels, Layer, available, local, native, reference, report
from minidl.errors import ArgumentError

pytestmark = pytest.mark.skipif(not ISAS, reason=f"no native kernels: {native.layer().missing}")
rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def call(name: str, *args: Any) -> tuple:
    """The results of an entry of the active table, as the operators call it."""
    results = local.state.run(getattr(local.state.cpu, name), *args)
    return results if isinstance(results, tuple) else (results,)


@pytest.fixture
def threads():
    before = minidl.get_num_threads()
    yield minidl.set_num_threads
    minidl.set_num_threads(before)


def test_every_entry_of_the_extension_serves() -> None:
    served = {name for name, entry in report("native").items() if entry["layer"] == "native"}
    assert served == {*native.cpu.ENTRIES, "cross_entropy_in_place"}  # which is two of them
    print(f"\nnative entries: {len(served)}, instruction sets: {', '.join(ISAS)}")


def test_a_layer_that_is_missing_leaves_its_reason() -> None:
    table = Kernels(
        "cpu", np, [Layer("reference", reference.ENTRIES), Layer("native", missing="no compiler")]
    )
    assert table.matmul is reference.ENTRIES["matmul"]
    assert table.reasons["matmul"] == ["native: no compiler"]


def test_an_instruction_set_that_is_not_there() -> None:
    with pytest.raises(ArgumentError, match="must be one of baseline"):
        native.use_isa("avx1024")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MINIDL_ISA", "avx1024", "the instruction set must be one of baseline"),
        ("MINIDL_THREADS", "0", "MINIDL_THREADS must be a positive integer, got '0'"),
        ("MINIDL_THREADS", "two", "MINIDL_THREADS must be a positive integer, got 'two'"),
        ("MINIDL_BACKEND", "gpu", f"backend must be one of {', '.join(available())}, got 'gpu'"),
    ],
)
def test_a_bad_environment_is_one_line(name: str, value: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import minidl; minidl.ones(1) + 1"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert message in done.stderr.strip().splitlines()[-1]
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "info"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"minidl: {message}")


def test_the_environment_chooses() -> None:
    code = "import minidl; b = minidl.backends; print(b.native.cpu.isa(), b.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MINIDL_ISA": "baseline", "MINIDL_THREADS": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["baseline", "3"]


def test_threads_are_no_more_than_the_processors_that_the_process_may_use() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}})\n"
    code += "import minidl; print(minidl.get_num_threads())"
    environment = {k: v for k, v in os.environ.items() if k != "MINIDL_THREADS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {}, 256),
        ("", {"cpu.max": "100000 100000"}, 256),
        ("0::/", {"cpu.max": "max 100000"}, 256),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/of/the/host", {"cpu.max": "50000 100000"}, 1),
        ("9:cpuset:/\n4:cpu,cpuacct:/x\n0::/",
         {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu:/x", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, 256),
    ],
)  # fmt: skip
def test_quotas_of_control_groups(groups: str, files: dict, quota: int, tmp_path: Any) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        place = tmp_path / "root" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    assert native.cpu.cpu_quota(str(tmp_path / "groups"), str(tmp_path / "root")) == quota


def test_bad_numbers_of_threads() -> None:
    for bad in (0, -1, 1.5, "2"):
        with pytest.raises(ArgumentError, match="number of threads"):
            minidl.set_num_threads(bad)


CALLS = {
    "matmul": lambda: (normal(300, 700), normal(700, 500)),
    "linear": lambda: (normal(200, 300), normal(400, 300), normal(400)),
    "softmax": lambda: (normal(500, 300), -1),
    "layer_norm": lambda: (normal(500, 300), 1, normal(300), normal(300), 1e-5),
    "layer_norm_backward": lambda: (
        *(normal(500, 300), normal(500, 300), 1, normal(300)),
        *(normal(500), np.abs(normal(500))),
    ),
    "attention": lambda: (
        (normal(2, 3, 200, 32), normal(2, 3, 200, 32), normal(2, 3, 200, 32)) + (None, True, 0.2)
    ),
    "embedding_backward": lambda: (normal(2000, 64), rng.integers(0, 3000, 2000), 3000, None),
    "cross_entropy": lambda: (normal(300, 500), rng.integers(0, 500, 300), None, -100, 0.1),
    "uniform": lambda: ((300_000,), np.float32, 1, 2),
    "gelu": lambda: (normal(300, 500), "none"),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_do_not_depend_on_the_number_of_threads(name: str, threads: Any) -> None:
    args = CALLS[name]()
    for isa in ISAS:
        with on_table(isa):
            threads(1)
            first = call(name, *args)
            for count in (2, 3, 8):
                threads(count)
                for a, b in zip(first, call(name, *args), strict=True):
                    np.testing.assert_array_equal(a, b)


def test_attention_gradients_of_few_heads_do_not_depend_on_the_number_of_threads(
    threads: Any,
) -> None:
    q, k, v, g = (normal(1, 1, 400, 32) for _ in range(4))
    out, lse = call("attention", q, k, v, None, True, 0.2)
    threads(1)
    first = call("attention_backward", g, q, k, v, None, True, 0.2, out, lse)
    threads(3)
    for a, b in zip(
        first, call("attention_backward", g, q, k, v, None, True, 0.2, out, lse), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_threads_of_python_may_call_at_once() -> None:
    a, b = normal(200, 300), normal(300, 200)
    (want,) = call("matmul", a, b)
    wrong = []

    def work() -> None:
        for _ in range(30):
            (got,) = call("matmul", a, b)
            if not np.array_equal(got, want):
                wrong.append(got)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_computes(threads: Any) -> None:
    threads(2)
    a = minidl.tensor(normal(300, 300))
    want = (a @ a).numpy()
    child = os.fork()
    if not child:
        equal = np.array_equal((a @ a).numpy(), want)
        os._exit(0 if equal else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_end_before_a_fork(threads: Any) -> None:
    threads(3)
    a = minidl.tensor(normal(300, 300))
    want = (a @ a).numpy()
    running = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        child = os.fork()
        if not child:
            alone = len(os.listdir("/proc/self/task")) == 1
            os._exit(0 if alone and np.array_equal((a @ a).numpy(), want) else 1)
        left = len(os.listdir("/proc/self/task"))
        assert os.waitpid(child, 0)[1] == 0
        assert left == running - 2
        np.testing.assert_array_equal((a @ a).numpy(), want)
        assert len(os.listdir("/proc/self/task")) == running


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_waits_for_the_job_of_another_thread(threads: Any) -> None:
    threads(2)
    a = minidl.tensor(normal(600, 600))
    want, wrong, done = (a @ a).numpy(), [], threading.Event()

    def work() -> None:
        while not done.is_set():
            if not np.array_equal((a @ a).numpy(), want):
                wrong.append(1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal((a @ a).numpy(), want) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        worker.join()
    assert not wrong


def test_views_keep_recycled_memory() -> None:
    view = (minidl.ones(1000) * 2)[10:20].numpy()
    gc.collect()
    for _ in range(1000):
        minidl.ones(1000) * 3
    np.testing.assert_array_equal(view, 2)


def test_memory_is_freed_by_another_thread() -> None:
    made = [minidl.ones(5000) * 2 for _ in range(50)]
    worker = threading.Thread(target=made.clear)
    worker.start()
    worker.join()
    assert (minidl.ones(5000) * 4).sum().item() == 20_000


def test_recycled_memory_is_bounded_and_given_back() -> None:
    arrays = [minidl.ones(4_000_000) for _ in range(60)]  # 960 MB
    del arrays
    assert native.cpu.kept_bytes() <= 512 << 20
    native.cpu.trim()
    assert native.cpu.kept_bytes() == 0


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_large_arrays_have_memory_of_their_own() -> None:
    """Of many sizes at once, made, kept and freed in any order, and given back."""
    draw = np.random.default_rng(0)
    native.cpu.trim()
    before, held = resident(), {}
    for number in range(1, 1200):
        if len(held) > 40 or (held and draw.random() < 0.4):
            gone = draw.choice(list(held))
            array = held.pop(gone)
            assert array.ctypes.data % 64 == 0 and (array == gone).all()
        if number % 300 == 0:
            native.cpu.trim()
        size = int(2 ** draw.uniform(14, 21.5))
        held[number] = (minidl.ones(size) * number).numpy()
    for number, array in held.items():
        assert (array == number).all()
    child = os.fork()
    if child == 0:
        same = all((array == number).all() for number, array in held.items())
        held.clear()
        native.cpu.trim()
        os._exit(not same or minidl.ones(1_000_000).sum().item() != 1_000_000)
    assert os.waitpid(child, 0)[1] == 0
    del array
    held.clear()
    native.cpu.trim()
    assert resident() - before < 32 << 20


_ADDRESSES = """
import resource, sys
limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
import minidl
array = minidl.ones(1_000_000) + 1
writable = 0
for line in open("/proc/self/maps"):
    span, rights = line.split()[:2]
    start, end = (int(side, 16) for side in span.split("-"))
    writable += (end - start) * ("w" in rights)
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
print(writable, taken)
"""


def test_addresses_that_are_reserved_count_against_no_limit() -> None:
    """Memory that may be written to is in core dumps and in what the system has promised."""
    for limit in (0, 1 << 40):
        command = [sys.executable, "-c", _ADDRESSES, str(limit)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        writable, taken = map(int, child.stdout.split())
        assert writable < 1 << 30
        assert not limit or taken < 1 << 30


def faults(function: Any, calls: int = 20) -> int:
    """Page faults of this thread in calls after the first three."""
    for _ in range(3):
        function()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(calls):
        function()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.mark.parametrize("name", CALLS)
def test_later_calls_take_no_page_faults(name: str) -> None:
    args = CALLS[name]()
    # Python's own; fresh results would be hundreds each
    assert faults(lambda: call(name, *args)) <= 20


def _training_step() -> Any:
    nn = minidl.nn
    model = nn.Sequential(nn.Linear(300, 400), nn.GELU(), nn.LayerNorm(400), nn.Linear(400, 300))
    optimizer = minidl.optim.AdamW(model.parameters())
    x = minidl.tensor(normal(300, 300))

    def step() -> None:
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()

    return step


def _operation(function: Any, *shape: int) -> Any:
    x = minidl.ones(*shape)
    return lambda: function(x)


OPERATIONS = {
    "a small sum": lambda: _operation(lambda x: x + x, 16),
    "16 MB": lambda: _operation(lambda x: x + x, 2048, 2048),
    "64 MB": lambda: _operation(lambda x: x.exp() * 2, 4096, 4096),
    "a copy and a sum": lambda: _operation(lambda x: x.t().contiguous().sum(0), 1500, 1500),
    "a training step": _training_step,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_later_operators_take_no_page_faults(name: str) -> None:
    operation = OPERATIONS[name]()
    # the least of three: the system takes pages away from a process on a busy machine
    assert min(faults(operation, 10) for _ in range(3)) <= 20


def _of_other_shapes(megabytes: int) -> None:
    """Leave recycled memory of that size in all, of shapes that do not come again."""
    arrays = [minidl.empty(20_000 * (50 + n)) for n in range(megabytes // 8)]
    for array in arrays:
        array.zero_()


def test_no_page_faults_once_other_shapes_are_gone() -> None:
    _of_other_shapes(1200)
    x = minidl.ones(4096, 4096)
    assert faults(lambda: x * 2.0 + 1.0, 4) <= 60  # fresh ones: 256 pages of 2 MB or more
    assert native.cpu.kept_bytes() <= 512 << 20
    _of_other_shapes(1200)
    x = minidl.ones(256, 256)
    assert faults(lambda: [x + n for n in range(200)], 4) <= 60
    assert native.cpu.kept_bytes() <= 512 << 20
    native.cpu.trim()


def test_what_a_kernel_cannot_take_goes_to_the_layer_below() -> None:
    table = local.state.cpu
    half = normal(3, 4).astype(np.float64)
    np.testing.assert_allclose(table.gelu(half, "none"), reference.ENTRIES["gelu"](half, "none"))
    shifted = np.frombuffer(b"\0" + normal(4, 4).tobytes(), np.float32, 16, offset=1).reshape(4, 4)
    np.testing.assert_allclose(table.matmul(shifted, shifted), shifted @ shifted, rtol=1e-5)
    swapped = normal(3, 3).astype(">f4")
    np.testing.assert_allclose(table.exp(swapped), np.exp(swapped), rtol=1e-6)


def test_no_memory_for_a_result() -> None:
    huge = np.broadcast_to(np.ones(1, np.float32), (1 << 24, 1))
    with pytest.raises(MemoryError):
        local.state.cpu.matmul(huge, huge.T)

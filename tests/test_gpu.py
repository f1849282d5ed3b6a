"""What needs a GPU: the kernel tables on it, minidl.cuda, and captured training steps.

Without a GPU the operators and entries run on a stand-in for CuPy (test_cupy_*), and the kernels of
csrc/cuda on an emulator (test_cuda_*, test_graphs).
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import cuda, nn, optim
from minidl.errors import ArgumentError, DeviceError, OutOfRangeError, UnsupportedError
from minidl.models import GPT
from minidl.testing.entries import ENTRIES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

F = nn.functional
pytestmark = pytest.mark.skipif(not cuda.is_available(), reason=f"needs a GPU: {cuda.missing()}")


@pytest.mark.parametrize("table", cuda.NAMES)
@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: row.name)
def test_entry(row, table: str):
    with on(Target(table)):
        for job in jobs([row]):
            run(*job, examples=8)


# ---------------------------------------------------------------- models to train


def classifier() -> tuple[nn.Module, Any, Any]:
    minidl.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.LayerNorm(64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 10)
    )
    return model.to("cuda"), minidl.randn(32, 20).cuda(), minidl.randint(10, (32,)).cuda()


def language_model() -> tuple[nn.Module, Any, Any]:
    minidl.manual_seed(0)
    model = GPT(vocab=37, context=16, layers=2, heads=2, width=32, dropout=0.1, bias=True)
    return model.to("cuda"), minidl.randint(37, (4, 16)).cuda(), minidl.randint(37, (4, 16)).cuda()


def loss_of(model: nn.Module, x: Any, y: Any) -> Any:
    out = model(x)
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


class Training:
    """A model, its optimiser and a schedule; steps that are run, or captured and replayed."""

    def __init__(self, make: Callable, optimizer: Callable) -> None:
        self.model, self.x, self.y = make()
        self.optimizer = optimizer(self.model.parameters())
        self.schedule = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.loss: Any = None
        self.graph: Any = None

    def work(self) -> None:
        self.optimizer.zero_grad()
        self.loss = loss_of(self.model, self.x, self.y)
        self.loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def capture(self) -> None:
        self.graph = cuda.CUDAGraph()
        with cuda.graph(self.graph):
            self.work()

    def step(self) -> float:
        if self.graph is None:
            self.work()
        else:
            self.graph.replay()
        self.schedule.step()
        return self.loss.item()


OPTIMIZERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.01),
    "amsgrad": lambda ps: optim.Adam(ps, lr=0.01, weight_decay=0.1, amsgrad=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [classifier, language_model])
def test_replayed_steps_are_the_eager_ones(make: Callable, optimizer: str):
    """Twenty steps with dropout and a schedule; products differ in their rounding."""
    eager, captured = (Training(make, OPTIMIZERS[optimizer]) for _ in range(2))
    losses: list[list[float]] = [[], []]
    for training, own in zip((eager, captured), losses, strict=True):
        minidl.manual_seed(1)
        own += [training.step() for _ in range(2)]
        if training is captured:
            training.capture()
        own += [training.step() for _ in range(20)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
    assert losses[0][-1] < losses[0][0]
    if optimizer == "sgd":  # Adam makes whole steps of gradients that are nothing but rounding
        for p, q in zip(eager.model.parameters(), captured.model.parameters(), strict=True):
            np.testing.assert_allclose(q.detach().cpu(), p.detach().cpu(), rtol=0, atol=1e-3)


def test_capturing_runs_nothing_and_waits_for_nothing():
    training = Training(classifier, OPTIMIZERS["adamw"])
    training.step()
    before = copy.deepcopy(training.model.state_dict())
    training.capture()
    for name, value in training.model.state_dict().items():
        assert minidl.equal(value, before[name])
    start, end = cuda.Event(), cuda.Event()
    start.record()
    for _ in range(10):
        training.graph.replay()
    end.record()
    cuda.synchronize()
    assert start.query() and end.query()
    assert not minidl.equal(training.model[0].weight, before["0.weight"])


def test_cupy_alone_refuses_steps_and_draws_in_a_graph():
    """A replay would repeat the numbers of the capture."""
    training = Training(classifier, OPTIMIZERS["adamw"])
    training.step()
    before = copy.deepcopy(training.model.state_dict())
    with on(Target("cupy")):
        for wrong in (training.optimizer.step, lambda: minidl.rand(3, device="cuda")):
            with pytest.raises(UnsupportedError, match="cannot be captured"):  # noqa: SIM117
                with cuda.graph(cuda.CUDAGraph()):
                    wrong()
            assert not cuda.is_current_stream_capturing()
    for name, value in training.model.state_dict().items():
        assert minidl.equal(value, before[name])


def test_new_inputs_reach_the_graph():
    x, y = minidl.zeros(4, device="cuda"), minidl.ones(4, device="cuda")
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        z = x * 2 + y
    for value in range(3):
        x.fill_(value)
        graph.replay()
        assert z.tolist() == [2 * value + 1] * 4
    with cuda.stream(cuda.Stream()) as side:
        side.wait_stream(cuda.default_stream())
        x.fill_(7)
        graph.replay()
        side.synchronize()
    assert z.tolist() == [15] * 4
    graph.reset()
    with pytest.raises(DeviceError, match="nothing is captured"):
        graph.replay()


@pytest.mark.parametrize("dtype", [minidl.float32, minidl.float64])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((1, 1), (1, 1)),
        ((63, 65), (65, 129)),
        ((1000, 333), (333, 517)),
        ((3, 9000), (9000, 5)),
        ((4, 3, 65, 64), (4, 3, 64, 70)),
        ((5, 7), (7,)),
        ((16, 128, 64), (64, 256)),
        ((2048, 256), (256, 2048)),
    ],
)
def test_products_in_a_graph(x: tuple, y: tuple, dtype: Any):
    minidl.manual_seed(0)
    a, b = minidl.randn(x, dtype=dtype).cuda(), minidl.randn(y, dtype=dtype).cuda()
    transposed = a.transpose(-1, -2).contiguous().transpose(-1, -2)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        found = [a @ b, transposed @ b]
    graph.replay()
    wanted = np.matmul(a.cpu().double().numpy(), b.cpu().double().numpy())
    room = 4 * minidl.finfo(dtype).eps * x[-1]
    for each in found:
        np.testing.assert_allclose(each.cpu().double().numpy(), wanted, rtol=0, atol=room)


def test_what_a_graph_cannot_hold():
    x = minidl.ones(4, device="cuda", requires_grad=True)
    for wrong in (
        lambda: x.sum().item(),
        lambda: x.tolist(),
        lambda: x[x > 0],
        lambda: print(x),
        lambda: minidl.tensor([1.0, 2.0], device="cuda"),
        lambda: optim.RMSprop([x]).step(),
    ):
        graph = cuda.CUDAGraph()
        x.grad = minidl.ones(4, device="cuda")
        with pytest.raises(Exception), cuda.graph(graph):  # noqa: B017, PT011 - CuPy's own errors
            wrong()
        assert not cuda.is_current_stream_capturing()
        assert (x * 2).sum().item() == 8  # nothing is left broken
    with pytest.raises(UnsupportedError, match="read of values"), cuda.graph(cuda.CUDAGraph()):
        x.sum().item()


def test_memory_of_a_graph_is_its_own():
    x = minidl.randn(1000, device="cuda")
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        y = (x.exp() + 1).log().sum()
    graph.replay()
    wanted = y.item()
    others = [minidl.full((1000,), 3.0, device="cuda") for _ in range(50)]
    graph.replay()
    assert y.item() == wanted and all(each[0].item() == 3 for each in others)
    shared = cuda.CUDAGraph()
    with cuda.graph(shared, pool=graph.pool()):
        z = x.sum()
    shared.replay()
    assert abs(z.item() - x.cpu().sum().item()) < 1e-2


# ---------------------------------------------------------------- memory


def test_steps_do_not_grow():
    training = Training(classifier, OPTIMIZERS["adamw"])
    for _ in range(20):
        training.step()
    gc.collect()
    gc.disable()
    try:
        used, reserved = cuda.memory_allocated(), cuda.memory_reserved()
        for _ in range(1000):
            training.step()
        assert cuda.memory_allocated() <= used
        assert cuda.memory_reserved() <= reserved
        training.capture()
        used, reserved = cuda.memory_allocated(), cuda.memory_reserved()
        for _ in range(1000):
            training.step()
        assert cuda.memory_allocated() <= used and cuda.memory_reserved() <= reserved
    finally:
        gc.enable()


def test_memory_is_counted():
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    x = minidl.empty(1 << 20, device="cuda")
    assert cuda.memory_allocated() - before == 4 << 20
    del x
    assert cuda.memory_allocated() == before
    assert cuda.max_memory_allocated() >= before + (4 << 20)
    assert cuda.memory_reserved() >= 4 << 20
    free, total = cuda.mem_get_info()
    assert 0 < free < total
    assert abs(total / cuda.get_device_properties().total_memory - 1) < 0.05
    cuda.empty_cache()
    assert "allocated_bytes.all.peak" in cuda.memory_stats()


# ---------------------------------------------------------------- streams, events, devices


def test_devices():
    assert cuda.device_count() >= 1 and cuda.current_device() == 0
    assert cuda.get_device_name() == cuda.get_device_name("cuda:0")
    assert cuda.get_device_capability() >= (7, 0)
    assert cuda.describe()[0].startswith("cuda:0 ")
    with cuda.device(0):
        cuda.set_device("cuda:0")
    for wrong in (99, "cuda:99", "cpu"):
        with pytest.raises(DeviceError):
            cuda.get_device_name(wrong)


def test_events_measure_time():
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    x = minidl.randn(2048, 2048, device="cuda")
    start.record()
    for _ in range(5):
        x = (x @ x) * 1e-3
    end.record()
    end.synchronize()
    assert 0.01 < start.elapsed_time(end) < 10_000
    assert start.query() and end.query() and cuda.Event().query()
    with pytest.raises(ArgumentError, match="enable_timing"):
        cuda.Event().elapsed_time(end)


def test_streams_wait_for_each_other():
    side, main = cuda.Stream(), cuda.current_stream()
    assert main == cuda.default_stream() != side
    x = minidl.randn(1024, 1024, device="cuda")
    for _ in range(10):
        x = (x @ x) * 1e-2
    side.wait_stream(main)
    with cuda.stream(side):
        assert cuda.current_stream() == side
        y = x + 1
    main.wait_stream(side)
    assert minidl.equal(y - 1, (x + 1) - 1)
    side.synchronize()
    assert side.query() and cuda.current_stream() == main


def test_checks_are_told_when_waiting():
    index = minidl.tensor([0, 9], device="cuda")
    F.embedding(index, minidl.ones(4, 2, device="cuda"))
    with pytest.raises(OutOfRangeError):
        cuda.synchronize()
    cuda.synchronize()


def test_checks_of_a_graph_belong_to_its_replays():
    index, weight = minidl.tensor([0, 1], device="cuda"), minidl.ones(4, 2, device="cuda")
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        F.embedding(index, weight)
    graph.replay()
    cuda.synchronize()
    index[1] = 9
    graph.replay()
    with pytest.raises(OutOfRangeError):
        cuda.synchronize()


def test_tensors_of_two_devices():
    with pytest.raises(DeviceError, match=r"\[add\].*cuda:0, cpu"):
        minidl.ones(3, device="cuda") + minidl.ones(3)
    with pytest.raises(DeviceError, match=r"needs \.cpu\(\)"):
        minidl.ones(3, device="cuda").numpy()


def test_pinned_memory():
    x = minidl.randn(3, 5)
    assert not x.is_pinned()
    y = x.pin_memory()
    assert y.is_pinned() and minidl.equal(x, y) and y.pin_memory() is y
    assert minidl.equal(y.to("cuda", non_blocking=True).cpu(), x)
    half = minidl.randn(4).bfloat16().pin_memory()
    assert half.is_pinned() and half.dtype is minidl.bfloat16


@pytest.mark.parametrize("table", cuda.NAMES)
def test_random_numbers_are_those_of_the_cpu(table: str):
    with on(Target(table)):
        check_random_numbers()


def check_random_numbers() -> None:
    for n in (1, 7, 100_003):
        for draw in (
            lambda d, n=n: minidl.rand(n, device=d),
            lambda d, n=n: minidl.rand(n, device=d, dtype=minidl.float64),
            lambda d, n=n: minidl.randint(-5, 1000, (n,), device=d),
            lambda d, n=n: minidl.randperm(n, device=d),
            lambda d, n=n: F.dropout(minidl.ones(n, device=d), 0.3),
            lambda d, n=n: minidl.full((n,), 0.3, device=d).bernoulli(),
        ):
            minidl.manual_seed(n)
            here = draw("cpu")
            cuda.manual_seed_all(n)
            assert minidl.equal(draw("cuda").cpu(), here)
        minidl.manual_seed(n)
        here = minidl.randn(n)
        minidl.manual_seed(n)
        np.testing.assert_array_max_ulp(
            minidl.randn(n, device="cuda").cpu().numpy(), here.numpy(), 4
        )

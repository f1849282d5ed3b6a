"""What is fresh in every replay of a graph, without a GPU.

Arrays are the stand-in's, and kernels run on the emulator. While a graph is captured they are put
into a list instead of run, and a replay runs the list.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from emulation import Emulator

import minidl
from minidl import cuda, nn, optim
from minidl.backends import cupy_gpu, use_backend
from minidl.backends.cupy_gpu import capture
from minidl.backends.cupy_gpu.host import note_again, take_noted
from minidl.backends.native_cuda import launch
from minidl.errors import ArgumentError, DeviceError, MinidlError, UnsupportedError
from minidl.models import GPT
from minidl.testing import standin
from minidl.testing.targets import Target, on

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")


class Graph:
    """What `cuda.CUDAGraph` does, in terms of the list."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], None]] = []

    def __enter__(self) -> Graph:
        self.recording = capture.Recording()
        self.recording.begin()
        return self

    def __exit__(self, *error: Any) -> None:
        self.recording.end()
        self.checks = take_noted()

    def replay(self) -> None:
        self.recording.refresh()
        for run in self.launches:
            run()


def _without_copies(function: Callable) -> Callable:
    """CuPy's `array` or `asarray`, which may not copy from the CPU while a graph is captured."""

    def checked(x: Any, *args: Any, **kwargs: Any) -> Any:
        if capture.capturing() and not isinstance(x, standin.ndarray) and np.ndim(x):
            raise AssertionError(f"copies {x!r} to the GPU")
        return function(x, *args, **kwargs)

    return checked


class Recorder(Emulator):
    """Puts what is started while a graph is captured into its list."""

    def __init__(self) -> None:
        super().__init__()
        self.made = Graph()

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        if not capture.capturing():
            super().start(family, kernel, blocks, threads, shared, fields)
            return
        bounds = standin.addressed()

        def run() -> None:
            standin._addressed[:] = bounds
            super(Recorder, self).start(family, kernel, blocks, threads, shared, fields)

        self.made.launches.append(run)


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    machine = Recorder()
    constructor = standin._array
    monkeypatch.setattr(standin, "_array", lambda f: _without_copies(constructor(f)))
    before = launch.use(machine)
    try:
        with standin.installed():
            yield machine.made
    finally:
        launch.use(before)


def model(device: str) -> nn.Module:
    minidl.manual_seed(3)
    return nn.Linear(5, 4).to(device)


def gradients(module: nn.Module, step: int) -> None:
    """Gradients that depend on the step, written where the graph reads them."""
    for i, parameter in enumerate(module.parameters()):
        rng = np.random.default_rng((step, i))
        values = minidl.tensor(rng.standard_normal(parameter.shape).astype("f4"))
        if parameter.grad is None:
            parameter.grad = values.to(parameter.device)
        else:
            parameter.grad.copy_(values)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optim.SGD(ps, lr=0.1),
        lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
        lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.1),
        lambda ps: optim.AdamW(ps, lr=0.1, amsgrad=True),
        lambda ps: optim.AdamW([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(ps)]),
    ],
)
def test_replayed_steps_are_those_of_the_optimiser(graph: Graph, make: Callable):
    here, there = model("cpu"), model("cuda")
    optimizers = [make(list(m.parameters())) for m in (here, there)]
    schedules = [optim.lr_scheduler.ExponentialLR(each, 0.7) for each in optimizers]
    for module, optimizer, schedule in zip((here, there), optimizers, schedules, strict=True):
        gradients(module, 0)
        with use_backend("reference"):
            optimizer.step()
        schedule.step()
    before = [p.tolist() for p in there.parameters()]
    with graph:
        optimizers[1].step()
    assert [p.tolist() for p in there.parameters()] == before
    for step in range(1, 6):
        gradients(here, step)
        gradients(there, step)
        with use_backend("reference"):
            optimizers[0].step()
        graph.replay()
        for schedule in schedules:
            schedule.step()
        for p, q in zip(here.parameters(), there.parameters(), strict=True):
            assert q.tolist() == p.tolist()
    own, twin = (list(each.state.values()) for each in optimizers)
    assert [s["step"].item() for s in twin if "step" in s] == [6 for s in own if "step" in s]


def test_the_first_step_is_taken_before(graph: Graph):
    module = model("cuda")
    gradients(module, 0)
    optimizer = optim.Adam(module.parameters())
    with pytest.raises(MinidlError, match="before the graph is captured"), graph:
        optimizer.step()
    optimizer.step()
    assert {s["step"].item() for s in optimizer.state.values()} == {1}


def test_other_optimisers_are_refused(graph: Graph):
    module = model("cuda")
    gradients(module, 0)
    with pytest.raises(UnsupportedError, match=r"\[RMSprop\] only SGD, Adam"), graph:
        optim.RMSprop(module.parameters()).step()


def test_another_optimiser_than_was_captured(graph: Graph):
    module = model("cuda")
    gradients(module, 0)
    optimizer = optim.SGD(module.parameters())
    with graph:
        optimizer.step()
    graph.recording.at_replay(lambda: graph.recording.slots([1.0]))
    with pytest.raises(DeviceError, match="capture the graph again"):
        graph.replay()
    assert not capture.refreshing() and not capture.capturing()


def test_state_that_was_loaded_after_the_capture(graph: Graph):
    """The graph would go on writing the state of before."""
    module = model("cuda")
    gradients(module, 0)
    optimizer = optim.Adam(module.parameters())
    optimizer.step()
    kept = optimizer.state_dict()
    with graph:
        optimizer.step()
    graph.replay()
    optimizer.load_state_dict(kept)
    with pytest.raises(MinidlError, match="capture it again"):
        graph.replay()


def test_random_numbers_are_fresh_and_those_of_the_generator(graph: Graph):
    x = minidl.ones(1001, device="cuda")
    minidl.manual_seed(5)
    eager = [nn.functional.dropout(x, 0.4).tolist() for _ in range(4)]
    minidl.manual_seed(5)
    with graph:
        y = nn.functional.dropout(x, 0.4)
    for wanted in eager[:3]:
        graph.replay()
        assert y.tolist() == wanted
    assert nn.functional.dropout(x, 0.4).tolist() == eager[3]
    minidl.manual_seed(5)  # after a replay, too
    for wanted in eager[:2]:
        graph.replay()
        assert y.tolist() == wanted


def test_two_draws_and_draws_between_replays(graph: Graph):
    minidl.manual_seed(6)
    eager = [(minidl.rand(5).tolist(), minidl.rand(3).tolist()) for _ in range(4)]
    minidl.manual_seed(6)
    with graph:
        pair = minidl.rand(5, device="cuda"), minidl.rand(3, device="cuda")
    for i in (0, 1):
        graph.replay()
        assert tuple(each.tolist() for each in pair) == eager[i]
    assert (minidl.rand(5).tolist(), minidl.rand(3).tolist()) == eager[2]
    graph.replay()
    assert tuple(each.tolist() for each in pair) == eager[3]


def test_a_seed_of_the_operating_system_is_taken_over(graph: Graph):
    with graph:
        y = minidl.rand(7, device="cuda")
    minidl.manual_seed(1)
    graph.replay()
    found = y.tolist()
    minidl.manual_seed(1)
    assert found == minidl.rand(7).tolist()


def test_generators_that_no_replay_could_refresh(graph: Graph):
    own = minidl.Generator().manual_seed(8)
    minidl.manual_seed(9)
    with graph:
        with pytest.raises(UnsupportedError, match="default generator"):
            minidl.rand(3, device="cuda", generator=own)
        minidl.manual_seed(10)
        with pytest.raises(UnsupportedError, match="default generator"):
            minidl.rand(3, device="cuda")


def test_reads_are_refused(graph: Graph):
    x = minidl.ones(3, device="cuda")
    with graph:
        for read in (x.tolist, x.sum().item, lambda: bool(x.sum() > 0)):
            with pytest.raises(UnsupportedError, match="cannot be captured"):
                read()
    assert x.sum().item() == 3


def test_checks_belong_to_the_replays(graph: Graph):
    x = minidl.tensor([0.5, 3.5], device="cuda")
    with graph:
        minidl.bernoulli(x)
    assert graph.checks
    assert x.sum().item() == 4  # what was captured has not run: nothing is told yet
    note_again(graph.checks)
    note_again(graph.checks)
    with pytest.raises(minidl.ArgumentError, match="probabilities"):
        x.sum().item()
    assert x.sum().item() == 4


def test_one_capture_at_a_time(graph: Graph):
    with graph, pytest.raises(DeviceError, match="captures a graph already"):
        capture.Recording().begin()
    assert not capture.capturing()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("kind", ["mlp", "gpt"])
def test_nothing_waits_or_copies_in_a_training_step(graph: Graph, kind: str, optimizer: str):
    minidl.manual_seed(0)
    if kind == "gpt":
        network: nn.Module = GPT(vocab=11, context=8, layers=2, heads=2, width=8, dropout=0.1)
        x = minidl.randint(11, (2, 8)).cuda()
        y = minidl.randint(11, (2, 8)).cuda()
    else:
        network = nn.Sequential(
            nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 11)
        )
        x, y = minidl.randn(5, 6).cuda(), minidl.randint(11, (5,)).cuda()
    network.to("cuda")
    steps = getattr(optim, optimizer)(network.parameters(), lr=0.1)

    def step() -> None:
        steps.zero_grad()
        logits = network(x)
        loss = nn.functional.cross_entropy(logits.reshape(-1, 11), y.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        steps.step()

    step()
    with graph:
        step()
    assert len(graph.launches) > 5


# ---------------------------------------------------------------- CuPy alone


def test_cupy_alone_captures_nothing_that_a_replay_would_repeat(graph: Graph):
    """The table "cupy" has no kernels that take fresh numbers: it must say so."""
    module = model("cuda")
    gradients(module, 0)
    optimizer = optim.SGD(module.parameters())
    x = minidl.full((5,), 0.5, device="cuda")
    draws = [
        lambda: minidl.rand(3, device="cuda"),
        lambda: minidl.randn(3, device="cuda"),
        lambda: minidl.randint(9, (3,), device="cuda"),
        lambda: minidl.randperm(3, device="cuda"),
        lambda: minidl.bernoulli(x),
        lambda: minidl.poisson(x),
        lambda: nn.functional.dropout(x, 0.5),
    ]
    with on(Target("cupy")):
        with graph:
            for draw in draws:
                with pytest.raises(UnsupportedError, match="draw of random numbers cannot be"):
                    draw()
            with pytest.raises(UnsupportedError, match="optimiser step cannot be captured"):
                optimizer.step()
        minidl.rand(3, device="cuda")
        optimizer.step()
    assert not graph.launches


def test_a_replay_needs_the_table_of_the_capture(graph: Graph):
    module = model("cuda")
    gradients(module, 0)
    optimizer = optim.SGD(module.parameters())
    with graph:
        optimizer.step()
    before = [p.tolist() for p in module.parameters()]
    with on(Target("cupy")), pytest.raises(UnsupportedError, match="without the kernels"):
        graph.replay()
    assert [p.tolist() for p in module.parameters()] == before
    graph.replay()
    assert [p.tolist() for p in module.parameters()] != before


def test_products_without_our_kernels(graph: Graph):
    x = minidl.ones(3, 3, device="cuda")
    capture.register_kernels(None)
    with graph, pytest.raises(UnsupportedError, match="a matrix product cannot be captured"):
        _ = x @ x
    assert (x @ x).sum().item() == 27


def test_draws_of_all_kinds_are_fresh(graph: Graph):
    x, p = minidl.full((2, 5), 0.5, device="cuda"), minidl.ones(4, device="cuda")
    draws = [
        lambda: minidl.randint(1000, (7,), device="cuda"),
        lambda: minidl.randn(5, device="cuda"),
        lambda: nn.functional.dropout(x, 0.5),
    ]
    with pytest.raises(UnsupportedError, match="draw of random numbers cannot be"), graph:
        minidl.poisson(p)
    minidl.manual_seed(4)
    eager = [[draw().tolist() for draw in draws] for _ in range(3)]
    minidl.manual_seed(4)
    with graph:
        found = [draw() for draw in draws]
    for wanted in eager:
        graph.replay()
        assert [each.tolist() for each in found] == wanted


# ---------------------------------------------------------------- the classes of minidl.cuda


class FakeCuda(types.SimpleNamespace):
    """`cupy.cuda` as far as streams, events and graphs use it; a captured graph is a list."""

    def __init__(self, launches: list) -> None:
        self.log: list[str] = []
        self.allocators: list[Any] = []
        log, allocators = self.log, self.allocators

        class Stream:
            def __init__(self, non_blocking: bool = False, priority: int = 0) -> None:
                made.append(self)
                self.ptr, self.device_id, self.done = 16 * len(made), 0, True

            def __enter__(self) -> None:
                current.append(self)

            def __exit__(self, *error: Any) -> None:
                assert current.pop() is self

            def synchronize(self) -> None:
                log.append("wait")

            def wait_event(self, event: Any) -> None:
                log.append(f"stream {self.ptr} waits for {event.at}")

            def begin_capture(self, mode: int) -> None:
                log.append(f"begin {mode}")

            def end_capture(self) -> Any:
                log.append("end")
                return types.SimpleNamespace(launch=lambda: [run() for run in launches])

        class Event:
            def __init__(self, block: bool, disable_timing: bool) -> None:
                self.ptr, self.done, self.timing = 1, True, not disable_timing

            def record(self, stream: Any) -> None:
                self.at = f"{stream.ptr}"

            def synchronize(self) -> None:
                log.append("wait")

        class Device(contextlib.nullcontext):
            def synchronize(self) -> None:
                log.append("wait")

        @contextlib.contextmanager
        def using_allocator(malloc: Any) -> Iterator[None]:
            allocators.append(malloc)
            yield
            assert allocators.pop() is malloc

        made: list[Any] = []
        null = Stream()
        null.ptr, null.device_id = 0, -1
        Stream.null = null  # type: ignore[attr-defined]
        current = [null]
        super().__init__(
            Stream=Stream,
            Event=Event,
            Device=Device,
            using_allocator=using_allocator,
            get_current_stream=lambda index=None: current[-1],
            get_elapsed_time=lambda a, b: 1.5,
            MemoryPool=lambda: types.SimpleNamespace(malloc=len, used_bytes=len, total_bytes=len),
            runtime=types.SimpleNamespace(
                getDevice=lambda: 0,
                getDeviceCount=lambda: 1,
                setDevice=lambda index: log.append(f"device {index}"),
                streamCaptureModeRelaxed=2,
                streamCaptureModeThreadLocal=1,
                streamCaptureModeGlobal=0,
            ),
            log=log,
            allocators=allocators,
        )


@pytest.fixture
def fake(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda(graph.launches)
    monkeypatch.setattr(sys.modules["cupy"], "cuda", made)
    cupy_gpu.forget()
    begin = capture.Recording.begin

    def noted(recording: capture.Recording) -> None:
        graph.recording = recording
        begin(recording)

    monkeypatch.setattr(capture.Recording, "begin", noted)
    return made


def test_a_graph_by_its_classes(fake: FakeCuda):
    minidl.manual_seed(2)
    eager = [minidl.rand(5).tolist() for _ in range(2)]
    minidl.manual_seed(2)
    made = cuda.CUDAGraph()
    with pytest.raises(DeviceError, match="nothing is captured"):
        made.replay()
    with cuda.graph(made):
        assert cuda.is_current_stream_capturing() and fake.allocators == [made.pool().malloc]
        assert cuda.current_stream() != cuda.default_stream()
        x = minidl.rand(5, device="cuda")
        with pytest.raises(UnsupportedError, match="waiting for the GPU"):
            cuda.synchronize()
    assert not cuda.is_current_stream_capturing() and not fake.allocators
    assert cuda.current_stream() == cuda.default_stream()
    assert [entry for entry in fake.log if entry != "device 0"] == [
        "wait",
        "wait",
        "begin 2",
        "end",
    ]
    for wanted in eager:
        made.replay()
        assert x.tolist() == wanted
    with pytest.raises(DeviceError, match="captured already"), cuda.graph(made):
        pass
    assert not cuda.is_current_stream_capturing() and not fake.allocators
    made.reset()
    with cuda.graph(made, capture_error_mode="thread_local"):
        pass
    assert "begin 1" in fake.log


def test_a_block_that_fails_leaves_nothing_behind(fake: FakeCuda):
    made = cuda.CUDAGraph()
    with pytest.raises(ZeroDivisionError), cuda.graph(made):
        raise ZeroDivisionError
    with pytest.raises(DeviceError, match="nothing is captured"):
        made.replay()
    with pytest.raises(DeviceError, match="default stream cannot"):
        made.capture_begin()
    with pytest.raises(DeviceError, match="capture_error_mode"):
        made.capture_begin(capture_error_mode="loose")
    with pytest.raises(DeviceError, match="without capture_begin"):
        made.capture_end()
    assert not cuda.is_current_stream_capturing() and not fake.allocators
    assert cuda.current_stream() == cuda.default_stream()


def test_streams_and_events(fake: FakeCuda):
    main, side = cuda.current_stream(), cuda.Stream()
    assert repr(side).startswith("<minidl.cuda.Stream device=cuda:0 ") and hash(main) != hash(side)
    side.wait_stream(main)
    assert f"stream {side.cuda_stream} waits for 0" in fake.log
    with cuda.stream(side) as s, cuda.stream(None), cuda.device(None):
        assert s == side == cuda.current_stream()
        start = side.record_event(cuda.Event(enable_timing=True))
    end = cuda.Event(enable_timing=True)
    with pytest.raises(ArgumentError, match="must be recorded"):
        start.elapsed_time(end)
    end.record()
    assert start.elapsed_time(end) == 1.5 and end.query() and side.query()
    with pytest.raises(ArgumentError, match="enable_timing"):
        cuda.Event().elapsed_time(end)
    for wrong in ("cpu", "cuda:3", 5):
        with pytest.raises(DeviceError):
            cuda.Stream(wrong)

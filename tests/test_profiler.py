"""minidl.profiler: what is recorded, that times nest, the two outputs, and that off means off."""

from __future__ import annotations

import gzip
import json
import threading

import pytest

import minidl
from minidl import nn, optim, profiler
from minidl.autograd import Function
from minidl.autograd.op import Operator
from minidl.backends import local, use_backend
from minidl.errors import ArgumentError, MinidlError, ShapeError, UnsupportedError


def step() -> None:
    """One training step of a small model."""
    first, second = nn.Linear(4, 8), nn.Linear(8, 3)
    optimizer = optim.AdamW([*first.parameters(), *second.parameters()])
    logits = second(nn.functional.gelu(first(minidl.ones(5, 4))))
    loss = nn.functional.cross_entropy(logits, minidl.tensor([0, 1, 2, 0, 1]))
    loss.backward()
    optimizer.step()


def counts(prof: profiler.profile) -> dict[str, int]:
    return {row.key: row.count for row in prof.key_averages()}


@pytest.fixture
def prof() -> profiler.profile:
    with profiler.profile(record_shapes=True, profile_memory=True) as made:
        step()
    return made


def test_a_training_step_is_seen_whole(prof):
    found = counts(prof)
    layer = local.state.cpu.sources["linear"]
    assert found["linear"] == found[f"{layer}::linear"] == found["LinearBackward0"] == 2
    assert found["GeluBackward0"] == found["CrossEntropyBackward0"] == found["adam_step"] == 1


def test_times_nest(prof):
    events = prof.events()
    assert [e.start for e in events] == sorted(e.start for e in events)
    for event in events:
        inside = sum(child.end - child.start for child in event.cpu_children)
        assert 0 <= inside <= event.end - event.start
        assert event.self_cpu_time_total == pytest.approx(event.cpu_time_total - inside / 1e3)
        for child in event.cpu_children:
            assert child.cpu_parent is event
            assert event.start <= child.start <= child.end <= event.end
    rows = prof.key_averages()
    roots = sum(event.cpu_time_total for event in events if event.cpu_parent is None)
    assert rows.self_cpu_time_total == pytest.approx(roots)
    assert roots <= rows.wall


def test_the_kernel_is_inside_its_operator_and_the_operator_inside_a_gradient():
    x = minidl.ones(3, 4, requires_grad=True)
    with profiler.profile() as prof:
        x.softmax(-1).backward(minidl.ones(3, 4))
    parents = {e.name: e.cpu_parent.name if e.cpu_parent else None for e in prof.events()}
    layer = local.state.cpu.sources["softmax"]
    assert parents[f"{layer}::softmax"] == "softmax"
    assert parents["softmax"] is None
    assert "SoftmaxBackward0" in parents.values()


def test_shapes_and_memory():
    with profiler.profile(record_shapes=True, profile_memory=True) as prof:
        minidl.ones(3, 4) @ minidl.ones(4, 5)
        minidl.ones(6, 4) @ minidl.ones(4, 5)
        minidl.ones(6, 4).transpose(0, 1)  # a view
    rows = {str(r.input_shapes): r for r in prof.key_averages(True) if r.key == "matmul"}
    assert set(rows) == {"[[3, 4], [4, 5]]", "[[6, 4], [4, 5]]"}
    assert rows["[[3, 4], [4, 5]]"].cpu_memory_usage == 3 * 5 * 4
    table = prof.key_averages(True).table()
    assert "Input Shapes" in table
    assert "Bytes" in table
    with profiler.profile() as bare:
        minidl.ones(3) + 1
    assert "Input Shapes" not in bare.key_averages().table()
    assert not any(event.input_shapes for event in bare.events())


def test_the_table(prof):
    rows = prof.key_averages()
    for key in profiler.EventList.SORTS:
        lines = rows.table(sort_by=key).splitlines()
        assert len(lines) == 5 + len(rows)
    first = max(rows, key=lambda row: row.self_cpu_time_total)
    short = rows.table(sort_by="self_cpu_time_total", row_limit=1, header="A step")
    assert short.startswith("A step\n")
    assert short.splitlines()[4].startswith(first.key)
    assert len(short.splitlines()) == 7
    assert "SoftmaxBack..." not in short
    with pytest.raises(ArgumentError, match="sort_by must be one of self_cpu"):
        rows.table(sort_by="cuda_time")
    assert profiler.EventList([], 0.0).table().endswith("in the profile\n")


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_the_chrome_trace(prof, tmp_path, name):
    path = tmp_path / name
    prof.export_chrome_trace(path)
    opened = gzip.open if name.endswith("gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        trace = json.load(file)
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [span["name"] for span in spans] == [event.name for event in prof.events()]
    assert {span["cat"] for span in spans} == {"operator", "kernel", "gradient"}
    (linear, *_) = [span for span in spans if span["name"] == "linear"]
    assert linear["args"]["Input Dims"][:2] == [[5, 4], [8, 4]]
    assert linear["args"]["Bytes"] == 5 * 8 * 4
    assert all(span["dur"] >= 0 and span["ts"] > 0 and span["pid"] for span in spans)


def test_off_means_off():
    state = local.state
    before = state.enter, state.cpu, vars(Operator)["backward"], vars(Operator)
    with profiler.profile() as prof:
        assert state.enter is not before[0]
    known = len(prof.events())
    step()
    assert len(prof.events()) == known == 0
    assert (state.enter, state.cpu, vars(Operator)["backward"]) == before[:3]


def test_an_exception_inside_ends_its_events_and_the_profile():
    state = local.state
    before = state.enter, state.cpu
    prof = profiler.profile()
    with pytest.raises(ShapeError), prof, profiler.record_function("outer"):
        minidl.ones(2, 3) @ minidl.ones(2, 3)
    assert (state.enter, state.cpu) == before
    assert counts(prof)["matmul"] == counts(prof)["outer"] == 1
    assert all(event.end >= event.start for event in prof.events())
    step()  # recording and gradients work as before
    with profiler.profile() as second:
        step()
    assert counts(second)["linear"] == 2


def test_results_are_the_same_bits(prof):
    def run() -> list:
        x = minidl.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
        y = nn.functional.gelu(nn.functional.layer_norm(x, (4,))) @ minidl.ones(4, 2)
        y.sum().backward()
        return [y.tolist(), x.grad.tolist()]

    plain = run()
    with profiler.profile():
        assert run() == plain


def test_marked_blocks_and_functions():
    @profiler.record_function("twice")
    def twice(x):
        return x + x

    x = minidl.ones(2)
    assert twice(x).tolist() == [2, 2]  # no profile: nothing happens
    with profiler.profile() as prof:
        with profiler.record_function("block", "1"):
            twice(x)
        twice(x)
    assert counts(prof)["twice"] == 2
    assert counts(prof)["block(1)"] == 1
    outer = next(event for event in prof.events() if event.name == "block(1)")
    (twice_inside,) = outer.cpu_children
    assert [child.name for child in twice_inside.cpu_children] == ["add"]


def test_a_block_that_outlives_the_profile_is_left_out():
    block = profiler.record_function("late")
    with profiler.profile() as prof:
        block.__enter__()
    assert counts(prof) == {}
    block.__exit__()
    assert counts(prof) == {"late": 1}


def test_only_the_thread_that_opened_it_is_recorded():
    results = []

    def other(profiled: bool) -> None:
        if profiled:
            with profiler.profile() as mine:
                step()
            results.append(counts(mine)["LinearBackward0"])
        else:
            step()

    with profiler.profile() as prof:
        threads = [threading.Thread(target=other, args=(i % 2 == 0,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        step()
    assert results == [2, 2, 2]
    assert counts(prof)["LinearBackward0"] == counts(prof)["linear"] == 2


def test_another_thread_cannot_stop_it():
    prof = profiler.profile()
    prof.start()
    caught = []

    def stop() -> None:
        try:
            prof.stop()
        except MinidlError as error:
            caught.append(str(error))

    thread = threading.Thread(target=stop)
    thread.start()
    thread.join()
    prof.stop()
    assert caught == ["[profile] it is not open in this thread"]


def test_what_is_refused():
    with profiler.profile() as prof, pytest.raises(MinidlError, match="a profile is open"):
        profiler.profile().start()
    with pytest.raises(MinidlError, match="used already"):
        prof.start()
    with pytest.raises(MinidlError, match="not open"):
        prof.stop()
    for options in ({"schedule": int}, {"with_stack": True}, {"activities": []}):
        with pytest.raises(UnsupportedError):
            profiler.profile(**options)
    profiler.profile(activities=[profiler.ProfilerActivity.CPU])


def test_it_is_handed_on_when_it_ends():
    got = []
    with profiler.profile(on_trace_ready=got.append) as prof:
        minidl.ones(2)
    assert got == [prof]


def test_functions_of_users_and_second_gradients():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = minidl.tensor(3.0, requires_grad=True)
    with profiler.profile() as prof:
        (g,) = minidl.autograd.grad(Double.apply(x * x), x, create_graph=True)
        g.backward()
    assert x.grad.item() == 4
    assert counts(prof)["DoubleBackward0"] == 1
    assert counts(prof)["MulBackward0"] >= 2


def test_another_backend_inside():
    with profiler.profile() as prof:
        with use_backend("reference"):
            minidl.ones(2, 3).softmax(-1)
        minidl.ones(2, 3).softmax(-1)
    assert counts(prof)["softmax"] == 2

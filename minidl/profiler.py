"""Where the time goes: a table per operator and a Chrome trace, under the names of torch.profiler.

    with minidl.profiler.profile(record_shapes=True) as prof:
        train_step()
    print(prof.key_averages().table(sort_by="self_cpu_time_total"))
    prof.export_chrome_trace("trace.json")  # for ui.perfetto.dev or chrome://tracing

Recorded are, for the thread that opened the profile: the forward of every operator (`linear`), the
kernel that it runs where a layer above NumPy serves it (`native::linear`), the gradient call of
every node (`LinearBackward0`), optimiser kernels, and what `record_function` marks. What Python
does between operators belongs to the event around it, or to none.

Other threads are left alone, as in PyTorch: what is put before their calls would be theirs to take
away, and a list of all threads is not kept. A loader's threads, say, open profiles of their own;
all have one clock.

Nothing is asked for while no profile is open. Opening one gives the thread another `enter`, through
which every forward runs, and a kernel table of timed entries; and it puts a descriptor before
`backward` of the operators, which hands on at once in other threads.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from time import perf_counter_ns
from typing import Any

import numpy as np

from minidl.autograd.function import _FunctionOperator
from minidl.autograd.op import Operator
from minidl.backends import Kernels, local
from minidl.backends.table import ARRAY_ENTRIES, KERNEL_ENTRIES, entered
from minidl.errors import ArgumentError, MinidlError, UnsupportedError

__all__ = ["ProfilerActivity", "profile", "record_function"]


class ProfilerActivity(Enum):
    """What can be profiled."""

    CPU = 0


class FunctionEvent:
    """One call: its name, when it ran (nanoseconds) and what ran inside of it."""

    __slots__ = (
        *("name", "kind", "start", "end", "inside"),
        *("cpu_parent", "cpu_children", "input_shapes", "cpu_memory_usage"),
    )

    def __init__(self, name: str, kind: str, shapes: list, parent: FunctionEvent | None) -> None:
        self.name = name
        self.kind = kind
        self.input_shapes = shapes
        self.cpu_parent = parent
        self.cpu_children: list[FunctionEvent] = []
        self.cpu_memory_usage = 0  # bytes of the results that are not views
        self.inside = 0  # nanoseconds of the children
        self.end = 0
        self.start = perf_counter_ns()

    @property
    def key(self) -> str:
        """What events are averaged by: the name."""
        return self.name

    @property
    def cpu_time_total(self) -> float:
        """Microseconds from beginning to end."""
        return (self.end - self.start) / 1e3

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds less those of the events inside."""
        return (self.end - self.start - self.inside) / 1e3

    def __repr__(self) -> str:
        return f"<{self.name}: {self.cpu_time_total:.1f} us>"


class _Trace:
    """The events of one thread, in the order in which they began."""

    def __init__(self, shapes: bool, memory: bool) -> None:
        self.shapes, self.memory = shapes, memory
        self.events: list[FunctionEvent] = []
        self.inner: FunctionEvent | None = None

    def begin(self, name: str, kind: str, args: Iterable[Any] = ()) -> FunctionEvent:
        shapes = [_shape(x) for x in args] if self.shapes else []
        event = FunctionEvent(name, kind, shapes, self.inner)
        if self.inner is not None:
            self.inner.cpu_children.append(event)
        self.events.append(event)
        self.inner = event
        return event

    def finish(self, event: FunctionEvent, result: Any = None) -> None:
        event.end = perf_counter_ns()
        if self.memory:
            event.cpu_memory_usage = _bytes(result)
        self.inner = event.cpu_parent
        if self.inner is not None:
            self.inner.inside += event.end - event.start


def _shape(x: Any) -> list:
    if type(x) in (list, tuple):
        return [_shape(part) for part in x if isinstance(part, np.ndarray)]
    return list(x.shape) if isinstance(x, np.ndarray) else []


def _bytes(result: Any) -> int:
    if type(result) is tuple:
        return sum(map(_bytes, result))
    return result.nbytes if isinstance(result, np.ndarray) and result.base is None else 0


class _Open(threading.local):
    trace: _Trace | None = None


_open = _Open()


# ---------------------------------------------------------------- what is put before the calls


def _timed_enter(trace: _Trace, enter: Callable) -> Callable:
    """`ThreadState.enter` that notes every function which runs through it."""

    def timed(function: Callable, *args: Any, **kwargs: Any) -> Any:
        name = getattr(function, "__name__", type(function).__name__).strip("_")
        event, result = trace.begin(name, "operator", args[1:]), None
        try:
            try:
                result = enter(function, *args, **kwargs)
            except RuntimeError as error:
                if not entered(error):
                    raise
                result = function(*args, **kwargs)
            return result
        finally:
            trace.finish(event, result)

    return timed


def _timed_entry(trace: _Trace, name: str, layer: str, entry: Callable) -> Callable:
    label = f"{layer}::{name}"

    def timed(*args: Any, **kwargs: Any) -> Any:
        event, result = trace.begin(label, "kernel", args), None
        try:
            result = entry(*args, **kwargs)
            return result
        finally:
            trace.finish(event, result)

    timed.__name__ = name
    return timed


def _timed_table(trace: _Trace, table: Kernels) -> Kernels:
    """A copy of the table whose entries note their calls; NumPy's functions stay as they are."""
    timed = object.__new__(Kernels)
    for name in ("device", "name", "ndarray", "half", "sources", "reasons"):
        setattr(timed, name, getattr(table, name))
    for name in (*ARRAY_ENTRIES, *KERNEL_ENTRIES):
        entry, layer = getattr(table, name), table.sources[name]
        setattr(timed, name, entry if layer == "numpy" else _timed_entry(trace, name, layer, entry))
    return timed


class _TimedBackward:
    """Stands before `backward` of a class of operators; threads without a profile pass through."""

    def __init__(self, plain: Callable) -> None:
        self.plain = plain

    def __get__(self, operator: Any, owner: type | None = None) -> Callable:
        if operator is None:
            return self.plain
        backward = vars(operator).get("backward") or self.plain.__get__(operator)
        trace = _open.trace
        if trace is None:
            return backward

        def timed(node: Any, g: Any, create_graph: bool) -> tuple:
            event = trace.begin(node.name(), "gradient", g if type(g) is tuple else (g,))
            try:
                return backward(node, g, create_graph)
            finally:
                trace.finish(event)

        return timed

    def __set__(self, operator: Any, backward: Callable) -> None:
        vars(operator)["backward"] = backward  # the compiled one, after a first call


_CLASSES = (Operator, _FunctionOperator)
_lock = threading.Lock()
_profiles = 0  # that are open, in all threads


def _count(change: int) -> None:
    """One profile more or less; the first puts the descriptors there, the last takes them away."""
    global _profiles
    with _lock:
        if _profiles == 0:
            for cls in _CLASSES:
                cls.backward = _TimedBackward(cls.backward)  # type: ignore[method-assign]
        _profiles += change
        if _profiles == 0:
            for cls in _CLASSES:
                cls.backward = cls.backward  # type: ignore[method-assign]  # the descriptor's own


# ---------------------------------------------------------------- what users call


class record_function:  # noqa: N801 - PyTorch's names
    """Mark a block, or a function that it decorates, as an event of its own."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name if args is None else f"{name}({args})"
        self._events: list[tuple[_Trace, FunctionEvent] | None] = []

    def __enter__(self) -> record_function:
        trace = _open.trace
        self._events.append(trace and (trace, trace.begin(self.name, "user")))
        return self

    def __exit__(self, *error: Any) -> None:
        opened = self._events.pop()
        if opened is not None:
            opened[0].finish(opened[1])

    def __call__(self, function: Callable) -> Callable:
        """Decorate a function."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return wrapped


class profile:  # noqa: N801
    """Record this thread's operators in a `with` block, or between `start` and `stop`.

    record_shapes: keep the shapes of the arguments; profile_memory: the bytes of the results that
    are not views.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Any = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
    ) -> None:
        if activities is not None and set(activities) != {ProfilerActivity.CPU}:
            raise UnsupportedError("activities must be [ProfilerActivity.CPU]", operator="profile")
        given = {"schedule": schedule, "with_stack": with_stack}
        for name, value in {
            **given,
            "with_flops": with_flops,
            "with_modules": with_modules,
        }.items():
            if value:
                rule = f"{name} is left out; mark steps and modules with record_function"
                raise UnsupportedError(rule, operator="profile")
        self.on_trace_ready = on_trace_ready
        self._trace = _Trace(record_shapes, profile_memory)
        self._before: tuple[Any, Any, Any] | None = None
        self._span = 0, 0

    def start(self) -> None:
        """Begin to record; once per profile."""
        if _open.trace is not None or self._span[0]:
            rule = "a profile is open in this thread" if _open.trace else "it was used already"
            raise MinidlError(rule, operator="profile")
        state = local.state
        self._before = state, state.enter, state.cpu
        state.enter = _timed_enter(self._trace, state.enter)
        state.cpu = _timed_table(self._trace, state.cpu)
        _count(1)
        _open.trace = self._trace
        self._span = perf_counter_ns(), 0

    def stop(self) -> None:
        """Leave the thread as it was, and hand the profile to `on_trace_ready`."""
        if self._before is None or _open.trace is not self._trace:
            raise MinidlError("it is not open in this thread", operator="profile")
        self._span = self._span[0], perf_counter_ns()
        _open.trace = None
        _count(-1)
        state, state.enter, state.cpu = self._before
        self._before = None
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def events(self) -> list[FunctionEvent]:
        """Every event that has ended, in the order in which they began."""
        return [event for event in self._trace.events if event.end]

    def key_averages(self, group_by_input_shape: bool = False) -> EventList:
        """Sums over the events of one name (and of one list of shapes)."""
        found: dict[Any, FunctionEventAvg] = {}
        for event in self.events():
            shapes = event.input_shapes if group_by_input_shape else []
            key = event.name, str(shapes)
            found.setdefault(key, FunctionEventAvg(event.name, shapes)).add(event)
        return EventList(found.values(), (self._span[1] - self._span[0]) / 1e3)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events for chrome://tracing or ui.perfetto.dev; `.gz` is compressed."""
        import gzip  # seldom needed, and slow to import
        import json

        place = {"pid": os.getpid(), "tid": threading.get_native_id()}
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", **place, "args": {"name": "minidl"}}
        ]
        for event in self.events():
            args: dict[str, Any] = {}
            if self._trace.shapes:
                args["Input Dims"] = event.input_shapes
            if self._trace.memory:
                args["Bytes"] = event.cpu_memory_usage
            times = {"ts": event.start / 1e3, "dur": (event.end - event.start) / 1e3}
            head = {"ph": "X", "cat": event.kind, "name": event.name}
            events.append({**head, **place, **times, "args": args})
        text = json.dumps({"displayTimeUnit": "ms", "traceEvents": events})
        opened = gzip.open if os.fspath(path).endswith(".gz") else open
        with opened(path, "wt", encoding="utf-8") as file:
            file.write(text)


class FunctionEventAvg:
    """All events of one name: how often, and how long in microseconds."""

    def __init__(self, key: str, shapes: Sequence[Any] = ()) -> None:
        self.key = key
        self.input_shapes = shapes
        self.count = 0
        self.cpu_time_total = 0.0
        self.self_cpu_time_total = 0.0
        self.cpu_memory_usage = 0

    def add(self, event: FunctionEvent) -> None:
        """Count one more event."""
        self.count += 1
        self.cpu_time_total += event.cpu_time_total
        self.self_cpu_time_total += event.self_cpu_time_total
        self.cpu_memory_usage += event.cpu_memory_usage

    @property
    def cpu_time(self) -> float:
        """Microseconds of one call, on average."""
        return self.cpu_time_total / self.count

    def __repr__(self) -> str:
        return f"<{self.key}: {self.count} calls, {self.cpu_time_total:.1f} us>"


class EventList(list[FunctionEventAvg]):
    """What `key_averages` gives: rows for `table`."""

    SORTS = (
        *("self_cpu_time_total", "cpu_time_total", "cpu_time", "count", "cpu_memory_usage"),
        "key",
    )

    def __init__(self, rows: Iterable[FunctionEventAvg], wall: float) -> None:
        super().__init__(rows)
        self.wall = wall  # microseconds that the profile was open

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds inside of events."""
        return sum(row.self_cpu_time_total for row in self)

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_name_column_width: int = 55,
        header: str | None = None,
    ) -> str:
        """The rows as text, the largest first; `row_limit` below 0 is all of them."""
        if sort_by is not None and sort_by not in self.SORTS:
            names = ", ".join(self.SORTS)
            raise ArgumentError(f"sort_by must be one of {names}", got=repr(sort_by))
        rows = list(self)
        if sort_by is not None:
            rows.sort(key=lambda row: getattr(row, sort_by), reverse=sort_by != "key")
        if row_limit >= 0:
            rows = rows[:row_limit]
        head = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg"]
        head.append("# of Calls")
        shapes = any(row.input_shapes for row in self)
        memory = any(row.cpu_memory_usage for row in self)
        head += ["Bytes"] * memory + ["Input Shapes"] * shapes
        everything = self.self_cpu_time_total or 1.0
        lines = [head]
        for row in rows:
            name, width = row.key, max_name_column_width
            cells = [name if len(name) <= width else f"{name[: width - 3]}..."]
            for time in (row.self_cpu_time_total, row.cpu_time_total):
                cells += [f"{100 * time / everything:.2f}%", _time(time)]
            cells += [_time(row.cpu_time), str(row.count)]
            cells += [str(row.cpu_memory_usage)] * memory + [str(row.input_shapes)] * shapes
            lines.append(cells)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = "  ".join("-" * width for width in widths)
        text = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        parts = [*([header] if header else []), rule, text[0], rule, *text[1:], rule]
        total, wall = _time(self.self_cpu_time_total), _time(self.wall)
        return "\n".join([*parts, f"Self CPU time total: {total} of {wall} in the profile"]) + "\n"


def _time(microseconds: float) -> str:
    for scale, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= scale:
            return f"{microseconds / scale:.3f}{unit}"
    return f"{microseconds:.3f}us"

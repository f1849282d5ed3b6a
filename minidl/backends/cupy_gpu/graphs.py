"""CUDA graphs: work that is recorded once and then started as a whole, in torch.cuda's names.

A training step of small kernels is bound by the time that Python takes to start them; a replayed
graph starts them all at once.

    step()                                   # in a side stream, two or three times: loads kernels,
                                             # makes the optimiser's state
    g = cuda.CUDAGraph()
    with cuda.graph(g):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    for x_new, y_new in batches:
        x.copy_(x_new), y.copy_(y_new)       # the graph reads these tensors
        g.replay()                           # and writes `loss`
        schedule.step()

Random numbers, learning rates and Adam's count of steps are fresh in every replay. What needs a
value on the CPU (`item`, printing, boolean indices, `nonzero`) cannot be captured and raises. A
graph holds addresses, not tensors: the model, the optimiser, `x` and `y` must live as long as it.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from minidl.backends.cupy_gpu.capture import Recording, capturing
from minidl.backends.cupy_gpu.host import note_again, raise_refused, take_noted
from minidl.backends.cupy_gpu.streams import (
    Stream,
    current_stream,
    device_index,
    stream as stream_context,
)
from minidl.backends.cupy_gpu.xp import cp
from minidl.errors import DeviceError

# of graphs: arrays that a graph writes must not be handed to others between its replays
private_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Memory that graphs have for themselves; see `graph_pool_handle`."""

    def __init__(self) -> None:
        device_index(None)  # says so where there is no GPU
        pool = cp.cuda.MemoryPool()
        self.malloc, self.used_bytes, self.total_bytes = (
            pool.malloc,
            pool.used_bytes,
            pool.total_bytes,
        )
        private_pools.add(self)


def graph_pool_handle() -> Pool:
    """A pool of memory that several graphs may share, if they are replayed one after the other."""
    return Pool()


def is_current_stream_capturing() -> bool:
    """Whether work of this thread goes into a graph instead of being run."""
    return capturing()


class CUDAGraph:
    """Recorded work: `with cuda.graph(g): ...` records, `g.replay()` runs it."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._pool: Pool | None = None
        self._stream: Any = None
        self._allocator: Any = None
        self._recording: Any = None
        self._checks: list = []

    def capture_begin(self, pool: Pool | None = None, capture_error_mode: str = "relaxed") -> None:
        """Record what this thread puts into the current stream, which must not be the default one.

        pool: of `graph_pool_handle()` or another graph's `pool()`, by default an own one.
        capture_error_mode: "relaxed" lets the pool ask for memory while the graph is recorded;
        "thread_local" and "global" refuse all that waits for the GPU.
        """
        if self._graph is not None or self._stream is not None:
            raise DeviceError("this graph is captured already; reset() it or use a new one")
        modes = {"relaxed": "Relaxed", "thread_local": "ThreadLocal", "global": "Global"}
        if capture_error_mode not in modes:
            raise DeviceError(f"capture_error_mode is one of {', '.join(modes)}")
        stream = current_stream().cupy
        mode = getattr(cp.cuda.runtime, f"streamCaptureMode{modes[capture_error_mode]}")
        if stream.ptr in (0, 1, 2):  # the default ones: legacy, and that of the thread
            raise DeviceError("the default stream cannot be captured; use cuda.graph or a Stream")
        cp.cuda.Device().synchronize()  # for the values that the checks read, whatever their stream
        raise_refused()
        self._pool = graph_pool_handle() if pool is None else pool
        self._allocator = cp.cuda.using_allocator(self._pool.malloc)
        self._allocator.__enter__()
        try:
            recording = Recording()
            stream.synchronize()
            recording.begin()
            try:
                stream.begin_capture(mode)
            except BaseException:
                recording.end()
                raise
        except BaseException:
            self._allocator.__exit__(None, None, None)
            raise
        self._recording, self._stream = recording, stream

    def capture_end(self) -> None:
        """Stop recording; what was recorded has not run."""
        if self._stream is None:
            raise DeviceError("capture_end() without capture_begin()")
        stream, self._stream = self._stream, None
        self._recording.end()
        self._checks = take_noted()
        self._allocator.__exit__(None, None, None)
        try:
            self._graph = stream.end_capture()
        except BaseException:
            self.reset()
            raise

    def replay(self) -> None:
        """Run what was recorded, in the current stream; the CPU does not wait."""
        if self._graph is None:
            raise DeviceError("nothing is captured yet: `with cuda.graph(g): ...`")
        self._recording.refresh()
        self._graph.launch()
        if self._checks:
            note_again(self._checks)

    def reset(self) -> None:
        """Forget what was recorded. Its memory goes back with the last tensor that lies in it."""
        self._graph = self._pool = self._recording = None
        self._checks = []

    def pool(self) -> Pool:
        """The pool of its memory, for graphs that share it."""
        if self._pool is None:
            raise DeviceError("nothing is captured yet: `with cuda.graph(g): ...`")
        return self._pool


class graph:  # noqa: N801 - torch's name
    """`with cuda.graph(g):` captures the block in `g`; the block does not run.

    stream: a side stream to capture in, by default one of its own; pool, capture_error_mode: see
    `CUDAGraph.capture_begin`. Before it unused memory is collected and the GPU waited for.
    """

    def __init__(
        self,
        cuda_graph: CUDAGraph,
        pool: Pool | None = None,
        stream: Stream | None = None,
        capture_error_mode: str = "relaxed",
    ) -> None:
        self.cuda_graph, self._pool, self._mode = cuda_graph, pool, capture_error_mode
        self._stream = Stream() if stream is None else stream
        self._context = stream_context(self._stream)

    def __enter__(self) -> None:
        gc.collect()
        self._context.__enter__()
        try:
            self.cuda_graph.capture_begin(self._pool, self._mode)
        except BaseException:
            self._context.__exit__(None, None, None)
            raise

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.cuda_graph.capture_end()
        except Exception:
            if error is None:  # what went wrong in the block is the better message
                raise
        finally:
            self._context.__exit__(None, None, None)
        if error is not None:
            self.cuda_graph.reset()


def make_graphed_callables(*args: Any, **kwargs: Any) -> Any:
    """Not supported: a graph holds the whole training step."""
    raise NotImplementedError(
        "make_graphed_callables is not supported; capture the whole step with"
        " `with minidl.cuda.graph(g):` and g.replay() it"
    )

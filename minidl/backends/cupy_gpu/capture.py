"""What a graph records beside kernels: numbers that are fresh in every replay.

A replay starts the recorded kernels with the recorded arguments. What must differ from replay to
replay (where random numbers start, the learning rate, Adam's count of steps) the kernels therefore
read from a few words of GPU memory that belong to the graph. `Recording` hands out these words
while a graph is captured, and before every replay the functions that `at_replay` noted run again,
in the same order, to say what the words hold now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.errors import DeviceError, UnsupportedError

_MOST = 14_336  # words of a graph


class OwnKernels(Protocol):
    """What a graph needs of kernels that are compiled with the package (`native_cuda`)."""

    def load(self) -> None:
        """Load every kernel on the current GPU: nothing may be loaded while a graph is captured."""

    def put_words(self, target: Any, values: list[int]) -> None:
        """Write the words into the first elements of `target`, (n,) uint64."""

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        """`numpy.matmul` without cuBLAS."""


_own_kernels: list[OwnKernels] = []


def register_kernels(kernels: OwnKernels | None) -> None:
    """Tell which kernels serve graphs, or that there are none; `native_cuda` does."""
    _own_kernels[:] = [] if kernels is None else [kernels]


def own_kernels(what: str) -> OwnKernels:
    """The registered kernels; without them UnsupportedError, for `what` cannot be captured."""
    if not _own_kernels:
        raise UnsupportedError(
            f"{what} cannot be captured in a graph without the kernels of csrc/cuda;"
            " `python -m minidl info` says why they are missing"
        )
    return _own_kernels[0]


class _Thread(threading.local):
    """`recording`: the one that is captured or about to be replayed in this thread, or None."""

    recording: Recording | None = None
    replaying = False


_thread = _Thread()


def capturing() -> bool:
    """Whether this thread captures a graph: nothing runs, and nothing may wait or be read."""
    return _thread.recording is not None and not _thread.replaying


def recording() -> Recording | None:
    """The graph that this thread captures, or whose words it is refreshing."""
    return _thread.recording


def refreshing() -> bool:
    """Whether a replay asks what its words hold now: nothing is to be started."""
    return _thread.replaying


def refuse_capture(what: str, instead: str) -> None:
    """Raise the error for what a graph cannot hold, while one is captured."""
    if capturing():
        raise UnsupportedError(f"{what} cannot be captured in a graph; {instead}")


_generators: list[Any] = []


def register_generator(generator: Any) -> None:
    """Tell which generator draws by default: its numbers are fresh in every replay of a graph.

    `minidl.ops.random` calls this once. The generator's `reserve(words)` gives (seed, offset).
    """
    _generators[:] = [generator]


def default_generator() -> Any:
    """The generator that `register_generator` was given."""
    if not _generators:
        raise DeviceError("no generator is registered")
    return _generators[0]


class Recording:
    """The words of one graph: [offset, seed, ...], the offset relative to the captured one."""

    def __init__(self) -> None:
        self.words = cp.zeros(_MOST, np.uint64)
        self.flat = np.zeros(_MOST, np.uint64)
        self.used = 2
        self.draws = False
        self._refresh: list[Callable[[], Any]] = []
        self._given: list[tuple[int, int]] = []
        self._next = 0
        self._seed = self._start = self._end = 0
        self._fresh = True
        for kernels in _own_kernels:
            kernels.load()

    # ---- while captured

    def begin(self) -> None:
        """Everything of this thread goes into the graph from here on."""
        if _thread.recording is not None:
            raise DeviceError("this thread captures a graph already")
        if _generators:
            self._seed, self._start = _generators[0].reserve(0)
        _thread.recording = self

    def end(self) -> None:
        """The graph is complete, or given up."""
        _thread.recording = None
        if _generators:
            self._end = _generators[0].reserve(0)[1]

    def draw(self, seed: int, offset: int) -> int:
        """Address of the words (offset, seed) for a draw that would start at `offset` now."""
        now = default_generator().reserve(0)
        ahead = (offset - self._start) % 2**64
        if (seed, now[0]) != (self._seed, self._seed) or ahead > (now[1] - self._start) % 2**64:
            raise UnsupportedError(
                "in a graph random numbers come from the default generator, which must not be"
                " seeded while the graph is captured"
            )
        self.draws = True
        return self.words.data.ptr

    def slots(self, values: Any) -> int:
        """Address of as many float64 as `values`, which are what they hold in the next replay.

        Refreshing, the same calls in the same order bring the new values.
        """
        values = np.asarray(values, np.float64)
        if _thread.replaying:
            if self._next == len(self._given) or self._given[self._next][1] != values.size:
                raise DeviceError(
                    "the optimiser is not as it was captured; capture the graph again"
                )
            first = self._given[self._next][0]
            self._next += 1
        else:
            first = self.used
            if first + values.size > _MOST:
                raise DeviceError(f"one graph holds {_MOST} numbers that change with the replay")
            self.used += values.size
            self._given.append((first, values.size))
        self.flat[first : first + values.size] = values.view(np.uint64)
        return self.words.data.ptr + 8 * first

    def at_replay(self, refresh: Callable[[], Any]) -> None:
        """Run `refresh` before every replay; its calls of `slots` bring the new values."""
        self._refresh.append(refresh)

    # ---- when replayed

    def refresh(self) -> None:
        """Bring the words up to date, in the current stream."""
        if self.draws:
            self._draw_anew()
        if self._refresh:
            if _thread.recording is not None:
                raise DeviceError("a graph cannot be replayed while one is captured")
            _thread.recording, _thread.replaying = self, True
            self._next = 0
            try:
                for refresh in self._refresh:
                    refresh()
            finally:
                _thread.recording, _thread.replaying = None, False
        if self.draws or self._refresh:
            own_kernels("a draw or a step").put_words(self.words, self.flat[: self.used].tolist())

    def _draw_anew(self) -> None:
        """Take the counters that one replay uses from the generator."""
        generator = default_generator()
        if self._fresh and generator.reserve(0) == (self._seed, self._end):
            offset, seed = self._start, self._seed  # those that the capture took and did not use
        else:
            seed, offset = generator.reserve(4 * ((self._end - self._start) % 2**64))
        self._fresh = False
        self.flat[0] = (offset - self._start) % 2**64
        self.flat[1] = seed

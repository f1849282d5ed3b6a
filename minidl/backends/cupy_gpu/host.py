"""Where values leave the GPU: reads, and checks of values that nothing waits for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import capturing, refuse_capture
from minidl.backends.cupy_gpu.xp import cp

__all__ = ["host", "refuse"]

# (0-d bool array, the error if it is True, the stream that computes it), in the order noted; of
# all threads
_noted: list[tuple[Any, Exception, Any]] = []
_lock = threading.Lock()
_MOST = 256  # programs that never read a value are told after so many checks


def host(x: Any) -> np.ndarray:
    """The elements as a NumPy array, after all work so far; raises what `refuse` noted."""
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    refuse_capture("a read of values", "leave it out of the graph's block")
    values = x.get()
    raise_refused()
    return values


def refuse(bad: Any, error: Exception) -> None:
    """Note `error`, to be raised by the next read of values if any element of `bad` is True."""
    if isinstance(bad, bool | np.ndarray | np.generic):
        if np.any(bad):
            raise error
        return
    with _lock:
        _noted.append((bad.any(), error, cp.cuda.get_current_stream()))
        full = len(_noted) > _MOST
    if full and not capturing():
        raise_refused()


def raise_refused() -> None:
    """Raise the first error that `refuse` noted and that came true; the others are dropped."""
    if not _noted:
        return
    with _lock:
        noted = _noted.copy()
        _noted.clear()
    for stream in {id(stream): stream for *_, stream in noted}.values():
        stream.synchronize()  # the read may be in another one
    for flag, error, _ in noted:
        if flag.get():
            raise error


def take_noted() -> list[tuple[Any, Exception, Any]]:
    """What was noted and not looked at: a graph that was captured keeps it for its replays."""
    with _lock:
        noted = _noted.copy()
        _noted.clear()
    return noted


def note_again(noted: list[tuple[Any, Exception, Any]]) -> None:
    """Note what `take_noted` gave, once: a replay in this stream writes the flags anew."""
    stream = cp.cuda.get_current_stream()
    with _lock:
        known = {id(flag) for flag, *_ in _noted}
        _noted.extend((flag, error, stream) for flag, error, _ in noted if id(flag) not in known)

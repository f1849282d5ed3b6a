"""Devices, streams and events in torch.cuda's names over CuPy's."""

from __future__ import annotations

from typing import Any

from minidl.backends.cupy_gpu.presence import present
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.table import TABLES, Device
from minidl.errors import ArgumentError, DeviceError


def device_index(device: Any = None) -> int:
    """The index of a GPU: an int, "cuda:1", a Device, or None for the current one."""
    if "cupy" not in TABLES:  # where there is a table there is CuPy, or the tests' stand-in
        present()
    runtime = cp.cuda.runtime
    if device is None:
        return runtime.getDevice()
    if isinstance(device, int) and not isinstance(device, bool):
        index: int | None = device
    else:
        where = Device(device)
        if where.type != "cuda":
            raise DeviceError("the device must be a GPU", got=str(where))
        index = where.index
    if index is None or index == -1:
        return runtime.getDevice()
    count = runtime.getDeviceCount()
    if not 0 <= index < count:
        raise DeviceError(f"GPUs are numbered from 0 to {count - 1} here", got=str(index))
    return index


class device:  # noqa: N801 - torch's name
    """`with cuda.device(1):` makes a GPU the current one of this thread for the block.

    An index, "cuda:1" or a `minidl.device`; None or -1 changes nothing.
    """

    def __init__(self, device: Any) -> None:
        index = device_index(None if device == -1 else device)
        self.idx = -1 if device is None or device == -1 else index
        self._before: list[int] = []

    def __enter__(self) -> device:
        runtime = cp.cuda.runtime
        self._before.append(runtime.getDevice())
        if self.idx >= 0:
            runtime.setDevice(self.idx)
        return self

    def __exit__(self, *error: Any) -> None:
        cp.cuda.runtime.setDevice(self._before.pop())


class Stream:
    """A queue of work of a GPU, beside the default one; `with cuda.stream(s):` fills it.

    device: where (the current GPU); priority: lower numbers go first. Memory that a stream's
    arrays leave is used again by that stream only, in its order. So an array must not be dropped
    while another stream still reads it: let the first wait for that (`wait_stream`).
    """

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        with _on(device_index(device)):
            self._adopt(cp.cuda.Stream(non_blocking=True, priority=priority))

    def _adopt(self, stream: Any) -> None:
        self.cupy = stream
        index = stream.device_id
        self.device = Device("cuda", cp.cuda.runtime.getDevice() if index < 0 else index)
        self.device_index = self.device.index

    @classmethod
    def of(cls, stream: Any) -> Stream:
        """The same queue as a CuPy stream."""
        made = cls.__new__(cls)
        made._adopt(stream)
        return made

    @property
    def cuda_stream(self) -> int:
        """The address that CUDA knows it by."""
        return self.cupy.ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.cupy.ptr)

    def query(self) -> bool:
        """Whether all its work is done."""
        return self.cupy.done

    def synchronize(self) -> None:
        """Wait until all its work is done."""
        self.cupy.synchronize()

    def record_event(self, event: Event | None = None) -> Event:
        """Put an event (a new one by default) behind the work so far; returns it."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let its further work wait for an event; the CPU does not wait."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """Let its further work wait for what is in another stream now; the CPU does not wait."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return False
        return (self.cupy.ptr, self.device_index) == (other.cupy.ptr, other.device_index)

    def __hash__(self) -> int:
        return hash((self.cupy.ptr, self.device_index))

    def __repr__(self) -> str:
        return f"<minidl.cuda.Stream device={self.device} cuda_stream={self.cupy.ptr:#x}>"


class Event:
    """A mark in a stream: others wait for it, and two of them measure time.

    enable_timing: whether `elapsed_time` may be asked; blocking: `synchronize` sleeps rather than
    looks again and again; interprocess is not supported.
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        if interprocess:
            raise NotImplementedError(
                "events are not shared between processes; wait with `synchronize` and tell the"
                " other process by a queue"
            )
        self._timing, self._blocking = enable_timing, blocking
        self._event: Any = None  # made where it is first recorded: it belongs to that GPU

    @property
    def cuda_event(self) -> int:
        """The address that CUDA knows it by; 0 before it is recorded."""
        return 0 if self._event is None else self._event.ptr

    def record(self, stream: Stream | None = None) -> None:
        """Put it behind the work so far of a stream, by default the current one."""
        stream = current_stream() if stream is None else stream
        with _on(stream.device_index):
            if self._event is None:
                self._event = cp.cuda.Event(block=self._blocking, disable_timing=not self._timing)
            self._event.record(stream.cupy)

    def wait(self, stream: Stream | None = None) -> None:
        """Let the further work of a stream, by default the current one, wait for it."""
        stream = current_stream() if stream is None else stream
        if self._event is not None:
            stream.cupy.wait_event(self._event)

    def query(self) -> bool:
        """Whether all work before it is done; True before it is recorded."""
        return self._event is None or self._event.done

    def synchronize(self) -> None:
        """Wait until all work before it is done."""
        if self._event is not None:
            self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to `end_event`, both recorded and done."""
        if not (self._timing and end_event._timing):
            raise ArgumentError("both events need enable_timing=True", operator="elapsed_time")
        if self._event is None or end_event._event is None:
            raise ArgumentError("both events must be recorded before", operator="elapsed_time")
        return cp.cuda.get_elapsed_time(self._event, end_event._event)

    def __repr__(self) -> str:
        return f"<minidl.cuda.Event {self.cuda_event:#x}>"


def _on(index: Any) -> Any:
    return cp.cuda.Device(index)


def current_stream(device: Any = None) -> Stream:
    """The stream that takes the work of this thread on a GPU, by default the current one."""
    index = device_index(device)
    with _on(index):
        return Stream.of(cp.cuda.get_current_stream(index))


def default_stream(device: Any = None) -> Stream:
    """The stream of a GPU that work goes to unless told otherwise."""
    with _on(device_index(device)):
        return Stream.of(cp.cuda.Stream.null)


def set_stream(stream: Stream) -> None:
    """Make a stream the current one of this thread and its GPU; `with cuda.stream(s)` is safer."""
    with _on(stream.device_index):
        stream.cupy.use()


class stream:  # noqa: N801 - torch's name
    """`with cuda.stream(s):` puts the work of the block into `s`, on its GPU; None changes nothing.

    The block's work does not wait for that before it: `s.wait_stream(cuda.current_stream())`.
    """

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self._device = device(None if stream is None else stream.device_index)

    def __enter__(self) -> Stream | None:
        self._device.__enter__()
        if self.stream is not None:
            self.stream.cupy.__enter__()
        return self.stream

    def __exit__(self, *error: Any) -> None:
        if self.stream is not None:
            self.stream.cupy.__exit__(*error)
        self._device.__exit__(*error)

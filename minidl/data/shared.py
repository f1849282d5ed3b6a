"""Batches between processes: arrays through memory that nobody has to clean up.

A batch is pickled with its arrays taken out; these lie one after the other in an anonymous file in
memory whose descriptor goes through the socket. The memory is gone when the last process that holds
it is, however that ends. Small batches go through the socket whole.
"""

from __future__ import annotations

import io
import os
import pickle
from typing import Any

import numpy as np

from minidl.autograd import no_grad
from minidl.dtypes import dtype_of
from minidl.ops.creation import from_numpy
from minidl.tensor import Parameter, Tensor

_INLINE = 1 << 15  # bytes: a few of these fit into any socket's buffer, so that no side waits
_ALIGNED = 64


class _Packer(pickle.Pickler):
    """Pickles a batch and keeps its arrays aside."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        """A description of a tensor or an array; None for everything else."""
        if type(obj) is Tensor:
            flags = (obj.is_parameter, obj.requires_grad)
            return (self._keep(obj.detach().numpy()), obj.dtype.name, *flags)
        if type(obj) is np.ndarray and obj.dtype.kind in "biufc" and obj.dtype.isnative:
            return (self._keep(obj), obj.dtype.str)
        return None

    def _keep(self, array: np.ndarray) -> tuple[int, tuple[int, ...]]:
        self.arrays.append(np.asarray(array, order="C"))
        return len(self.arrays) - 1, array.shape


class _Unpacker(pickle.Unpickler):
    """Puts a batch together from its description and the memory of its arrays."""

    def __init__(self, file: Any, buffer: Any, offsets: list[int]) -> None:
        super().__init__(file)
        self._buffer, self._offsets = buffer, offsets

    def persistent_load(self, pid: Any) -> Any:
        """The tensor or array of a description."""
        (number, shape), name, *flags = pid
        dtype = dtype_of(name).numpy if flags else np.dtype(name)
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(self._buffer, dtype, count, self._offsets[number])
        array = flat.reshape(shape)
        if not flags:
            return array
        parameter, requires_grad = flags
        tensor = from_numpy(array)
        if parameter:
            return Parameter(tensor, requires_grad=requires_grad)
        return tensor.requires_grad_() if requires_grad else tensor


def send(connection: Any, number: int, batch: Any) -> None:
    """Send batch `number` to the process at the other end."""
    import mmap
    from multiprocessing import reduction

    file = io.BytesIO()
    packer = _Packer(file)
    with no_grad():
        packer.dump(batch)
    offsets, size = [], 0
    for array in packer.arrays:
        offsets.append(size)
        size += -(-array.nbytes // _ALIGNED) * _ALIGNED
    head = pickle.dumps((file.getvalue(), offsets))
    if size + len(head) <= _INLINE:
        connection.send((number, head, b"".join(_padded(a) for a in packer.arrays)))
        return
    handle = _anonymous(size + len(head))
    try:
        with mmap.mmap(handle, size + len(head)) as memory:
            for array, offset in zip(packer.arrays, offsets, strict=True):
                window = np.frombuffer(memory, np.uint8, array.nbytes, offset)
                window[...] = array.reshape(-1).view(np.uint8)
                del window
            memory[size:] = head
        connection.send((number, size, len(head)))
        reduction.send_handle(connection, handle, None)
    finally:
        os.close(handle)


def receive(connection: Any, message: Any) -> Any:
    """The batch of a message that `send` wrote; its arrays lie in the memory that was sent."""
    import mmap
    from multiprocessing import reduction

    _, head, rest = message
    if isinstance(head, bytes):
        described, offsets = pickle.loads(head)
        buffer: Any = bytearray(rest)
    else:
        handle = reduction.recv_handle(connection)
        try:
            buffer = mmap.mmap(handle, head + rest)
        finally:
            os.close(handle)
        described, offsets = pickle.loads(buffer[head:])
    return _Unpacker(io.BytesIO(described), buffer, offsets).load()


def _padded(array: np.ndarray) -> bytes:
    return array.tobytes().ljust(-(-array.nbytes // _ALIGNED) * _ALIGNED, b"\0")


def _anonymous(size: int) -> int:
    """A descriptor of memory without a name."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("minidl-batch")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    try:
        os.truncate(handle, size)
    except OSError:
        os.close(handle)
        raise
    return handle

"""PyTorch's files, read without PyTorch and without running anything that is in them.

A file is a pickle whose tensors refer to storages: in a zip archive (PyTorch 1.6 and later:
`data.pkl`, one stored entry per storage), or before that one after the other in one stream. The
pickle is read by Python's own virtual machine, cut down to the operations that plain containers
need; the few names that it may mention are the functions and classes below.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from minidl import dtypes
from minidl.dtypes import DType
from minidl.errors import ArgumentError, MinidlError, UnsupportedError
from minidl.ops.creation import from_numpy
from minidl.serialization.container import mapped, window
from minidl.tensor import Parameter, Tensor, as_device

_ZIP = b"PK\x03\x04"
_MAGIC = 0x1950A86A20F9469CFC6C  # what the stream of the older format begins with
_OLD_START = b"\x80\x02\x8a\x0a"  # the pickle of that number
_OLD_VERSION = 1001

_STORAGES = {
    "DoubleStorage": dtypes.float64,
    "FloatStorage": dtypes.float32,
    "HalfStorage": dtypes.float16,
    "BFloat16Storage": dtypes.bfloat16,
    "LongStorage": dtypes.int64,
    "IntStorage": dtypes.int32,
    "ShortStorage": dtypes.int16,
    "CharStorage": dtypes.int8,
    "ByteStorage": dtypes.uint8,
    "BoolStorage": dtypes.bool_,
}
_DTYPES = {dtype.name: dtype for dtype in _STORAGES.values()}
# Marks, memo, constants, containers, and the calls that _Reader checks.
_OPERATIONS = """
    PROTO FRAME STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_SET ADDITEMS FROZENSET
    GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID
"""
_CODES = {getattr(pickle, name)[0]: name for name in _OPERATIONS.split()}
_NAMES_OF_CODES = {
    code[0]: name
    for name in pickle.__all__
    if isinstance(code := getattr(pickle, name), bytes) and len(code) == 1
}


class _Storage:
    """A flat array that tensors are windows of; all tensors of a storage share its memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class _StorageType:
    """A class of storages as the pickle names it."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype


def is_torch_file(source: Path | bytes) -> bool:
    """Whether a file, or its content, begins as one of PyTorch's."""
    if isinstance(source, bytes):
        start = source[:4]
    else:
        with open(source, "rb") as file:
            start = file.read(4)
    return start in (_ZIP, _OLD_START)


def read_torch_file(source: Path | bytes, device: Any, keep_mapped: bool) -> Any:
    """The object in a file of PyTorch's; ArgumentError for damage, UnsupportedError for classes."""
    where = "the data" if isinstance(source, bytes) else str(source)
    buffer = source if isinstance(source, bytes) else mapped(source)
    reader = _read_zip if bytes(buffer[:4]) == _ZIP else _read_stream
    try:
        return reader(buffer, as_device(device), keep_mapped)
    except MinidlError:
        raise
    except Exception as error:  # the machine meets damage in whatever form it takes
        raise ArgumentError(
            f"[load] {where} is no file of PyTorch's, or damaged: {type(error).__name__}: {error}"
        ) from error


# ---------------------------------------------------------------- the two formats


def _read_zip(buffer: Any, device: Any, keep_mapped: bool) -> Any:
    entries = _entries(buffer)
    (pickled,) = (name for name in entries if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    if order is not None and bytes(buffer[order[0] : sum(order[:2])]) != sys.byteorder.encode():
        raise UnsupportedError("[load] the file was written on a machine of another byte order")
    storages: dict[tuple[str, DType], _Storage] = {}

    def find(pid: Any) -> _Storage:
        kind, storage_type, key, _location, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise ValueError("a reference to something else than a storage")
        dtype = storage_type.dtype
        if (key, dtype) not in storages:
            start, size, _ = entries[f"{folder}data/{key}"]
            if not 0 <= count * dtype.itemsize <= size:
                raise ValueError(f"storage {key} has {size} bytes, not {count} elements")
            array = window(buffer, dtype.numpy, count, start, keep_mapped)
            storages[key, dtype] = _Storage(array)
        return storages[key, dtype]

    start, size, _ = entries[pickled]
    return _Reader(io.BytesIO(bytes(buffer[start : start + size])), find, device).load()


def _entries(buffer: Any) -> dict[str, tuple[int, int, int]]:
    """Start, size and checksum of every entry, none compressed and none outside of the file."""
    import zipfile
    import zlib

    found: dict[str, tuple[int, int, int]] = {}
    total = 0
    with zipfile.ZipFile(_File(buffer)) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"entry {info.filename!r} is compressed")
            head = bytes(buffer[info.header_offset : info.header_offset + 30])
            if len(head) < 30 or head[:4] != _ZIP:
                raise ValueError(f"entry {info.filename!r} has no header")
            names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            start = info.header_offset + 30 + names
            total += info.file_size
            if start + info.file_size > len(buffer) or total > len(buffer):
                raise ValueError(f"entry {info.filename!r} goes beyond the file")
            if info.filename in found:
                raise ValueError(f"entry {info.filename!r} occurs twice")
            if zlib.crc32(memoryview(buffer)[start : start + info.file_size]) != info.CRC:
                raise ValueError(f"entry {info.filename!r} does not match its checksum")
            found[info.filename] = (start, info.file_size, info.CRC)
    if sum(name.endswith("/data.pkl") for name in found) != 1:
        raise ValueError("the archive has no data.pkl")
    return found


def _read_stream(buffer: Any, device: Any, keep_mapped: bool) -> Any:
    file = _File(buffer)

    def refuse(pid: Any) -> Any:
        raise ValueError("a storage before its time")

    def plain() -> Any:
        return _Reader(file, refuse, None).load()

    if plain() != _MAGIC or plain() != _OLD_VERSION:
        raise ValueError("it begins with another number")
    if plain().get("little_endian", True) != (sys.byteorder == "little"):
        raise UnsupportedError("[load] the file was written on a machine of another byte order")
    storages: dict[str, _Storage] = {}
    kinds: dict[str, tuple[DType, int]] = {}

    def find(pid: Any) -> _Storage:
        kind, storage_type, key, _location, count, view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise ValueError("a reference to something else than a whole storage")
        dtype = storage_type.dtype
        if kinds.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key} has two sizes")
        if key not in storages:
            # The numbers come behind the pickle: until then there is room for as many as there are.
            if not 0 <= count * dtype.itemsize <= len(buffer):
                raise ValueError(f"storage {key} is larger than the file")
            storages[key] = _Storage(np.zeros(count, dtype.numpy))
            if sum(s.array.nbytes for s in storages.values()) > len(buffer):
                raise ValueError("the storages are larger than the file")
        return storages[key]

    result = _Reader(file, find, device).load()
    keys = plain()
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise ValueError("the list of storages does not fit")
    for key in keys:
        dtype, count = kinds[key]
        if int.from_bytes(file.read(8), "little") != count:
            raise ValueError(f"storage {key} has another size")
        start = file.tell()
        storages[key].array[...] = window(buffer, dtype.numpy, count, start, False)
        file.seek(start + count * dtype.itemsize)
    return result


class _File(io.RawIOBase):
    """A buffer as a file that copies only what is read."""

    def __init__(self, buffer: Any) -> None:
        super().__init__()
        self._buffer, self._at = buffer, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, as many as there are."""
        stop = len(self._buffer) if size is None or size < 0 else self._at + size
        data = bytes(self._buffer[self._at : stop])
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as there are bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        """The bytes up to and with the next end of a line."""
        at = bytes(self._buffer[self._at : self._at + 4096]).find(b"\n")
        return self.read(at + 1 if at >= 0 else 4096)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        start = (0, self._at, len(self._buffer))[whence]
        if start + offset < 0:
            raise ValueError("a place before the start")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """The present place."""
        return self._at


# ---------------------------------------------------------------- what a pickle may do


_Machine: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Reader(_Machine):
    """Python's unpickler without its dangerous operations and with a few names only."""

    dispatch = {code: _Machine.dispatch[code] for code in _CODES}

    def __init__(self, file: Any, find_storage: Any, device: Any) -> None:
        super().__init__(file)
        self._find_storage, self._device = find_storage, device

    def load(self) -> Any:
        """The object; an operation that is not allowed is a ValueError."""
        try:
            return super().load()
        except KeyError as error:
            code = error.args[0] if error.args else None
            if isinstance(code, int) and code not in self.dispatch:
                name = _NAMES_OF_CODES.get(code, code)
                raise ValueError(f"the pickle has operation {name}, which is not read") from error
            raise

    def find_class(self, module: str, name: str) -> Any:
        """One of the names that a state needs; UnsupportedError for every other."""
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        found = _NAMES.get((module, name))
        if found is None:
            raise UnsupportedError(
                f"[load] the file holds {module}.{name}; only tensors and plain containers are "
                "read, since anything else could run code: save a state_dict"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """The storage that a tensor refers to."""
        return self._find_storage(pid)

    def load_reduce(self) -> None:
        """Call one of the functions of `find_class`, and nothing else."""
        stack: Any = self.stack
        args, function = stack.pop(), stack[-1]
        if function not in _CALLS or type(args) is not tuple:
            raise ValueError("a call of what is no function here")
        stack[-1] = function(self, *args)

    def load_build(self) -> None:
        """Give an OrderedDict its attributes: state dictionaries have `_metadata`."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not OrderedDict or type(state) is not dict:
            raise ValueError(f"attributes of a {type(target).__name__}")
        if "_metadata" in state:
            target._metadata = state["_metadata"]  # type: ignore[attr-defined]

    def load_setitem(self) -> None:
        """Add one pair to a dictionary."""
        _plain_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Add the pairs since the last mark to a dictionary."""
        _plain_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """Make a dictionary of the pairs since the last mark."""
        _plain_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        """Add the items since the last mark to a set."""
        _plain_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        """Make a set of the items since the last mark."""
        _plain_keys(self.stack)
        super().load_frozenset()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


_PLAIN = (str, int, float, bool, bytes, type(None), DType)


def _plain_keys(keys: Any) -> Any:
    """Refuse keys other than constants and flat tuples of them: others may take ages to hash."""
    for key in keys:
        for item in key if type(key) is tuple else (key,):
            if type(item) not in _PLAIN:
                raise ValueError(f"a {type(item).__name__} as a key")
    return keys


def _tensor(
    reader: Any,
    storage: Any,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """A window of a storage, wholly inside of it."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise ValueError("a tensor without a storage, or of two shapes")
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError("sizes, strides and offsets are integers, none negative")
    array = storage.array
    empty = 0 in size
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if (not empty and last >= array.size) or (empty and offset > array.size):
        raise ValueError(f"a tensor of shape {size} goes beyond its storage of {array.size}")
    if empty:
        return _placed(reader, from_numpy(np.empty(size, array.dtype)), requires_grad)
    steps = [s * array.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(array[offset:], size, steps)
    return _placed(reader, from_numpy(view), requires_grad)


def _placed(reader: Any, tensor: Tensor, requires_grad: Any) -> Tensor:
    if reader._device is not None:
        tensor = tensor.to(reader._device)  # type: ignore[attr-defined]
    return tensor.requires_grad_() if requires_grad is True else tensor


def _old_tensor(reader: Any, storage: Any, offset: int, size: Any, stride: Any) -> Tensor:
    return _tensor(reader, storage, offset, size, stride)


def _parameter(reader: Any, data: Any, requires_grad: bool, hooks: Any = None) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter that is no tensor")
    return Parameter(data.detach(), requires_grad=requires_grad is True)


def _size(reader: Any, sizes: Any = ()) -> tuple[int, ...]:
    return tuple(int(n) for n in sizes)


def _device(reader: Any, kind: str, index: int | None = None) -> Any:
    return as_device("cpu")  # what was on a GPU is read to the CPU


def _ordered(reader: Any, items: Any = ()) -> Any:
    _plain_keys([key for key, _ in items])
    return OrderedDict(items)


def _counter(reader: Any, items: Any = ()) -> Any:
    if type(items) is not dict:
        raise ValueError("a Counter of something else than counts")
    return Counter(items)


def _set(reader: Any, items: Any = ()) -> Any:
    return set(_plain_keys(items))


def _encoded(reader: Any, text: Any, encoding: Any = "") -> bytes:
    """Bytes, as pickles of protocol 2 write them."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("an encoding other than latin1")
    return text.encode("latin1")


_NAMES = {
    ("_codecs", "encode"): _encoded,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _old_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "Counter"): _counter,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
}
_CALLS = frozenset(_NAMES.values())

"""The safetensors container: arrays by name behind a header of JSON.

https://github.com/huggingface/safetensors. The package writes the files and checks headers (sizes,
overlaps, holes, the length of the file); arrays are taken out here, so that they can stay on disk.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minidl.dtypes import bfloat16
from minidl.errors import ArgumentError

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": bfloat16.numpy,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype(bool),
}
# The formats of the header's own limit, checked before any of it is read.
_LONGEST_HEADER = 100_000_000


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays in C order and strings of metadata; OSError where the system refuses."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:  # it tells the system's number in its text only
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code) if number else str(error)) from error


def to_bytes(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The content of such a file."""
    from safetensors.numpy import save

    return save(arrays, metadata)


def read(source: Path | bytes, keep_mapped: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file or of its content.

    keep_mapped: arrays are windows on the file, read when they are used; writes to them stay in
    memory. Raises ArgumentError for what is no such file, is damaged, or holds other dtypes.
    """
    import json

    where = "the data" if isinstance(source, bytes) else str(source)
    _check(source, where)
    buffer = source if isinstance(source, bytes) else mapped(source)
    length = int.from_bytes(buffer[:8], "little")
    try:
        header = json.loads(bytes(buffer[8 : 8 + length]))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"[load] {where} has a damaged header: {error}") from error
    metadata = header.pop("__metadata__", None) or {}
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ArgumentError(
                f"[load] {where}: '{name}' has dtype {entry['dtype']}, which minidl lacks"
            )
        dtype = _DTYPES[entry["dtype"]]
        start, stop = entry["data_offsets"]
        count = (stop - start) // dtype.itemsize
        array = window(buffer, dtype, count, 8 + length + start, keep_mapped)
        arrays[name] = array.reshape(entry["shape"])
    return arrays, metadata


def _check(source: Path | bytes, where: str) -> None:
    """Let the package judge the header."""
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        if isinstance(source, bytes):
            deserialize(source)
        else:
            with safe_open(str(source), framework="np"):
                pass
    except (SafetensorError, ValueError, OverflowError) as error:
        raise ArgumentError(f"[load] {where} is not a safetensors file: {error}") from error


def mapped(path: Path) -> Any:
    """The file as a buffer whose changes stay in memory; ArgumentError if it is empty."""
    import mmap

    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise ArgumentError(f"[load] {path} is empty") from error


def window(buffer: Any, dtype: np.dtype, count: int, offset: int, keep: bool) -> np.ndarray:
    """A flat array over a part of the buffer, or a copy of it."""
    if dtype.kind == "b":  # bytes of other values than 0 and 1 are no booleans
        return np.frombuffer(buffer, np.uint8, count, offset) != 0
    array = np.frombuffer(buffer, dtype, count, offset)
    return array if keep and array.flags.aligned and array.flags.writeable else array.copy()

"""`save` and `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minidl.errors import ArgumentError, DTypeError, UnsupportedError
from minidl.serialization import container
from minidl.serialization.atomic import write_atomic
from minidl.serialization.structure import Decoder, Encoder
from minidl.serialization.torch_files import is_torch_file, read_torch_file

_ROOT = "minidl"  # the entry of the metadata that holds version and description
_VERSION = 1
_ALIASES = "aliases"  # what files of before version 1 had in its place


def save(obj: Any, f: Any) -> None:
    """Write a nested state as a safetensors file, which other tools read as well.

    obj: tensors, NumPy arrays, numbers, strings, bytes, None, dtypes and devices in dictionaries,
    lists and tuples, such as `{"model": model.state_dict(), "optimizer": optimizer.state_dict()}`.
    Tensors that share all their memory are stored once and share it again when loaded; other views
    are stored apart. NumPy scalars become plain numbers. f: a path, or a file opened for writing
    bytes. A file at a path appears complete or not at all. Raises DTypeError (a TypeError) that
    names the place of anything else, OSError if the file cannot be written; nothing is pickled.
    """
    import json

    encoder = Encoder()
    root = {"version": _VERSION, "root": encoder.encode(obj)}
    metadata = {_ROOT: json.dumps(root, allow_nan=False, separators=(",", ":"))}
    if hasattr(f, "write"):
        f.write(container.to_bytes(encoder.arrays, metadata))
        return
    path = Path(f)
    write_atomic(path, lambda temporary: container.write(temporary, encoder.arrays, metadata))


def load(
    f: Any,
    map_location: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool | None = None,
) -> Any:
    """Read what `save` wrote, a safetensors file of any origin, or a file of PyTorch's.

    The format is known by the content. Other safetensors files give a flat dictionary of tensors.
    From PyTorch's files (`.pt`, `.bin`; both formats) tensors and plain containers are read, and
    everything else is refused by name: no code of the file runs. f: a path, or a file opened for
    reading bytes. map_location: a device for all tensors (default: the CPU, whatever the file
    says). mmap: arrays stay on disk until they are used, and writes to them stay in memory. Raises
    ArgumentError (a ValueError) for a file that is damaged or of another format, FileNotFoundError.
    """
    import json

    if not weights_only:
        raise UnsupportedError(
            "weights_only=False would run code from the file; save a state_dict instead",
            operator="load",
        )
    if callable(map_location) or isinstance(map_location, dict):
        raise UnsupportedError(
            "map_location must be a device or its name; move tensors after loading",
            operator="load",
        )
    source: Path | bytes
    if hasattr(f, "read"):
        source = f.read()
        if not isinstance(source, bytes):
            raise DTypeError("the file must be opened for reading bytes", operator="load")
    else:
        source = Path(f)
        if source.is_dir():
            raise IsADirectoryError(f"[load] {source} is a folder")
    keep = bool(mmap) and not isinstance(source, bytes)
    if is_torch_file(source):
        return read_torch_file(source, map_location, keep)
    arrays, metadata = container.read(source, keep)
    decoder = Decoder(arrays, map_location)
    text = metadata.get(_ROOT)
    if text is None:
        return _foreign(decoder, arrays, metadata)
    try:
        root = json.loads(text)
        version = root["version"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArgumentError(f"[load] the description in {f} is damaged: {error}") from error
    if version != _VERSION:
        raise ArgumentError(
            f"[load] {f} has format {version!r}, this minidl reads {_VERSION}; a newer one may"
        )
    return decoder.decode(root.get("root"))


def _foreign(decoder: Decoder, arrays: dict[str, Any], metadata: dict[str, str]) -> Any:
    """A flat state; the files of minidl before version 1 name aliases of tied weights."""
    import json

    state = {name: decoder.tensor(name) for name in arrays}
    try:
        aliases = json.loads(metadata.get(_ALIASES, "{}"))
        return state | {name: decoder.tensor(stored) for name, stored in aliases.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ArgumentError(f"[load] '{_ALIASES}' must map names to stored ones") from error

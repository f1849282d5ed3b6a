"""Files that appear complete or not at all."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

_counter = itertools.count()


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write under a temporary name beside `path`, sync to disk and rename.

    content: what to write, or a function that writes the file it is given. Raises OSError that
    names `path`; a full disk would name nothing, and `open` the temporary file. A link is followed.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    # short enough for any name, and another one for each process and thread
    temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}-{next(_counter)}.tmp")
    try:
        if callable(content):
            content(temporary)
        else:
            # A path of the user's may hold bytes that are not UTF-8; JSON reads them from \\udcXX.
            text = isinstance(content, str)
            temporary.write_bytes(content.encode("utf-8", "backslashreplace") if text else content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to disk too, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # some file systems sync no folders; the file itself is safe
        pass
    finally:
        os.close(handle)

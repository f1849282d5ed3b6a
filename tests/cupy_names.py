"""The public names of CuPy that the stand-in for it has, with the arguments they take.

    python tests/cupy_names.py           writes minidl/testing/cupy_names.txt
    python tests/cupy_names.py --check   says what is different, and fails, if anything is

Runs where CuPy is installed; no GPU is needed. A line is a name, and in parentheses the names of
its arguments, or `ufunc`; where CuPy does not tell, the name alone.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "minidl" / "testing" / "cupy_names.txt"
_NO_NAMES = (types.ModuleType, __future__._Feature)
MODULES = ("cupy", "cupy.linalg", "cupy.lib.stride_tricks", "cupyx", "cupyx.scipy.special")


def arguments(thing: Any) -> str:
    """` (a, axis, out)`, as the signature or else the first line of the docstring has it."""
    if type(thing).__name__ in ("ufunc", "_GUFunc"):
        return " (ufunc)"
    if not callable(thing) or isinstance(thing, type):
        return ""
    try:
        names = list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        first = (thing.__doc__ or "").strip().split("\n")[0]
        found = re.fullmatch(r"[\w.]+\((.*)\)(?: *->.*)?", first)
        if found is None:
            return ""
        names = [part.split("=")[0].split()[-1] for part in found[1].split(",") if part.strip()]
    names = [name.lstrip("*/") for name in names if name not in ("self", "*", "/")]
    return f" ({', '.join(names)})" if all(names) else ""


def lines() -> Iterator[str]:
    """All names, sorted within their module."""
    for path in MODULES:
        module = importlib.import_module(path)
        for name in sorted(vars(module)):
            thing = getattr(module, name)
            if not name.startswith("_") and not isinstance(thing, _NO_NAMES):
                yield f"{path}.{name}{arguments(thing)}"
    array = importlib.import_module("cupy").ndarray
    for name in sorted(dir(array)):
        if not name.startswith("_"):
            yield f"cupy.ndarray.{name}{arguments(getattr(array, name))}"


def main() -> int:
    """Write the file, or compare it."""
    now = list(lines())
    if "--check" not in sys.argv:
        FILE.write_text("\n".join(now) + "\n", encoding="utf-8")
        return 0
    kept = FILE.read_text(encoding="utf-8").split("\n")[:-1]
    changes = [f"- {line}" for line in kept if line not in now]
    changes += [f"+ {line}" for line in now if line not in kept]
    print("\n".join(changes) or "the names are CuPy's")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())

"""The specification, loaded a second time with CuPy where it says NumPy.

Its arithmetic is what every backend must do, so on the GPU it is run rather than written again: the
files of `backends.reference` are executed once more, in namespaces whose `import numpy` gives
CuPy's functions and whose imports of each other give the twins. What would wait for the GPU, or
start many small kernels where one does, is replaced by what the file of the same name in this
package puts into its `__all__`, or makes of the twin's own in its `OVER`.
"""

from __future__ import annotations

import builtins
import importlib.util
import types
from collections.abc import Callable, Sequence
from typing import Any

from minidl.backends import reference
from minidl.backends.cupy_gpu.capture import capturing, own_kernels
from minidl.backends.cupy_gpu.xp import Lazy, cp

_SPECIFICATION = reference.__name__


class Names(Lazy):
    """CuPy under NumPy's names, and what of NumPy's CuPy does not have."""

    @staticmethod
    def vecdot(x: Any, y: Any, out: Any = None) -> Any:
        """The products of rows."""
        return cp.sum(x * y, axis=-1, out=out)

    @staticmethod
    def matmul(x: Any, y: Any, out: Any = None) -> Any:
        """cuBLAS, which CuPy refuses while a graph is captured: then a kernel of ours."""
        if capturing():
            return own_kernels("a matrix product").matmul(x, y, out)
        return cp.matmul(x, y) if out is None else cp.matmul(x, y, out=out)


def entries(replacements: Sequence[types.ModuleType]) -> dict[str, Callable[..., Any]]:
    """The entries of the specification over CuPy, with the replacements in their places."""
    names = Names("cupy")
    instead: dict[str, list[types.ModuleType]] = {}
    for module in replacements:
        instead.setdefault(module.__name__.rpartition(".")[2], []).append(module)
    twins: dict[str, types.ModuleType] = {}

    def importing(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if name == "numpy":
            return names
        if name.startswith(_SPECIFICATION):
            return twin(name)
        return __import__(name, globals, locals, fromlist, level)

    def twin(name: str) -> types.ModuleType:
        if name not in twins:
            own = name[len(_SPECIFICATION) + 1 :]
            found = types.ModuleType(f"{__name__}.{own}".rstrip("."))
            space = vars(found)
            space["__builtins__"] = {**vars(builtins), "__import__": importing}
            exec(_code(name), space)
            for replacement in instead.get(own, []):
                for each in replacement.__all__:
                    if each not in space:
                        raise AttributeError(f"{name} has no {each} to replace")
                    space[each] = getattr(replacement, each)
                for each, make in getattr(replacement, "OVER", {}).items():
                    space[each] = make(space[each])
            twins[name] = found
        return twins[name]

    return dict(twin(_SPECIFICATION).ENTRIES)


def _code(name: str) -> types.CodeType:
    spec = importlib.util.find_spec(name)
    loader: Any = spec and spec.loader
    return loader.get_code(name)

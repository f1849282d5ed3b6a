"""The tensors that a function finds outside of itself, and whether it has written to them.

`vmap` runs a function once for the whole batch and, where that fails, once per sample. A write to
a tensor from outside would then happen several times over, so it has to be noticed.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator
from typing import Any

from minidl.errors import MinidlError
from minidl.nn import Module
from minidl.tensor import Parameter, Tensor

_MOST = 10_000  # objects to look at: enough for closures and modules, not for the whole program


class Outside:
    """The tensors in a function's closure, defaults, globals, modules and arguments."""

    def __init__(self, *roots: Any) -> None:
        self._storages = {
            id(x.storage): (x.storage, x.storage.version) for x in _tensors(list(roots))
        }

    def check(self) -> None:
        """Raise MinidlError if one of them has been written to."""
        if any(storage.version != before for storage, before in self._storages.values()):
            raise MinidlError(
                "[vmap] the function writes in place to a tensor from outside, and cannot compute"
                " the whole batch at once; return what it writes instead"
            )


def _tensors(left: list[Any]) -> Iterator[Tensor]:
    seen: set[int] = set()
    kept = []  # so that no id is given twice
    while left and len(seen) < _MOST:
        x = left.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        kept.append(x)
        if type(x) in (Tensor, Parameter):
            yield x
        elif not isinstance(x, Tensor):  # a Batched one refuses writes
            left += _inside(x)


def _inside(x: Any) -> list[Any]:
    """What `x` holds, of the kinds that may hold tensors."""
    if isinstance(x, list | tuple | set):
        return list(x)
    if isinstance(x, dict):
        return list(x.values())
    if isinstance(x, Module):
        return [*x.parameters(), *x.buffers(), *vars(x).values()]
    if isinstance(x, functools.partial):
        return [x.func, *x.args, *x.keywords.values()]
    if isinstance(x, types.MethodType):
        return [x.__self__, x.__func__]
    if isinstance(x, types.FunctionType):
        held = [*_contents(x), *(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
        if x.__module__.partition(".")[0] == "minidl":  # such as the one that `grad` returns
            return held
        return held + [x.__globals__[n] for n in _names(x.__code__) if n in x.__globals__]
    plain = not isinstance(x, type | types.ModuleType) and type(x).__module__ != "builtins"
    with contextlib.suppress(AttributeError):
        return list(object.__getattribute__(x, "__dict__").values()) if plain else []
    return []


def _contents(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing in it yet
            yield cell.cell_contents


def _names(code: types.CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]

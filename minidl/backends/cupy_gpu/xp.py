"""CuPy's modules, imported when a name of theirs is first used.

`cp` is CuPy, `cupyx` its extensions, `special` its special functions. A name is looked up once and
then an attribute of the object here, so that a use costs what one of the module itself does.
"""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """A module by its name: `Lazy("cupy").exp` is CuPy's `exp`."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks at this object asks, not at CuPy
            raise AttributeError(name)
        value = getattr(importlib.import_module(self._module), name)
        self.__dict__[name] = value
        return value


cp: Any = Lazy("cupy")
cupyx: Any = Lazy("cupyx")
special: Any = Lazy("cupyx.scipy.special")


def module() -> Any:
    """CuPy itself; ImportError where it is not installed."""
    return importlib.import_module("cupy")


def forget() -> None:
    """Look every name up again, as tests need that put other modules in the place of CuPy's."""
    for lazy in (cp, cupyx, special):
        own = lazy._module
        lazy.__dict__.clear()
        lazy._module = own

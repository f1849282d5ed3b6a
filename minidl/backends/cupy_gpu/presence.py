"""Whether CuPy and a GPU for it are there, and what is to be done if not."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from typing import Any

from minidl.errors import DeviceError

_OLDEST = (14, 2)  # of CuPy: older ones have no bfloat16


@cache
def missing() -> str | None:
    """Why tensors cannot live on a GPU here, in one line; None if they can."""
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return (
            'CuPy is not installed: pip install "minidl[cuda13]"'
            ' (or "minidl[cuda12]", as nvidia-smi says)'
        )
    try:
        cupy: Any = importlib.import_module("cupy")
        version = tuple(int(part) for part in cupy.__version__.split(".")[:2])
        if version < _OLDEST:
            wanted = ".".join(map(str, _OLDEST))
            return f'CuPy is {cupy.__version__}, older than {wanted}: pip install "minidl[cuda13]"'
        if not cupy.cuda.runtime.getDeviceCount():
            return "CuPy finds no GPU"
    except Exception as error:  # whatever CuPy, its driver or its libraries say
        text = " ".join(str(error).split())
        if any(known in text for known in ("InsufficientDriver", "NoDevice")):
            return f"CuPy is installed, but finds no GPU or no fitting driver ({text})"
        return f"CuPy does not work here: {text or type(error).__name__}"
    return None


def present() -> Any:
    """CuPy, where there is a GPU for it; DeviceError otherwise."""
    if why := missing():
        raise DeviceError(f"there is no device 'cuda' here: {why}")
    return importlib.import_module("cupy")

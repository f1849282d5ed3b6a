"""PyTorch's questions about GPUs, and the kernel table that serves tensors there.

So that `device = "cuda" if cuda.is_available() else "cpu"`, with which programs begin, runs.
"""

from __future__ import annotations

import numpy as np

from minidl.backends.table import TABLES, Kernels
from minidl.errors import DeviceError


def missing() -> str | None:
    """Why tensors cannot live on a GPU here, in one line; None if they can."""
    return "this build has no kernel table for GPUs"


def is_available() -> bool:
    """Whether tensors can live on a GPU."""
    return missing() is None


def device_count() -> int:
    """How many GPUs there are for tensors."""
    return 0


def current_device() -> int:
    """The number of the GPU that new tensors are made on."""
    return 0


def table() -> Kernels:
    """The kernel table of the GPU, built when it is first asked for; DeviceError without one."""
    if "cupy" not in TABLES:
        raise DeviceError(f"there is no device 'cuda' here: {missing()}")
    return TABLES["cupy"]


def pinned_copy(array: np.ndarray) -> np.ndarray:
    """A copy of the array in pinned memory, in C order; DeviceError without a GPU."""
    raise DeviceError(f"pinned memory needs a GPU: {missing()}")


def is_pinned(array: np.ndarray) -> bool:
    """Whether the array's memory is pinned."""
    return False


def manual_seed(seed: int) -> None:
    """Seed the generator of the current GPU; without one nothing happens, as in PyTorch."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs; without one nothing happens, as in PyTorch."""

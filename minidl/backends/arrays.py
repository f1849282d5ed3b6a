"""What NumPy's and CuPy's arrays answer differently."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.table import CPU, Device

# NumPy's flags of an array whose memory is its own, in C order and writable
_OWN = 0x1 | 0x4 | 0x400


def device_of(array: Any) -> Device:
    """Where the elements of an array are."""
    return CPU if isinstance(array, np.ndarray) else Device("cuda", int(array.device.id))


def is_writable(array: Any) -> bool:
    """Whether an in-place operator may write: no read-only array, no element seen twice."""
    if isinstance(array, np.ndarray):
        return array.flags.writeable
    # CuPy's arrays know no read-only memory; those of NumPy that broadcast are read-only
    pairs = zip(array.shape, array.strides, strict=True)
    return not array.size or not any([n > 1 and not step for n, step in pairs])


def owns_memory(array: Any) -> bool:
    """Whether it is a writable array in C order that is no view of another one."""
    flags = array.flags
    if type(array) is np.ndarray:
        return flags.num & _OWN == _OWN
    return bool(flags.owndata and flags.c_contiguous)

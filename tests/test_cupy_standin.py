"""The GPU's kernel table on the stand-in for CuPy, and the stand-in itself."""

from __future__ import annotations

import numpy as np
import pytest

from minidl.testing import entry as entry_module, standin

pytest.importorskip("scipy")


@pytest.fixture(scope="module", autouse=True)
def table():
    with standin.installed() as kernels:
        yield kernels

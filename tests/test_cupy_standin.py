"""The GPU's kernel table on the stand-in for CuPy, and the stand-in itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minidl.backends.table import Kernels
from minidl.testing import standin
from minidl.testing.entries import ENTRIES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

pytest.importorskip("scipy")  # the stand-in's special functions

ROWS = {row.name: row for row in ENTRIES}


@pytest.fixture
def table() -> Iterator[Kernels]:
    with standin.installed() as kernels:
        yield kernels


@pytest.mark.parametrize("name", ROWS)
def test_entry(name: str, table: Kernels):
    with on(Target("cupy")):
        for job in jobs([ROWS[name]]):
            run(*job)

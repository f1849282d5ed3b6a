"""The GPU's kernel table on the stand-in for CuPy, and the stand-in itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minidl.backends.table import Kernels
from minidl.testing import entry, runner, standin
from minidl.testing.entries import ENTRIES, pointwise

pytest.importorskip("scipy")  # the stand-in's special functions

ROWS = {row.name: row for row in ENTRIES}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """The table; rows are checked on it, in arrays that share the memory of those drawn."""
    with standin.installed() as kernels:
        for module in (entry, pointwise, runner):
            monkeypatch.setattr(module, "placed", standin.ndarray, raising=False)
            monkeypatch.setattr(module, "kernels", lambda: kernels, raising=False)
        monkeypatch.setattr(entry, "host", lambda x: x.get() if hasattr(x, "get") else x)
        yield kernels


@pytest.mark.parametrize("name", ROWS)
def test_entry(name: str, table: Kernels):
    for job in runner.jobs([ROWS[name]]):
        runner.run(*job)

"""Every kernel of csrc/cuda on the emulator: the rows of the entries and operators they serve."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from emulation import Emulator, emulated

from minidl.backends import native_cuda
from minidl.testing.entries import ENTRIES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

SERVED = {name for family in native_cuda._FAMILIES for name in family.OVER}
ROWS = [row for row in ENTRIES if row.name in SERVED]


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def machine(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulated(request.param) as (_, found):
        yield found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_entry(row, machine: Emulator):
    with on(Target("cuda")):
        for job in jobs([row]):
            run(*job)
    assert machine.started

"""Every kernel of csrc/cuda on the emulator: the rows of the entries and operators they serve."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from emulation import Emulator, emulated

from minidl.backends import native_cuda
from minidl.cli import info
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


def test_info_names_what_serves_the_entries(machine: Emulator):
    found = info.kernels("cuda")
    for name, source in found.items():
        assert (source["layer"] == "native") == (name in SERVED), name
        if name in SERVED:
            assert source["function"].startswith("minidl.backends.native_cuda."), source
            assert not source["reasons"]
        else:
            assert source["reasons"][-1] == "native: has no kernel for it" or source["layer"] != (
                "cupy"
            )
    plain = info.kernels("cupy")
    assert all(source["layer"] == "cupy" for source in plain.values())

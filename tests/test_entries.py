"""Every row of the table of kernel entries, on every kernel table that is here."""

import pytest

from minidl.backends.table import ARRAY_ENTRIES, KERNEL_ENTRIES, TABLES
from minidl.testing.entries import ENTRIES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on, targets

ROWS = {row.name: row for row in ENTRIES}


def test_every_entry_has_a_row():
    """Those of the specification, and those of the array module that some layer replaces."""
    replaced = {
        entry
        for table in TABLES.values()
        for entry, layer in getattr(table, "sources", {}).items()
        if entry in ARRAY_ENTRIES and layer not in ("numpy", "cupy")
    }
    assert len(ROWS) == len(ENTRIES) > 80
    assert sorted({*KERNEL_ENTRIES, *replaced} - set(ROWS)) == []


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.label)
@pytest.mark.parametrize("name", ROWS)
def test_entry(name: str, target: Target):
    with on(target):
        for job in jobs([ROWS[name]]):
            run(*job)

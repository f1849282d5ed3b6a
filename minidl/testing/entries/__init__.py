"""The table of kernel entries: one file of rows per family.

Every entry of `backends.table.KERNEL_ENTRIES` has a row, and every entry of the array module that
some layer replaces.
"""

from minidl.testing.entries import contract, index, linear_algebra, pointwise, random, rows, step
from minidl.testing.entry import Entry

_FAMILIES = (contract, rows, pointwise, index, step, random, linear_algebra)

ENTRIES: tuple[Entry, ...] = tuple(row for family in _FAMILIES for row in family.ROWS)
FAMILY: dict[str, str] = {
    row.name: family.__name__.rpartition(".")[2] for family in _FAMILIES for row in family.ROWS
}

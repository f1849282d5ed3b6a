"""The operator table: one file of rows per family of operators."""

from minidl.testing.case import Case
from minidl.testing.cases import (
    activation,
    arithmetic,
    arrange,
    attention,
    compare,
    convert,
    embedding,
    index,
    linear,
    loss,
    matmul,
    norm,
    random,
    reduce,
    select,
    softmax,
    sort,
    transcendental,
    views,
)

_FAMILIES = (
    arithmetic,
    compare,
    transcendental,
    select,
    reduce,
    views,
    index,
    arrange,
    sort,
    matmul,
    linear,
    random,
    activation,
    softmax,
    norm,
    embedding,
    attention,
    loss,
    convert,
)

CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)

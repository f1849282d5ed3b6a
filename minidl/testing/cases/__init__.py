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
    linalg,
    linear,
    loss,
    matmul,
    norm,
    random,
    reduce,
    sampling,
    select,
    softmax,
    sort,
    special,
    transcendental,
    views,
)

_FAMILIES = (
    arithmetic,
    compare,
    transcendental,
    special,
    select,
    reduce,
    views,
    index,
    arrange,
    sort,
    matmul,
    linalg,
    linear,
    random,
    sampling,
    activation,
    softmax,
    norm,
    embedding,
    attention,
    loss,
    convert,
)

CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)

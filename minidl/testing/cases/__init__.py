"""The operator table: one file of rows per family of operators."""

from minidl.testing.case import Case
from minidl.testing.cases import (
    activation,
    arithmetic,
    arrange,
    attention,
    compare,
    convert,
    distance,
    embedding,
    index,
    linalg,
    linear,
    loss,
    margin,
    matmul,
    norm,
    random,
    reduce,
    sampling,
    select,
    softmax,
    sort,
    special,
    statistics,
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
    statistics,
    matmul,
    linalg,
    linear,
    random,
    sampling,
    activation,
    softmax,
    norm,
    distance,
    embedding,
    attention,
    loss,
    margin,
    convert,
)

CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)
FAMILY: dict[str, str] = {
    case.name: family.__name__.rpartition(".")[2] for family in _FAMILIES for case in family.CASES
}

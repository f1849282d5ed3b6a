"""Every row of the operator table through every check of the table."""

import importlib
import pkgutil

import pytest

import minidl.ops
from minidl.autograd.op import Operator
from minidl.testing.cases import CASES
from minidl.testing.runner import Tally, jobs, run

JOBS = jobs(CASES)


def registered() -> set[str]:
    """Names of all operators that the modules of `minidl.ops` define."""
    names = set()
    for found in pkgutil.iter_modules(minidl.ops.__path__, "minidl.ops."):
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            operator = getattr(value, "op", None)
            if isinstance(operator, Operator) and value.__module__ == found.name:
                names.add(operator.name)
    return names


def test_every_operator_has_a_row():
    covered = {name for case in CASES for name in (case.operators or (case.name,))}
    assert len(registered()) > 10
    assert sorted(registered() - covered) == []


def test_rows_have_names_of_their_own():
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("case", "check", "dtypes"),
    [
        pytest.param(*job, id="-".join((job[0].name, job[1], *(d.name for d in job[2][:1]))))
        for job in JOBS
    ],
)
def test_operator(case, check, dtypes, record_property):
    tally = Tally()
    run(case, check, dtypes, tally=tally)
    record_property("operator_table", [[*key, count] for key, count in tally.items()])

"""Every row of the operator table on the GPU's kernel table: on a GPU, else on a stand-in for CuPy.

The stand-in raises where an operator would wait for the GPU, so the rows show that none does but
those whose results' shapes depend on values.
"""

import contextlib

import pytest

import minidl
from minidl.testing import standin
from minidl.testing.cases import CASES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

EXAMPLES = 12  # of a row; the CPU's tables draw more


@pytest.fixture(scope="module", autouse=True)
def table():
    there = contextlib.nullcontext() if minidl.cuda.is_available() else standin.installed()
    with there, on(Target("cuda")):
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operator(case):
    for job in jobs([case]):
        run(*job, examples=EXAMPLES)

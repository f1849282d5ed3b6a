"""The check of the kernels' budgets finds what it is there for."""

from __future__ import annotations

import pytest
from cuda_budgets import problems, taken

SAID = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'softmax_float32' for 'sm_90'
ptxas info    : Function properties for softmax_float32
    {stack} bytes stack frame, {stores} bytes spill stores, 4 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 256 bytes smem
ptxas info    : Compile time = 20.9 ms
ptxas info    : Compiling entry function 'sum_float32' for 'sm_90'
ptxas info    : Function properties for sum_float32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers
"""
GOOD = SAID.replace("4 bytes spill loads", "0 bytes spill loads").format(
    stack=0, stores=0, registers=40
)
BUDGETS = {
    "softmax_float32": {"sm_90": {"registers": 40, "shared": 256}},
    "sum_float32": {"sm_90": {"registers": 20, "shared": 0}},
}


def test_a_report_is_read():
    first, second = taken(GOOD)
    assert first == ("softmax_float32", "sm_90", 40, 256, 0, 0)
    assert second == ("sum_float32", "sm_90", 20, 0, 0, 0)
    assert problems([first, second], GOOD, BUDGETS) == []


@pytest.mark.parametrize(
    ("said", "budgets", "wrong"),
    [
        (SAID.format(stack=0, stores=0, registers=40), BUDGETS, "4 spilled"),
        (GOOD.replace("0 bytes stack", "16 bytes stack", 1), BUDGETS, "16 bytes of stack"),
        (GOOD.replace("Used 40", "Used 49"), BUDGETS, "49 registers, at most 48"),
        (GOOD.replace("256 bytes smem", "512 bytes smem"), BUDGETS, "512 shared, at most 256"),
        (GOOD + "ptxas info : (C7511) Potential Performance Loss: serialized", BUDGETS, "C7511"),
        (GOOD, {"softmax_float32": BUDGETS["softmax_float32"]}, "sum_float32 on sm_90: has no"),
        (GOOD.replace("sm_90", "sm_80"), BUDGETS, "softmax_float32 on sm_80: has no budget"),
        (GOOD, BUDGETS | {"gone": {}}, "gone: has a budget, but is not compiled"),
    ],
)
def test_what_is_beyond_a_budget_is_told(said: str, budgets: dict, wrong: str):
    assert any(wrong in line for line in problems(taken(said), said, budgets))

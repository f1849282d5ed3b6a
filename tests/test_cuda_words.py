"""Words that come with a launch, on the emulator: fewer and more than one carries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda import words

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def machine(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulated(request.param) as (_, found):
        yield found


@pytest.mark.parametrize("count", [1, 447, 448, 449, 1000])
def test_words(count: int, machine: Emulator):
    target = cp.zeros((1001,), np.uint64)
    wanted = [2**64 - 1 - i for i in range(count)]
    words.put_words(target, wanted)
    assert target.get().tolist() == wanted + [0] * (1001 - count)

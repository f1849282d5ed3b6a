"""Native gradients of linear maps: blocks of rows, layouts, activations, any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ISAS, on_table

from minidl.backends import local, native, reference

pytestmark = pytest.mark.skipif(not ISAS, reason=f"no native kernels: {native.layer().missing}")
rng = np.random.default_rng(0)
ALL = (True, True, True)

# rows, outer, inner
SHAPES = {
    "one block": (60, 40, 30),
    "serial": (7, 5, 3),
    "blocks of rows": (1100, 512, 40),
    "blocks of rows, short of x": (500, 33, 700),
    "a weight done at once": (130, 370, 400),
    "one output": (900, 1, 70),
    "one input": (900, 70, 1),
    "no rows": (0, 5, 3),
    "no outputs": (5, 0, 3),
    "no inputs": (5, 3, 0),
}


def drawn(layout: str, rows: int, columns: int, dtype: type) -> np.ndarray:
    if layout == "gaps between rows":
        return rng.standard_normal((rows, columns + 9)).astype(dtype)[:, :columns]
    if layout == "transposed":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if layout == "one row for all":
        return np.broadcast_to(rng.standard_normal(columns).astype(dtype), (rows, columns))
    return rng.standard_normal((rows, columns)).astype(dtype)


def gradients(threads: int, *args: object) -> tuple:
    with native.limit_threads(threads):
        return local.state.run(local.state.cpu.linear_backward, *args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["plain", "gaps between rows", "transposed", "one row for all"])
@pytest.mark.parametrize("name", SHAPES)
def test_right_and_the_same_for_any_threads(name: str, layout: str, dtype: type) -> None:
    rows, outer, inner = SHAPES[name]
    g, x = drawn(layout, rows, outer, dtype), drawn(layout, rows, inner, dtype)
    weight = drawn(layout, outer, inner, dtype)
    wide = [a.astype(float) for a in (g, x, weight)]
    want = reference.ENTRIES["linear_backward"](*wide)
    size = reference.ENTRIES["linear_backward"](*map(np.abs, wide))
    for isa in ISAS:
        with on_table(isa):
            found = [gradients(t, g, x, weight, ALL) for t in (1, 2, 3, 8)]
        for mine, right, most in zip(found[0], want, size, strict=True):
            # equal rows round the same way every time
            floor = np.finfo(dtype).eps * (40 if layout != "one row for all" else 600)
            assert (np.abs(mine - right) <= floor * most).all()
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("name", SHAPES)
def test_with_an_activation(name: str, activation: str) -> None:
    """As if its gradient had been taken first."""
    rows, outer, inner = SHAPES[name]
    g, x = drawn("plain", rows, outer, np.float32), drawn("plain", rows, inner, np.float32)
    weight = drawn("plain", outer, inner, np.float32)
    kept = np.abs(drawn("plain", rows, outer, np.float32)) - np.float32(0.3)
    entry, _, approximate = activation.partition("_")
    options = (approximate or "none",) if entry == "gelu" else ()
    for isa in ISAS:
        with on_table(isa):
            before = local.state.run(
                getattr(local.state.cpu, f"{entry}_backward"), g, kept, *options
            )
            want = gradients(1, before, x, weight, ALL)
            for threads in (1, 3):
                found = gradients(threads, g, x, weight, ALL, activation, kept)
                for a, b in zip(found, want, strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_what_is_wanted(wanted: tuple[bool, bool, bool]) -> None:
    rows, outer, inner = SHAPES["blocks of rows"]
    g, x = drawn("plain", rows, outer, np.float32), drawn("plain", rows, inner, np.float32)
    weight = drawn("plain", outer, inner, np.float32)
    with on_table(ISAS[-1]):
        every = gradients(1, g, x, weight, ALL)
        x, weight = x if wanted[1] else None, weight if wanted[0] else None
        found = gradients(1, g, x, weight, wanted)
    for one, same, asked in zip(found, every, wanted, strict=True):
        assert (one is not None) == asked
        if asked:
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("layout", ["one number", "turned", "turned axes"])
def test_a_gradient_of_any_layout_is_taken_by_the_kernel(layout: str) -> None:
    """Such as that of a sum, which is one number for all elements."""
    g = {
        "one number": np.broadcast_to(np.float32(0.7), (20, 5, 33)),
        "turned": drawn("plain", 33, 100, np.float32).T.reshape(20, 5, 33),
        "turned axes": drawn("plain", 100, 33, np.float32).reshape(5, 20, 33).swapaxes(0, 1),
    }[layout]
    x, weight = drawn("plain", 100, 40, np.float32), drawn("plain", 33, 40, np.float32)
    args = (x.reshape(20, 5, 40), weight, ALL)
    for isa in ISAS:
        with on_table(isa):
            want = gradients(1, np.ascontiguousarray(g), *args)
            for a, b in zip(gradients(1, g, *args), want, strict=True):
                np.testing.assert_array_equal(a, b)

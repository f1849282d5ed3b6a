"""Native attention over several blocks: edges, masks that empty blocks, few queries, threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import ISAS, on_table

import minidl
from minidl.backends import local, native, reference

pytestmark = pytest.mark.skipif(not ISAS, reason=f"no native kernels: {native.layer().missing}")


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def call(name: str, *args: Any) -> tuple:
    return local.state.run(getattr(local.state.cpu, name), *args)


def check(q, k, v, mask=None, causal=False, scale=0.3, g=None) -> None:
    """Forward and backward of every instruction set against the specification in float64."""
    g = drawn(9, *q.shape[:-1], v.shape[-1]) if g is None else g
    wide = [x.astype(np.float64) for x in (g, q, k, v)]
    wide_mask = mask if mask is None or mask.dtype == bool else mask.astype(np.float64)
    with np.errstate(all="ignore"):
        out, lse = reference.ENTRIES["attention"](*wide[1:], wide_mask, causal, scale)
        grads = reference.ENTRIES["attention_backward"](*wide, wide_mask, causal, scale, out, lse)
    for isa in ISAS:
        with on_table(isa):
            got = call("attention", q, k, v, mask, causal, scale)
            back = call("attention_backward", g, q, k, v, mask, causal, scale, *got)
        for mine, want in zip((*got, *back), (out, lse, *grads), strict=True):
            finite = np.isfinite(want)
            np.testing.assert_array_equal(mine[~finite], want[~finite])
            np.testing.assert_allclose(mine[finite], want[finite], rtol=1e-4, atol=2e-4)


EDGES = (1, 9, 15, 33, 65, 127, 200, 300)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", EDGES)
def test_edges_of_blocks(t: int, causal: bool) -> None:
    for n, s in enumerate(EDGES):
        d, dv = (3, 16, 20)[n % 3], (16, 7, 33)[n % 3]
        check(drawn(0, 1, 2, t, d), drawn(1, 1, 2, s, d), drawn(2, 1, 2, s, dv), causal=causal)


def padding(s: int, *lengths: int) -> np.ndarray:
    return (np.arange(s) < np.array(lengths)[:, None])[:, None, None, :]


def window(t: int, s: int, width: int) -> np.ndarray:
    return abs(np.arange(t)[:, None] - np.arange(s)) < width


MASKS = {
    "padding": padding(300, 300, 70),
    "padding to nothing": padding(300, 0, 129),
    "window": window(150, 300, 20),
    "window, queries last": np.ascontiguousarray(window(150, 300, 20).T).T,
    "queries": (np.arange(150) % 3 > 0)[:, None],
    "dense": drawn(3, 2, 4, 150, 300) > 0,
    "per head": drawn(4, 4, 1, 300) > 0,
    "per batch": drawn(5, 2, 1, 150, 300) > -1,
}


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_masks_over_blocks(name: str, added: bool) -> None:
    keep = MASKS[name]
    mask = np.where(keep, drawn(6, *keep.shape), -np.inf).astype(np.float32) if added else keep
    q, k, v = drawn(0, 2, 4, 150, 20), drawn(1, 2, 2, 300, 20), drawn(2, 2, 2, 300, 17)
    check(q, k, v, mask)
    check(q, k, v, mask, causal=True)
    check(q[..., :3, :], k, v, mask if keep.shape[-2] == 1 else mask[..., :3, :])


@pytest.mark.parametrize("t", [1, 2, 3, 8, 40])
def test_hidden_keys_may_be_anything(t: int) -> None:
    q, k, v = drawn(0, 2, 2, t, 8), drawn(1, 2, 2, 300, 8), drawn(2, 2, 2, 300, 8)
    mask = padding(300, 200, 40)
    for isa in ISAS:
        with on_table(isa):
            want = call("attention", q, k, v, mask, False, 0.3)
            dirty = k.copy()
            dirty[0, :, 200:], dirty[1, :, 40:] = np.nan, np.inf
            for a, b in zip(want, call("attention", q, dirty, v, mask, False, 0.3), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("t", range(1, 9))
@pytest.mark.parametrize("group", [1, 3])
def test_few_queries_and_many_keys(t: int, group: int) -> None:
    q, k, v = drawn(0, 2, 2 * group, t, 20), drawn(1, 2, 2, 3000, 20), drawn(2, 2, 2, 3000, 33)
    check(q, k, v)
    check(q, k, v, padding(3000, 2000, 7))
    check(q, k, v, drawn(3, 2 * group, t, 3000))


@pytest.mark.parametrize("t", [1, 150])
def test_layouts(t: int) -> None:
    q, k, v = (drawn(n, 2, size, 3, 20).swapaxes(1, 2) for n, size in enumerate((t, 300, 300)))
    check(q, k, v)
    check(q, k, v, g=np.broadcast_to(np.float32(0.5), (2, 3, t, 20)))
    check(q[:, :1], k[:, ::3], v[:, ::-3])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (1, 2, 400), (3, 2, 70)])
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    b, h, t = shape
    q, g = (drawn(n, b, h, t, 32) for n in range(2))
    k, v = (drawn(n, b, h, 2500, 32) for n in range(2, 4))
    before = minidl.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            minidl.set_num_threads(threads)
            got = call("attention", q, k, v, None, False, 0.2)
            results.append((*got, *call("attention_backward", g, q, k, v, None, False, 0.2, *got)))
    finally:
        minidl.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("queries", [5, 70])
@pytest.mark.parametrize("groups", [1, 2])
def test_results_have_the_memory_order_of_the_inputs(lead, queries, groups) -> None:
    def transposed(seed: int, rows: int, heads: int, size: int) -> np.ndarray:
        return np.swapaxes(drawn(seed, *lead, rows, heads, size), -3, -2)

    q, g = transposed(0, queries, 4, 20), transposed(3, queries, 4, 17)
    k, v = transposed(1, 300, 4 // groups, 20), transposed(2, 300, 4 // groups, 17)
    check(q, k, v, g=g)
    with on_table(ISAS[-1]):
        out, lse = call("attention", q, k, v, None, False, 0.3)
        back = call("attention_backward", g, q, k, v, None, False, 0.3, out, lse)
    assert lse.flags.c_contiguous
    for x in (out, *back):
        assert x.flags.owndata and np.swapaxes(x, -3, -2).flags.c_contiguous
    plain = [np.ascontiguousarray(x) for x in (g, q, k, v)]
    with on_table(ISAS[-1]):
        out, lse = call("attention", *plain[1:], None, False, 0.3)
        same = call("attention_backward", *plain, None, False, 0.3, out, lse)
    for x, y in zip(back, same, strict=True):
        assert y.flags.c_contiguous
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("group", [1, 2, 5, 8])
@pytest.mark.parametrize("t", [1, 2, 3, 7])
def test_rows_of_a_kv_head_have_masks_of_their_own(t: int, group: int) -> None:
    """Rows that share keys: some see a block, others do not, of depths that fit no vector."""
    for d, dv, s in ((16, 16, 300), (64, 64, 257), (19, 70, 140), (64, 3, 129)):
        q = drawn(0, 2, 2 * group, t, d)
        k, v = drawn(1, 2, 2, s, d), drawn(2, 2, 2, s, dv)
        check(q, k, v, np.arange(s) < 60 * np.arange(1, 2 * group + 1)[:, None, None])
        mask = np.where(drawn(3, 2 * group, t, s) > 0, drawn(4, 2 * group, t, s), -np.inf)
        mask[0, 0, 128:] = -np.inf
        check(q, k, v, mask.astype(np.float32))

"""A small matrix product in registers: the one piece that is written in LLVM's own instructions.

Numba's loops become vectors of 256 bits at most and keep no block of sums in registers. `tile`
does: `height` rows times two vectors of sums, whose operands are broadcast scalars of A, of any
strides, and contiguous panels of B. With AVX-512 that is 8 x 32 float32 (16 of 32 registers), else
4 x 16 (8 of 16). Callers pad, so there are no tails. On one core of an Emerald Rapids Xeon, Gflop/s
of float32 in 64 x 64 x 256: 155 where vectors begin on a cache line, 135 elsewhere; with 4 rows
125, 5 and 6 rows 140; NumPy's BLAS 87.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


@cache
def shape(itemsize: int) -> tuple[int, int]:
    """Height and width of a tile for elements of that many bytes."""
    from llvmlite.binding import get_host_cpu_features

    wide = get_host_cpu_features().get("avx512f", False)
    return (8, 128 // itemsize) if wide else (4, 64 // itemsize)


def tile(a, ai, am, ak, b, bi, c, ci, cm, inner, add):
    """C (+)= A B for one tile; arrays are flat, `ai`, `bi`, `ci` are where their parts begin.

    A[m, k] is a[ai + m am + k ak], B[k, n] is b[bi + k width + n], C[m, n] is c[ci + m cm + n].
    """
    height, width = shape(a.itemsize)
    m, n, k = np.arange(height)[:, None], np.arange(width), np.arange(inner)
    product = a[ai + m * am + k * ak] @ b[bi + k[:, None] * width + n]
    c[ci + m * cm + n] = product + (c[ci + m * cm + n] if add else 0)


def turn(x, xi, xm, out, oi, lanes):
    """The transpose of `lanes` rows of as many elements, which is half the width of a tile.

    out[oi + n 2 lanes + m] = x[xi + m xm + n].
    """
    m, n = np.arange(lanes)[:, None], np.arange(lanes)
    out[oi + n * 2 * lanes + m] = x[xi + m * xm + n]


_installed: list[bool] = []


def install() -> None:
    """Tell Numba how to compile `tile`, once."""
    if _installed:
        return
    from numba import types
    from numba.extending import lower_builtin, type_callable

    def typed(context):
        return lambda a, ai, am, ak, b, bi, c, ci, cm, inner, add: types.none

    def typed_turn(context):
        return lambda x, xi, xm, out, oi, lanes: types.none

    number, array = types.Integer, types.Array
    type_callable(tile)(typed)
    lower_builtin(
        tile, array, number, number, number, array, number, array, number, number, number,
        types.Boolean,
    )(_emit_tile)  # fmt: skip
    type_callable(turn)(typed_turn)
    lower_builtin(turn, array, number, number, array, number, number)(_emit_turn)
    _installed.append(True)


class _Emitter:
    """Writes LLVM instructions for arrays of one dtype; arguments are numbered as given."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any) -> None:
        from llvmlite import ir

        self.ir, self.context, self.builder, self.sig, self.args = ir, context, builder, sig, args
        self.own = context.get_value_type(sig.args[0].dtype)
        self.size = context.get_abi_sizeof(self.own)
        self.height, self.width = shape(self.size)
        self.lanes = self.width // 2
        self.vector = ir.VectorType(self.own, self.lanes)
        self.undefined = ir.Constant(self.vector, ir.Undefined)

    def number(self, i: int) -> Any:
        """Argument i as a 64-bit integer."""
        from numba.core import types

        return self.context.cast(self.builder, self.args[i], self.sig.args[i], types.int64)

    def const(self, n: int) -> Any:
        return self.ir.Constant(self.ir.IntType(64), n)

    def pointer(self, i: int, offset: Any) -> Any:
        """Where element `offset` of array argument i is."""
        array = self.context.make_array(self.sig.args[i])(self.context, self.builder, self.args[i])
        return self.builder.gep(array.data, [offset])

    def at(self, pointer: Any, offset: Any) -> Any:
        return self.builder.gep(pointer, [offset])

    def load(self, pointer: Any) -> Any:
        """A vector from there, aligned as an element is."""
        loaded = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        loaded.align = self.size
        return loaded

    def store(self, value: Any, pointer: Any) -> None:
        target = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, target).align = self.size

    def shuffle(self, x: Any, y: Any, lanes: list[int]) -> Any:
        kind = self.ir.VectorType(self.ir.IntType(32), len(lanes))
        return self.builder.shuffle_vector(x, y, self.ir.Constant(kind, lanes))

    def splat(self, scalar: Any) -> Any:
        zero = self.ir.Constant(self.ir.IntType(32), 0)
        first = self.builder.insert_element(self.undefined, scalar, zero)
        return self.shuffle(first, self.undefined, [0] * self.lanes)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        product = self.builder.fmul(x, y, flags=("contract",))
        return self.builder.fadd(z, product, flags=("contract",))


def _emit_tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A loop over the inner index that keeps height x 2 vectors of sums in registers."""
    e = _Emitter(context, builder, sig, args)
    am, ak, cm, inner = (e.number(i) for i in (2, 3, 8, 9))
    b, c = e.pointer(4, e.number(5)), e.pointer(6, e.number(7))
    a = e.pointer(0, e.number(1))
    rows = [e.at(a, builder.mul(am, e.const(m))) for m in range(e.height)]
    before = builder.block
    loop, done = builder.append_basic_block("tile"), builder.append_basic_block("tile.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(e.ir.IntType(64))
    k.add_incoming(e.const(0), before)
    sums = [[builder.phi(e.vector) for _ in range(2)] for _ in range(e.height)]
    line, step = e.at(b, builder.mul(k, e.const(e.width))), builder.mul(k, ak)
    columns = [e.load(e.at(line, e.const(v * e.lanes))) for v in range(2)]
    zero, totals = e.ir.Constant(e.vector, [0.0] * e.lanes), []
    for m in range(e.height):
        factor = e.splat(builder.load(e.at(rows[m], step)))
        for v in range(2):
            totals.append(e.multiply_add(factor, columns[v], sums[m][v]))
            sums[m][v].add_incoming(zero, before)
            sums[m][v].add_incoming(totals[-1], loop)
    following = builder.add(k, e.const(1))
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, done)
    builder.position_at_end(done)
    lines = [e.at(c, builder.mul(cm, e.const(m))) for m in range(e.height)]
    targets = [e.at(line, e.const(v * e.lanes)) for line in lines for v in range(2)]
    with builder.if_else(args[10]) as (add, replace):
        with add:
            for total, target in zip(totals, targets, strict=True):
                e.store(builder.fadd(e.load(target), total), target)
        with replace:
            for total, target in zip(totals, targets, strict=True):
                e.store(total, target)
    return context.get_dummy_value()


def _emit_turn(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A transpose of lanes x lanes elements in log2(lanes) rounds of shuffles."""
    e = _Emitter(context, builder, sig, args)
    x, out, n = e.pointer(0, e.number(1)), e.pointer(3, e.number(4)), e.lanes
    rows = [e.load(e.at(x, builder.mul(e.number(2), e.const(m)))) for m in range(n)]
    half = 1
    while half < n:  # blocks of half x half change places across the diagonal of twice their size
        low = [i if not i & half else n + i - half for i in range(n)]
        high = [i + half if not i & half else n + i for i in range(n)]
        for m in range(n):
            if not m & half:
                upper, lower = rows[m], rows[m + half]
                rows[m] = e.shuffle(upper, lower, low)
                rows[m + half] = e.shuffle(upper, lower, high)
        half *= 2
    for m, row in enumerate(rows):
        e.store(row, e.at(out, e.const(m * e.width)))
    return context.get_dummy_value()

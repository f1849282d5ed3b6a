"""Rows of `minidl.ops.matmul`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import FLOAT, FLOATS, DType, float32, float64, int64
from minidl.ops.matmul import (
    addbmm,
    addmm,
    addmv,
    addr,
    baddbmm,
    bilinear,
    bmm,
    dot,
    einsum,
    inner,
    matmul,
    mm,
    mv,
    outer,
    tensordot,
    vdot,
)
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike

WIDE = (float64, float32)  # compositions round half dtypes more than once


def _shapes(*spelled: str, empty: bool = True) -> Any:
    """Arrays whose axes are spelled by letters, e.g. "nm", "mp": one letter, one size."""

    def inputs(d: Any, dtype: DType) -> Sample:
        # an inner size of 0 makes zeros: seldom drawn, as are empty results
        size = {
            c: d.integer(0 if empty and d.integer(0, 9) == 9 else 1, 4)
            for c in sorted(set("".join(spelled)))
        }
        return sample(*(d.array([size[c] for c in word], dtype) for word in spelled))

    return inputs


def _matmul_inputs(d: Any, dtype: DType) -> Sample:
    n, m, p = (d.integer(0 if d.integer(0, 9) == 9 else 1, 4) for _ in range(3))
    if d.boolean():
        return d.choice([
            sample(d.array((m,), dtype), d.array((m,), dtype)),
            sample(d.array((n, m), dtype), d.array((m,), dtype)),
            sample(d.array((m,), dtype), d.array((m, p), dtype)),
            sample(d.array((2, n, m), dtype), d.array((m,), dtype)),
            sample(d.array((m,), dtype), d.array((2, m, p), dtype)),
        ])  # fmt: skip
    batch = d.shape(max_dims=2, max_side=3, min_side=1)
    other = d.choice([(), batch, d.broadcastable(batch)])
    return sample(d.array((*batch, n, m), dtype), d.array((*other, m, p), dtype))


def _product(x: Any, y: Any) -> Any:
    """Sums of products, spelled out."""
    left, right = x.reshape(1, -1) if x.ndim == 1 else x, y.reshape(-1, 1) if y.ndim == 1 else y
    out = (left[..., :, :, None] * right[..., None, :, :]).sum(-2)
    out = out[..., 0] if y.ndim == 1 else out
    return out if x.ndim > 1 else out[..., 0, :] if y.ndim > 1 else out[..., 0]


def _plus_inputs(shape: str, *spelled: str) -> Any:
    # torch looks at the dtypes of empty products or not, as it happens
    factors = _shapes(*spelled, empty=False)

    def inputs(d: Any, dtype: DType) -> Sample:
        x, y = factors(d, dtype).args
        size = dict(zip("".join(spelled), (*x.shape, *y.shape), strict=True))
        into = tuple(size[c] for c in shape)
        z = d.array(d.broadcastable(into, within=True), dtype)
        number = d.number if dtype.kind == FLOAT else d.integer
        beta, alpha = (d.choice([0, 1, number(-2, 2)]) for _ in range(2))
        return sample(z, x, y, beta=beta, alpha=alpha)

    return inputs


def _alike_inputs(inputs: Any) -> Any:
    """In one dtype: torch's gradient fails for others."""

    def drawn(d: Any, dtype: DType) -> Sample:
        args, options = inputs(d, dtype)
        return sample(*alike(*args), **options)

    return drawn


def _plus(z: Any, x: Any, y: Any, beta: float, alpha: float) -> Any:
    return beta * z + alpha * _product(x, y)


# equations, with the axes of every operand; dots stand for one axis more
EQUATIONS = (
    "ij,jk->ik", "ij,jk", "bij,bjk->bik", "ij->ji", "ij->", "ba", "ij->i", "i,j->ij", "ij,ij->ij",
    "ij,ij->", "bhtd,bhsd->bhts", "ii->i", "ii", "iij,jk->ik", "iij->j", "i,i,i->i",
    "ij,jk,kl->li", "bij,oj,bko->bik", "ij,kl->", ",ij->ij", "...ij,...jk->...ik", "...ij,jk",
    "i...->...", "i...->", "ij , jk -> i k",
)  # fmt: skip


def _einsum_inputs(d: Any, dtype: DType) -> Sample:
    equation = d.choice(EQUATIONS)
    terms = equation.replace(" ", "").split("->")[0].replace("...", "z").split(",")
    size = {c: d.integer(1, 3) for c in "abdhijklostz"}
    arrays = []
    for term in terms:
        sides = [1 if "..." in equation and c == "z" and d.boolean() else size[c] for c in term]
        arrays.append(d.array(sides, dtype))
    return sample(equation, *alike(*arrays))


def _einsum(equation: str, *arrays: Any) -> Any:
    if equation.endswith("->") and "..." in equation:
        equation = equation + "..."  # NumPy does not sum over the dots
        out = np.einsum(equation, *arrays)
        return out.sum()
    return np.einsum(equation, *arrays)


def _tensordot_inputs(d: Any, dtype: DType) -> Sample:
    x = d.array((2, 3, d.integer(1, 3)), dtype)
    n = x.shape[2]
    shapes = {0: (2,), 1: (n, 2), 2: (3, n), ((0, 2), (1, 0)): (n, 2, 3), ((1,), (-1,)): (2, 3)}
    dims = d.choice(list(shapes))
    return sample(*alike(x, d.array(shapes[dims], dtype)), dims)


def _inner_inputs(d: Any, dtype: DType) -> Sample:
    n = d.integer(1, 4)
    shapes = [d.shape(max_dims=2, max_side=3) for _ in range(2)]
    return sample(*(d.array((*shape, n), dtype) for shape in shapes))


CASES = [
    Case("matmul", matmul, _product, _matmul_inputs, dtypes=(*FLOATS, int64)),
    Case("mm", mm, _product, _shapes("nm", "mp")),
    Case("bmm", bmm, _product, _shapes("bnm", "bmp")),
    Case("mv", mv, _product, _shapes("nm", "m")),
    Case("dot", dot, _product, _shapes("n", "n")),
    Case("vdot", vdot, _product, _shapes("n", "n")),
    Case("inner", inner, lambda x, y: _product(x, np.moveaxis(y, -1, 0).reshape(y.shape[-1], -1))
         .reshape(x.shape[:-1] + y.shape[:-1]), _inner_inputs),
    Case("outer", outer, lambda x, y: x[:, None] * y, _shapes("n", "m")),
    # scale: sums of products, some scaled first, that may cancel
    Case("addmm", addmm, _plus, _plus_inputs("np", "nm", "mp"), dtypes=(*FLOATS, int64), scale=4),
    Case("addmv", addmv, _plus, _plus_inputs("n", "nm", "m"), scale=4),
    Case("addbmm", addbmm, lambda z, x, y, beta, alpha: beta * z + alpha * _product(x, y).sum(0),
         _plus_inputs("np", "bnm", "bmp"), operators=("addmm",), scale=4, dtypes=WIDE),
    Case("addr", addr, lambda z, x, y, beta, alpha: _plus(z, x[:, None], y[None], beta, alpha),
         _alike_inputs(_plus_inputs("nm", "n", "m")), operators=("outer",), scale=4, dtypes=WIDE),
    Case("baddbmm", baddbmm, _plus, _plus_inputs("bnp", "bnm", "bmp"), scale=4),
    Case("einsum", einsum, _einsum, _einsum_inputs, dtypes=WIDE),
    Case("tensordot", tensordot, lambda x, y, dims: np.tensordot(x, y, dims),
         _tensordot_inputs),
    Case("bilinear", bilinear, lambda x, y, w, b: np.einsum("zi,oij,zj->zo", x, w, y) + b,
         _shapes("zi", "zj", "oij", "o", empty=False), dtypes=WIDE, scale=4),
]  # fmt: skip

"""Scaled dot-product attention, forward and backward, in blocks of query rows.

No (T, S) array is kept: the forward returns one log-sum-exp per query, from which the backward
recomputes the weights block by block. Causal blocks do not touch the keys after their last row.
Peak extra memory: contiguous copies of the inputs where they are not contiguous, and two blocks of
about BLOCK scores (at least one query row of one head).
Sources: Vaswani et al., "Attention is all you need", 2017; Rabe, Staats, "Self-attention does not
need O(n^2) memory", 2021; Dao et al., "FlashAttention", 2022 (recomputation from the log-sum-exp).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 65536  # scores per block: 256 KiB of float32, half of a second-level cache
ROWS = 128  # query rows per block at most, so that causal blocks stay near the diagonal


class Mask(NamedTuple):
    """A mask as (M, 1 or G, 1 or T, 1 or S) and, per folded head, which of the M it uses."""

    values: np.ndarray
    index: np.ndarray | None

    def block(self, heads: slice, rows: slice, columns: int) -> np.ndarray:
        """The part of a block of scores (heads, G, rows, columns), to be broadcast."""
        _, _, t, s = self.values.shape
        rows = rows if t > 1 else slice(None)
        chosen = slice(None) if self.index is None else self.index[heads]
        return self.values[chosen, :, rows, : columns if s > 1 else 1]


def fold_mask(mask: np.ndarray, lead: tuple[int, ...], group: int) -> Mask:
    """A mask for leading axes (*B, kv heads) of G = `group` heads each."""
    mask = mask.reshape((1,) * (len(lead) + 2 - mask.ndim) + mask.shape)
    # an expanded axis must not be materialised
    mask = mask[tuple(slice(0, 1) if step == 0 else slice(None) for step in mask.strides)]
    *batch, heads, rows, columns = mask.shape
    outer, inner = (1, 1) if heads == 1 else (lead[-1], group)
    many = math.prod(batch) * outer
    values = mask.reshape(many, inner, rows, columns)
    if many == 1:
        return Mask(values, None)
    index = np.arange(many).reshape(*batch, outer)
    return Mask(values, np.broadcast_to(index, lead).reshape(-1))


class _Problem:
    """The operands with their leading axes folded: N = batch * kv heads, G = heads per kv head.

    Neither keys nor queries are empty. A block is `heads` of the N times `length` query rows.
    """

    def __init__(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
    ) -> None:
        lead, (kv_heads, keys, depth) = q.shape[:-3], k.shape[-3:]
        self.count = math.prod(lead) * kv_heads
        self.group = q.shape[-3] // kv_heads
        self.queries, self.keys, self.causal = q.shape[-2], keys, causal
        self.q = self.fold(q) * q.dtype.type(scale)
        self.k = np.ascontiguousarray(k).reshape(self.count, keys, depth)
        self.v = np.ascontiguousarray(v).reshape(self.count, keys, v.shape[-1])
        row = self.group * keys  # scores of one query row of one kv head
        self.length = max(1, min(self.queries, ROWS, BLOCK // row))
        self.heads = max(1, min(self.count, BLOCK // (row * self.length)))
        self.mask = None if mask is None else fold_mask(mask, (*lead, kv_heads), self.group)

    def fold(self, x: np.ndarray) -> np.ndarray:
        """(*lead, H, T, D) -> (N, G, T, D)."""
        return np.ascontiguousarray(x).reshape(self.count, self.group, *x.shape[-2:])

    def scratch(self) -> np.ndarray:
        """Room for the largest block of scores."""
        return np.empty(self.heads * self.group * self.length * self.keys, self.q.dtype)

    def blocks(self) -> Iterator[tuple[slice, slice, int]]:
        """(folded heads, query rows, number of live key columns) of every block."""
        for n in range(0, self.count, self.heads):
            heads = slice(n, min(n + self.heads, self.count))
            for i in range(0, self.queries, self.length):
                stop = min(i + self.length, self.queries)
                yield heads, slice(i, stop), min(self.keys, stop) if self.causal else self.keys

    def take(self, x: np.ndarray, heads: slice, rows: slice) -> np.ndarray:
        """Rows of a folded (N, G, T, D) array as one matrix per kv head: (n, G * rows, D)."""
        part = x[heads, :, rows]
        count, group, length, depth = part.shape
        return part.reshape(count, group * length, depth)

    def scores(self, scratch: np.ndarray, heads: slice, rows: slice, columns: int) -> np.ndarray:
        """Scaled masked scores of a block, (n, G * rows, columns), in `scratch`."""
        count, length = heads.stop - heads.start, rows.stop - rows.start
        s4 = scratch[: count * self.group * length * columns]
        s4 = s4.reshape(count, self.group, length, columns)
        s = s4.reshape(count, self.group * length, columns)
        np.matmul(self.take(self.q, heads, rows), self.k[heads, :columns].swapaxes(1, 2), out=s)
        if self.causal and columns > rows.start:
            future = np.arange(rows.start, columns) > np.arange(rows.start, rows.stop)[:, None]
            np.copyto(s4[..., rows.start :], -np.inf, where=future)
        if self.mask is not None:
            mask = self.mask.block(heads, rows, columns)
            if mask.dtype == np.bool_:
                np.copyto(s4, -np.inf, where=~mask)
            else:
                np.add(s4, mask, out=s4, casting="same_kind")
        return s


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    causal: bool,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """softmax(scale q k^T + mask) v and the log-sum-exp of the masked scores.

    q: (*B, H, T, D), k: (*B, Hkv, S, D), v: (*B, Hkv, S, Dv), H a multiple of Hkv: query head h
    reads key head h // (H / Hkv); mask: None, bool (True: may attend) or float (added), to be
    broadcast to (*B, H, T, S); causal: key j is seen by query i if j <= i
    -> out (*B, H, T, Dv), lse (*B, H, T).

    A row that sees no key gives out 0 and lse -inf. Any strides; results are fresh, and
    C-contiguous or in the memory order (*B, T, H, D), where their input is. Floor:
    eps * (D sum|scale q k| + S) * sum_j p_j |v_j|.
    """
    out = np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = np.full(q.shape[:-1], -np.inf, q.dtype)
    if not k.shape[-2] or not lse.size:
        return out, lse
    problem = _Problem(q, k, v, mask, causal, scale)
    folded = (problem.count, problem.group, problem.queries)
    out4, lse3 = out.reshape(*folded, v.shape[-1]), lse.reshape(folded)
    scratch, ones = problem.scratch(), np.ones(problem.keys, q.dtype)
    for heads, rows, columns in problem.blocks():
        s = problem.scores(scratch, heads, rows, columns)
        top = s.max(axis=-1)
        np.copyto(top, 0, where=top == -np.inf)  # a row that sees no key: exp(-inf - 0) = 0
        s -= top[..., None]
        np.exp(s, out=s)
        total = np.matmul(s, ones[:columns])
        part = lse3[heads, :, rows]
        np.add(np.log(total).reshape(part.shape), top.reshape(part.shape), out=part)
        weighted = np.matmul(s, problem.v[heads, :columns])
        weighted /= total[..., None]
        np.copyto(weighted, 0, where=(total == 0)[..., None])
        out4[heads, :, rows] = weighted.reshape(*part.shape, v.shape[-1])
    return out, lse


def attention_backward(
    g: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    causal: bool,
    scale: float,
    out: np.ndarray,
    lse: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `attention` with respect to q, k and v, from its results.

    g, out: (*B, H, T, Dv), lse: (*B, H, T), the rest as in `attention` -> dq, dk, dv with the
    shapes of q, k, v. A row that saw no key contributes nothing.

    Any strides; results as those of `attention`. Floor: that of `attention`, times |g| and the
    length of the sum (S for dq, T * H / Hkv for dk and dv).
    """
    dq, dk, dv = (np.zeros(x.shape, x.dtype) for x in (q, k, v))
    if not k.shape[-2] or not lse.size:
        return dq, dk, dv
    problem = _Problem(q, k, v, mask, causal, scale)
    g4, out4 = problem.fold(g), problem.fold(out)
    lse3 = lse.reshape(problem.count, problem.group, problem.queries)
    seen = np.where(lse3 == -np.inf, np.inf, lse3)  # exp(s - inf) = 0
    delta = np.vecdot(g4, out4)
    dq4, dk3, dv3 = (
        dq.reshape(problem.q.shape),
        dk.reshape(problem.k.shape),
        dv.reshape(problem.v.shape),
    )
    first, second = problem.scratch(), problem.scratch()
    for heads, rows, columns in problem.blocks():
        p = problem.scores(first, heads, rows, columns)
        shape = p.shape[:2]
        p -= seen[heads, :, rows].reshape(*shape, 1)
        np.exp(p, out=p)
        gb = problem.take(g4, heads, rows)
        dv3[heads, :columns] += np.matmul(p.swapaxes(1, 2), gb)
        ds = second[: p.size].reshape(p.shape)
        np.matmul(gb, problem.v[heads, :columns].swapaxes(1, 2), out=ds)
        ds -= delta[heads, :, rows].reshape(*shape, 1)
        ds *= p
        part = np.matmul(ds, problem.k[heads, :columns])
        part *= scale
        dq4[heads, :, rows] = part.reshape(dq4[heads, :, rows].shape)
        dk3[heads, :columns] += np.matmul(ds.swapaxes(1, 2), problem.take(problem.q, heads, rows))
    return dq, dk, dv

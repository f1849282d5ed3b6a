"""Matrix products: cuBLAS, and a kernel of our own where cuBLAS may not be called.

CuPy refuses cuBLAS while a graph is captured. The kernel: a block of 256 threads makes a tile of
64 R x 64 R results (R = 1 or 2), each thread 4 R x 4 R of them in registers, from slices of 16 of
the inner axis that all threads bring to shared memory; the next slice is on its way while the
present one is multiplied. Operands have any strides, so transposed ones are read where they are.
Results of few tiles and a long inner axis are cut along that axis into parts, which are summed
afterwards in a fixed order: the bits do not depend on timing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import capturing
from minidl.backends.cupy_gpu.raw.launch import Source
from minidl.backends.cupy_gpu.xp import cp

_BUSY = 264  # blocks that keep a large GPU busy: two on each of 132 multiprocessors
_PART = 256  # the least that a part of the inner axis is worth

SOURCE = r"""
typedef long long i64;

struct Product {
    const void* a;        // (..., m, k)
    const void* b;        // (..., k, n)
    void* c;              // (parts, ..., m, n)
    i64 m, n, k;
    i64 a_row, a_inner, b_inner, b_column, c_row, c_column;  // strides in elements
    i64 size1, size2;     // the batch is (size0, size1, size2); size0 follows from the grid
    i64 a0, a1, a2, b0, b1, b2, c0, c1, c2;
    i64 batch;            // size0 * size1 * size2
    i64 part, c_part;     // inner elements of one part, and the stride of the parts of c
};

template <typename T, int R>
__device__ void multiply(const Product& p) {
    const int SIDE = 64 * R, DEPTH = 16, THREADS = 256, EACH = SIDE * DEPTH / THREADS;
    __shared__ __align__(16) T a_tile[DEPTH][SIDE + 4];
    __shared__ __align__(16) T b_tile[DEPTH][SIDE + 4];

    const i64 tiles_n = (p.n + SIDE - 1) / SIDE, tiles_m = (p.m + SIDE - 1) / SIDE;
    i64 rest = blockIdx.x;
    const i64 column0 = rest % tiles_n * SIDE;
    rest /= tiles_n;
    const i64 row0 = rest % tiles_m * SIDE;
    rest /= tiles_m;
    const i64 item = rest % p.batch, slice = rest / p.batch;
    const i64 i2 = item % p.size2, i1 = item / p.size2 % p.size1, i0 = item / p.size2 / p.size1;

    const T* a = (const T*)p.a + i0 * p.a0 + i1 * p.a1 + i2 * p.a2;
    const T* b = (const T*)p.b + i0 * p.b0 + i1 * p.b1 + i2 * p.b2;
    T* c = (T*)p.c + i0 * p.c0 + i1 * p.c1 + i2 * p.c2 + slice * p.c_part;
    const i64 begin = slice * p.part, end = begin + p.part < p.k ? begin + p.part : p.k;

    // neighbouring threads read along the axis whose stride is 1
    const bool a_along = p.a_inner == 1, b_along = p.b_inner == 1;
    const int thread = threadIdx.x, x = thread % 16 * 4, y = thread / 16 * 4;
    T a_next[EACH], b_next[EACH], sum[4 * R][4 * R];
#pragma unroll
    for (int i = 0; i < 4 * R; ++i)
#pragma unroll
        for (int j = 0; j < 4 * R; ++j) sum[i][j] = 0;

    for (i64 k0 = begin - DEPTH; k0 < end; k0 += DEPTH) {
        if (k0 >= begin) {  // the slice that was fetched in the last round
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int at = e * THREADS + thread;
                a_tile[a_along ? at % DEPTH : at / SIDE][a_along ? at / DEPTH : at % SIDE] =
                    a_next[e];
                b_tile[b_along ? at % DEPTH : at / SIDE][b_along ? at / DEPTH : at % SIDE] =
                    b_next[e];
            }
            __syncthreads();
        }
        if (k0 + DEPTH < end) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int at = e * THREADS + thread;
                const i64 ka = k0 + DEPTH + (a_along ? at % DEPTH : at / SIDE);
                const i64 row = row0 + (a_along ? at / DEPTH : at % SIDE);
                const i64 kb = k0 + DEPTH + (b_along ? at % DEPTH : at / SIDE);
                const i64 column = column0 + (b_along ? at / DEPTH : at % SIDE);
                a_next[e] = ka < end && row < p.m ? a[row * p.a_row + ka * p.a_inner] : T(0);
                b_next[e] =
                    kb < end && column < p.n ? b[kb * p.b_inner + column * p.b_column] : T(0);
            }
        }
        if (k0 >= begin) {
#pragma unroll
            for (int d = 0; d < DEPTH; ++d) {
                T left[4 * R], right[4 * R];
#pragma unroll
                for (int i = 0; i < 4 * R; ++i) {
                    left[i] = a_tile[d][i / 4 * 64 + y + i % 4];
                    right[i] = b_tile[d][i / 4 * 64 + x + i % 4];
                }
#pragma unroll
                for (int i = 0; i < 4 * R; ++i)
#pragma unroll
                    for (int j = 0; j < 4 * R; ++j) sum[i][j] += left[i] * right[j];
            }
            __syncthreads();
        }
    }

#pragma unroll
    for (int i = 0; i < 4 * R; ++i) {
        const i64 row = row0 + i / 4 * 64 + y + i % 4;
#pragma unroll
        for (int j = 0; j < 4 * R; ++j) {
            const i64 column = column0 + j / 4 * 64 + x + j % 4;
            if (row < p.m && column < p.n) c[row * p.c_row + column * p.c_column] = sum[i][j];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) multiply_float(Product p) {
    multiply<float, 1>(p);
}
extern "C" __global__ void __launch_bounds__(256) multiply_float_large(Product p) {
    multiply<float, 2>(p);
}
extern "C" __global__ void __launch_bounds__(256) multiply_double(Product p) {
    multiply<double, 1>(p);
}
"""
_FIELDS = (
    "a b c m n k a_row a_inner b_inner b_column c_row c_column size1 size2 "
    "a0 a1 a2 b0 b1 b2 c0 c1 c2 batch part c_part"
)
_loaded: set[int] = set()  # GPUs
_source = Source(SOURCE, [(name, "<i8") for name in _FIELDS.split()])


def matmul(x: Any, y: Any, out: Any = None) -> Any:
    """`numpy.matmul` of CuPy arrays; into `out`, which overlaps neither operand, if it is given."""
    if capturing() and x.dtype == y.dtype and x.dtype in (np.float32, np.float64):
        return _own(x, y, out)
    return cp.matmul(x, y) if out is None else cp.matmul(x, y, out=out)


def _own(x: Any, y: Any, out: Any) -> Any:
    """The product by the kernel above."""
    if not x.ndim or not y.ndim:
        raise ValueError("a matrix product needs at least one axis")
    x2 = x[None, :] if x.ndim == 1 else x
    y2 = y[:, None] if y.ndim == 1 else y
    if x2.shape[-1] != y2.shape[-2]:
        raise ValueError("shapes do not fit")
    lead = np.broadcast_shapes(x2.shape[:-2], y2.shape[:-2])
    shape = lead + x.shape[-2:-1] * (x.ndim > 1) + y.shape[-1:] * (y.ndim > 1)
    if out is not None and (out.shape != shape or out.dtype != x.dtype):
        raise ValueError("out does not fit")
    result = cp.empty(shape, x.dtype) if out is None else out
    if not result.size:
        return result
    if not x2.shape[-1]:
        result.fill(0)
        return result
    target = result
    if x.ndim == 1:
        target = cp.expand_dims(target, -1 if y.ndim == 1 else -2)
    if y.ndim == 1:
        target = cp.expand_dims(target, -1)
    _start(x2, y2, target, lead)
    return result


def _start(x: Any, y: Any, target: Any, lead: tuple[int, ...]) -> None:
    batch = math.prod(lead)
    if len(lead) > 3:  # more axes than the kernel has strides for
        x = cp.ascontiguousarray(cp.broadcast_to(x, lead + x.shape[-2:]))
        y = cp.ascontiguousarray(cp.broadcast_to(y, lead + y.shape[-2:]))
        whole = target
        target = cp.empty((batch, *target.shape[-2:]), target.dtype)
        _start(x.reshape(batch, *x.shape[-2:]), y.reshape(batch, *y.shape[-2:]), target, (batch,))
        whole[...] = target.reshape(whole.shape)
        return
    (m, k), n = x.shape[-2:], y.shape[-1]
    large = x.dtype == np.float32 and -(-m // 128) * -(-n // 128) * batch >= _BUSY // 2
    side = 128 if large else 64
    tiles = -(-m // side) * -(-n // side) * batch
    parts = max(1, min(_BUSY // tiles, k // _PART))
    part = -(-k // parts)
    parts = -(-k // part)
    results = target if parts == 1 else cp.empty((parts, *target.shape), target.dtype)

    record = _source.record()
    row = record[0]
    item = x.itemsize
    row["a"], row["b"], row["c"] = x.data.ptr, y.data.ptr, results.data.ptr
    row["m"], row["n"], row["k"] = m, n, k
    row["a_row"], row["a_inner"] = (step // item for step in x.strides[-2:])
    row["b_inner"], row["b_column"] = (step // item for step in y.strides[-2:])
    row["c_row"], row["c_column"] = (step // item for step in results.strides[-2:])
    sizes = (1,) * (3 - len(lead)) + lead
    row["size1"], row["size2"], row["batch"] = sizes[1], sizes[2], batch
    for name, array in (("a", x), ("b", y), ("c", target if parts == 1 else results[0])):
        for axis, step in enumerate(_batch_strides(array)):
            row[f"{name}{axis}"] = step
    row["part"] = part
    row["c_part"] = results.strides[0] // item if parts > 1 else 0
    kernel = "multiply_double" if item == 8 else f"multiply_float{'_large' if large else ''}"
    _source.start(kernel, tiles * parts, record)
    if parts > 1:
        cp.sum(results, axis=0, out=target)


def _batch_strides(array: Any) -> tuple[int, ...]:
    """Steps in elements along the three batch axes, 0 along broadcast ones."""
    own, steps = array.shape[:-2], array.strides[:-2]
    missing = 3 - len(own)
    return (0,) * missing + tuple(
        0 if size == 1 else step // array.itemsize for size, step in zip(own, steps, strict=True)
    )


def load() -> None:
    """Run each kernel once on every GPU: graphs should find them compiled and loaded."""
    device = cp.cuda.runtime.getDevice()
    if device in _loaded:
        return
    _loaded.add(device)
    for dtype in (np.float32, np.float64):
        x = cp.zeros((1, 2 * _PART), dtype)  # in parts
        _own(x, x.T, None)
    x = cp.zeros((_BUSY, 128, 16), np.float32)  # the large tiles
    _own(x, x.swapaxes(-1, -2), None)

"""Optimiser steps: one kernel for many parameters, bit for bit the specification's arithmetic.

What may change from step to step (learning rate, momentum, bias corrections) comes in doubles:
with the arguments, or in a graph from the words that every replay brings (see `capture`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu import optim
from minidl.backends.cupy_gpu.capture import recording, refreshing
from minidl.backends.cupy_gpu.raw.launch import THREADS, Source
from minidl.backends.cupy_gpu.xp import cp

__all__ = ["adam_step", "grad_norm", "sgd_step"]

_MOST = 24  # parameters per launch: their addresses must fit into the arguments of a kernel
_BLOCK = 4 * THREADS  # elements that a block steps

SOURCE = r"""
typedef long long i64;

struct Step {
    const double* live;        // the numbers of this replay, `numbers` per parameter, or null
    i64 numbers;
    double given[24][8];       // the same outside of graphs
    void *param[24], *grad[24], *first[24], *second[24], *third[24];  // grad is only read
    i64 size[24];
    i64 start[25];             // the first block of each parameter
    i64 fresh[24];             // whether the momentum is still to be set
    i64 params, momentum, nesterov, maximize, decay, decoupled, amsgrad;
};

__device__ const double* numbers_of(const Step& p, int at) {
    return p.live ? p.live + at * p.numbers : p.given[at];
}

// Which parameter this block works on.
__device__ int parameter_of_block(const Step& p) {
    int at = 0;
    while (at + 1 < p.params && blockIdx.x >= p.start[at + 1]) ++at;
    return at;
}

// numbers: lr, momentum, 1 - dampening, weight decay
template <typename T>
__device__ void sgd(const Step& p) {
    const int at = parameter_of_block(p);
    const double* number = numbers_of(p, at);
    const T lr = (T)number[0], momentum = (T)number[1], damped = (T)number[2], decay = (T)number[3];
    T *param = (T*)p.param[at], *velocity = (T*)p.first[at];
    const T* grad = (const T*)p.grad[at];
    for (int part = 0; part < 4; ++part) {
        const i64 i = ((i64)blockIdx.x - p.start[at]) * 4 * blockDim.x + part * blockDim.x +
                      threadIdx.x;
        if (i >= p.size[at]) return;
        T x = param[i], d = p.maximize ? -grad[i] : grad[i];
        if (p.decay) d = d + x * decay;
        if (p.momentum) {
            T v = d;
            if (!p.fresh[at]) {
                v = velocity[i] * momentum;
                v = v + d * damped;
            }
            velocity[i] = v;
            d = p.nesterov ? d + v * momentum : v;
        }
        param[i] = x - d * lr;
    }
}

// numbers: lr / (1 - beta1^t), sqrt(1 - beta2^t), 1 - lr * weight decay, beta1, beta2, eps,
// weight decay
template <typename T>
__device__ void adam(const Step& p) {
    const int at = parameter_of_block(p);
    const double* number = numbers_of(p, at);
    const T step_size = (T)number[0], root = (T)number[1], shrink = (T)number[2];
    const T beta1 = (T)number[3], beta2 = (T)number[4], eps = (T)number[5], decay = (T)number[6];
    const T rest1 = (T)(1.0 - number[3]), rest2 = (T)(1.0 - number[4]);
    const bool near = number[3] > 0.5;
    T *param = (T*)p.param[at], *average = (T*)p.first[at], *square = (T*)p.second[at];
    T* largest = (T*)p.third[at];
    const T* grad = (const T*)p.grad[at];
    for (int part = 0; part < 4; ++part) {
        const i64 i = ((i64)blockIdx.x - p.start[at]) * 4 * blockDim.x + part * blockDim.x +
                      threadIdx.x;
        if (i >= p.size[at]) return;
        T x = param[i], d = p.maximize ? -grad[i] : grad[i], m = average[i], v = square[i];
        if (p.decay && p.decoupled)
            x = x * shrink;
        else if (p.decay)
            d = d + x * decay;
        // from the end that is nearer, as the specification does
        const T apart = d - m;
        m = near ? m + apart * rest1 : d - apart * beta1;
        v = v * beta2;
        v = v + d * rest2 * d;
        average[i] = m;
        square[i] = v;
        if (p.amsgrad) {
            const T u = largest[i];
            v = u > v || u != u ? u : v;  // a NaN stays
            largest[i] = v;
        }
        const T below = sqrt(v) / root + eps;
        param[i] = x - m * step_size / below;
    }
}

extern "C" __global__ void sgd_float(const __grid_constant__ Step p) { sgd<float>(p); }
extern "C" __global__ void sgd_double(const __grid_constant__ Step p) { sgd<double>(p); }
extern "C" __global__ void adam_float(const __grid_constant__ Step p) { adam<float>(p); }
extern "C" __global__ void adam_double(const __grid_constant__ Step p) { adam<double>(p); }
"""
_FLAGS = ("params", "momentum", "nesterov", "maximize", "decay", "decoupled", "amsgrad")
_source = Source(
    SOURCE,
    [("live", "<u8"), ("numbers", "<i8"), ("given", "<f8", (_MOST, 8))]
    + [(name, "<u8", (_MOST,)) for name in ("param", "grad", "first", "second", "third")]
    + [("size", "<i8", (_MOST,)), ("start", "<i8", (_MOST + 1,)), ("fresh", "<i8", (_MOST,))]
    + [(name, "<i8") for name in _FLAGS],
    ("--fmad=false",),  # every product is rounded, as in the specification
)


def sgd_step(
    params: Sequence[Any],
    grads: Sequence[Any],
    momenta: Sequence[Any],
    first: Sequence[bool],
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """See the specification."""
    numbers = [[lr, momentum, 1 - dampening, weight_decay]] * len(params)
    states = zip(params, grads, momenta if momentum else [None] * len(params), strict=True)
    flags = {
        "momentum": momentum != 0,
        "nesterov": nesterov,
        "maximize": maximize,
        "decay": weight_decay != 0,
    }
    _step("sgd", [(*state, None, None) for state in states], numbers, first, flags)


def adam_step(
    params: Sequence[Any],
    grads: Sequence[Any],
    exp_avgs: Sequence[Any],
    exp_avg_sqs: Sequence[Any],
    max_exp_avg_sqs: Sequence[Any],
    steps: Sequence[int],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> None:
    """See the specification."""
    by_step = {}
    for step in steps:
        if step not in by_step:
            size, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
            shrink = 1 - lr * weight_decay
            by_step[step] = [size, root, shrink, beta1, beta2, eps, weight_decay]
    numbers = [by_step[step] for step in steps]
    states = zip(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, strict=True)
    flags = {
        "maximize": maximize,
        "decay": weight_decay != 0,
        "decoupled": decoupled,
        "amsgrad": amsgrad,
    }
    _step("adam", list(states), numbers, [False] * len(params), flags)


def _step(
    name: str,
    states: list[tuple[Any, ...]],
    numbers: list[list[float]],
    first: Sequence[bool],
    flags: dict[str, Any],
) -> None:
    """Start the kernel `name` on (param, grad, up to three states) of all parameters."""
    graph = recording()
    for wide in (False, True):
        at = [i for i, state in enumerate(states) if (state[0].dtype == np.float64) == wide]
        for part in _parts(at, states):
            given = [numbers[i] for i in part]
            live = 0 if graph is None else graph.slots(np.ravel(given))
            if refreshing():
                continue  # the kernel is in the graph already
            record = _source.record()
            row = record[0]
            row["live"], row["numbers"], row["params"] = live, len(given[0]), len(part)
            for flag, value in flags.items():
                row[flag] = bool(value)
            put_back: list[Callable[[], None]] = []
            blocks = 0
            for place, i in enumerate(part):
                dtype = np.dtype(np.float64 if wide else np.float32)
                arrays = [
                    _working(array, dtype, put_back, k != 1) for k, array in enumerate(states[i])
                ]
                for field, array in zip(_ARRAYS, arrays, strict=True):
                    row[field][place] = 0 if array is None else array.data.ptr
                row["given"][place][: len(given[0])] = given[place]
                row["size"][place], row["start"][place] = states[i][0].size, blocks
                row["fresh"][place] = bool(first[i])
                blocks += -(-states[i][0].size // _BLOCK)
            row["start"][len(part)] = blocks
            _source.start(f"{name}_{'double' if wide else 'float'}", blocks, record)
            for back in put_back:
                back()


def _parts(at: list[int], states: list[tuple[Any, ...]]) -> Iterator[list[int]]:
    """Cut `at` into launches; a parameter that is given twice steps twice, one after the other."""
    part: list[int] = []
    for i in at:
        twice = any(states[i][0] is states[j][0] for j in part)
        if twice or len(part) == _MOST:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


_ARRAYS = ("param", "grad", "first", "second", "third")


def _working(array: Any, dtype: np.dtype, put_back: list[Callable[[], None]], written: bool) -> Any:
    """`array` itself or a C-contiguous copy of the working dtype, which `put_back` copies back."""
    if array is None or (array.dtype == dtype and array.flags.c_contiguous):
        return array
    copy = cp.array(array, dtype, order="C")

    def back(array: Any = array, copy: Any = copy) -> None:
        if written:
            array[...] = copy

    put_back.append(back)  # also keeps a copy that is only read until the kernel is started
    return copy


# ---------------------------------------------------------------- the norm of all gradients

_NORMED = 4096  # elements whose squares one block adds up
_GRADS = 96  # per launch

NORM = r"""
typedef long long i64;

struct Squares {
    double* out;           // one sum per block
    const void* grad[96];
    i64 size[96];
    i64 start[97];         // the first block of each gradient
    i64 grads;
};

template <typename T>
__device__ void squares(const Squares& p) {
    __shared__ double sums[256];
    int at = 0;
    while (at + 1 < p.grads && blockIdx.x >= p.start[at + 1]) ++at;
    const T* grad = (const T*)p.grad[at];
    const i64 begin = ((i64)blockIdx.x - p.start[at]) * 4096;
    double sum = 0;
    for (int part = 0; part < 16; ++part) {
        const i64 i = begin + part * 256 + threadIdx.x;
        if (i < p.size[at]) sum += (double)grad[i] * (double)grad[i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = 128; half; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) p.out[blockIdx.x] = sums[0];
}

extern "C" __global__ void squares_float(const __grid_constant__ Squares p) { squares<float>(p); }
"""
_norm_source = Source(
    NORM,
    [("out", "<u8"), ("grad", "<u8", (_GRADS,)), ("size", "<i8", (_GRADS,))]
    + [("start", "<i8", (_GRADS + 1,)), ("grads", "<i8")],
)


def grad_norm(grads: Sequence[Any], norm_type: float) -> Any:
    """See the specification; a 0-d float64 array. The Euclidean norm takes three kernels."""
    if norm_type != 2 or not grads or any(g.dtype == np.float64 for g in grads):
        return optim.grad_norm(grads, norm_type)
    keep: list[Callable[[], None]] = []  # copies, until their kernel is started
    flat = [_working(g, np.dtype(np.float32), keep, False) for g in grads if g.size]
    sums = cp.empty((sum(-(-g.size // _NORMED) for g in flat),), np.float64)
    done = 0
    for begin in range(0, len(flat), _GRADS):
        part = flat[begin : begin + _GRADS]
        record = _norm_source.record()
        row = record[0]
        row["out"], row["grads"] = sums.data.ptr + 8 * done, len(part)
        blocks = 0
        for place, grad in enumerate(part):
            row["grad"][place], row["size"][place] = grad.data.ptr, grad.size
            row["start"][place] = blocks
            blocks += -(-grad.size // _NORMED)
        row["start"][len(part)] = blocks
        _norm_source.start("squares_float", blocks, record)
        done += blocks
    return cp.sqrt(cp.sum(sums))

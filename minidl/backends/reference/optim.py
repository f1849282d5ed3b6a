"""Optimiser steps: one call updates all parameters in place.

Lists run in parallel, one entry per parameter; an array and its gradient have one shape. Arrays
may be float16, bfloat16, float32 or float64, of any strides, but not overlap. Arithmetic is in
float32 (float64 for float64 parameters), in the order of PyTorch's single-tensor steps; 16-bit
arrays are widened, and rounded once at the end. Floor: 4 ULP of the update plus 1 of the parameter.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from minidl.backends.reference.blocks import spans
from minidl.backends.reference.host import host


def _wide(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


class _Working:
    """A flat array of the working dtype to compute on: the array itself, or a copy to put back."""

    __slots__ = ("source", "flat", "copied")

    def __init__(self, source: np.ndarray, dtype: np.dtype) -> None:
        self.source = source
        self.copied = source.dtype != dtype or not source.flags.c_contiguous
        array = np.array(source, dtype, order="C") if self.copied else source
        self.flat = array.reshape(-1)

    def put_back(self) -> None:
        if self.copied:
            self.source[...] = self.flat.reshape(self.source.shape)


def _pieces(*arrays: _Working) -> Iterator[list[np.ndarray]]:
    for start, stop in spans(arrays[0].flat.size):
        yield [a.flat[start:stop] for a in arrays]


def _scratch(params: Sequence[np.ndarray]) -> dict[np.dtype, np.ndarray]:
    """Two rows of scratch per working dtype, long enough for the first (longest) piece."""
    longest: dict[np.dtype, int] = {}
    for p in params:
        _, stop = next(spans(p.size), (0, 0))
        longest[_wide(p.dtype)] = max(stop, longest.get(_wide(p.dtype), 0))
    return {dtype: np.empty((2, size), dtype) for dtype, size in longest.items()}


def sgd_step(
    params: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    momenta: Sequence[np.ndarray | None],
    first: Sequence[bool],
    *,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Stochastic gradient descent; writes params and momenta, reads grads.

    momenta: the momentum buffers, read only if `momentum` is not 0; first: whether a buffer is
    still to be initialised, with the (decayed) gradient.
    Source: Sutskever et al., "On the importance of initialization and momentum", 2013.
    """
    scratch = _scratch(params)
    for param, grad, buffer, fresh in zip(params, grads, momenta, first, strict=True):
        dtype = _wide(param.dtype)
        p, g = _Working(param, dtype), _Working(grad, dtype)
        b = _Working(buffer, dtype) if momentum and buffer is not None else None
        arrays = (p, g) if b is None else (p, g, b)
        for x, d, *velocity in _pieces(*arrays):
            s, t = scratch[dtype][:, : len(x)]
            if maximize:
                d = np.negative(d, out=s)
            if weight_decay:
                d = np.add(d, np.multiply(x, weight_decay, out=t), out=s)
            for v in velocity:
                if fresh:
                    v[...] = d
                else:
                    v *= momentum
                    v += np.multiply(d, 1 - dampening, out=t)
                d = np.add(d, np.multiply(v, momentum, out=t), out=s) if nesterov else v
            x -= np.multiply(d, lr, out=t)
        for array in (p,) if b is None else (p, b):
            array.put_back()


def adam_step(
    params: Sequence[np.ndarray],
    grads: Sequence[np.ndarray],
    exp_avgs: Sequence[np.ndarray],
    exp_avg_sqs: Sequence[np.ndarray],
    max_exp_avg_sqs: Sequence[np.ndarray | None],
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
    """Adam, or AdamW where `decoupled`; writes params and the averages, reads grads.

    max_exp_avg_sqs: read only if `amsgrad`; steps: the number of this step per parameter, from 1.
    Sources: Kingma, Ba, "Adam", 2015; Loshchilov, Hutter, "Decoupled weight decay", 2019; Reddi,
    Kale, Kumar, "On the convergence of Adam and beyond", 2018 (amsgrad).
    """
    scratch = _scratch(params)
    states = zip(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, strict=True)
    for param, grad, average, square, largest, step in states:
        dtype = _wide(param.dtype)
        arrays = [_Working(a, dtype) for a in (param, grad, average, square)]
        if amsgrad and largest is not None:
            arrays.append(_Working(largest, dtype))
        step_size = lr / (1 - beta1**step)
        root = math.sqrt(1 - beta2**step)
        for x, d, m, v, *peak in _pieces(*arrays):
            s, t = scratch[dtype][:, : len(x)]
            if maximize:
                d = np.negative(d, out=s)
            if weight_decay and decoupled:
                x *= 1 - lr * weight_decay
            elif weight_decay:
                d = np.add(d, np.multiply(x, weight_decay, out=t), out=s)
            # m + (1 - beta1) (d - m), from the end that is nearer, as torch.lerp does
            np.subtract(d, m, out=t)
            if beta1 > 0.5:
                t *= 1 - beta1
                m += t
            else:
                t *= beta1
                np.subtract(d, t, out=m)
            v *= beta2
            np.multiply(d, 1 - beta2, out=t)
            t *= d
            v += t
            for u in peak:
                v = np.maximum(u, v, out=u)
            np.sqrt(v, out=t)
            t /= root
            t += eps
            np.multiply(m, step_size, out=s)
            s /= t
            x -= s
        for array in (arrays[0], *arrays[2:]):
            array.put_back()


def _norm(x: np.ndarray, p: float) -> float:
    """The p-norm of a flat array, in float64."""
    if not x.size:
        return 0.0
    if math.isinf(p):
        return float(host(np.abs(x).max() if p > 0 else np.abs(x).min()))
    if p == 0:
        return float(host(np.count_nonzero(x)))
    total = 0.0
    for start, stop in spans(x.size):
        piece = x[start:stop].astype(np.float64, copy=False)
        total += float(host(np.dot(piece, piece) if p == 2 else (np.abs(piece) ** p).sum()))
    if (total == 0 or math.isinf(total)) and x.dtype == np.float64:
        # powers of float64 values may leave the range although the norm does not
        top = float(host(np.abs(x).max()))
        if 0 < top < math.inf:
            return top * float(host((np.abs(x / top) ** p).sum())) ** (1 / p)
    return total ** (1 / p) if total or p > 0 else math.inf


def grad_norm(grads: Sequence[np.ndarray], norm_type: float) -> float:
    """The norm of the norms of all gradients, 0.0 for none, as clip_grad_norm_ defines it.

    grads: float arrays of any dtype and strides, not written -> a Python float, accumulated in
    float64.
    """
    norms = [_norm(_Working(g, _wide(g.dtype)).flat, norm_type) for g in grads]
    return _norm(np.array(norms, np.float64), norm_type)


def grad_scale(grads: Sequence[np.ndarray], factor: float) -> None:
    """Multiply all gradients by `factor`, in place; 16-bit ones are widened and rounded once."""
    for grad in grads:
        g = _Working(grad, _wide(grad.dtype))
        g.flat *= factor
        g.put_back()

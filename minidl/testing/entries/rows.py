"""Rows of reductions, softmax, normalisation and losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends import reference
from minidl.dtypes import HALVES, DType, bool_, float32, int32, int64, uint8
from minidl.testing.case import Sample, sample
from minidl.testing.draws import Inputs
from minidl.testing.entries.draws import FEW, array, shape, side
from minidl.testing.entry import WORKING, Entry, entry


def _axes(d: Any, ndim: int, everything: bool = True) -> tuple[int, ...] | None:
    if not ndim or (everything and d.integer(0, 2) == 0):
        return None if everything else ()
    count = d.integer(1, ndim)
    return tuple(sorted(int(a) for a in d.rng.permutation(ndim)[:count]))


def _sum(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d), dtype, extreme=True)
    return Sample((x,), {"axis": _axes(d, x.ndim), "keepdims": d.boolean()})


def _terms(want: Any, x: np.ndarray, **options: Any) -> np.ndarray:
    return np.asarray(4 * np.sum(np.abs(x), **options))


def _extremum(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d, empty=False), dtype, extreme=True)
    return Sample((x,), {"axis": _axes(d, x.ndim), "keepdims": d.boolean()})


def _place(d: Any, dtype: DType) -> Sample:
    # few values, of which many are equal
    x = array(d, shape(d, empty=False), dtype, extreme=True)
    if d.boolean():
        x = d.layout(np.asarray(np.round(x), dtype.numpy))
    axis = d.axis(x.ndim) if x.ndim and d.boolean() else None
    return Sample((x,), {"axis": axis, "keepdims": d.boolean()})


def _prod(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d), dtype, 0.5, 1.5)
    return Sample((x,), {"axis": _axes(d, x.ndim), "keepdims": d.boolean(), "dtype": np.float64})


def _factors(want: Any, x: np.ndarray, **options: Any) -> np.ndarray:
    return (4 + x.size / 4) * np.abs(want[0])


def _truth(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d), dtype)
    return Sample((x,), {"axis": _axes(d, x.ndim), "keepdims": d.boolean()})


def _count(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d, least=1), dtype)
    return Sample((x,), {"axis": _axes(d, x.ndim, everything=False)})


def _running(d: Any, dtype: DType) -> Sample:
    full = shape(d, least=1)
    return sample(array(d, full, dtype, extreme=True), d.axis(len(full)))


def _soft(d: Any, dtype: DType) -> Sample:
    full = shape(d, least=1)
    return sample(array(d, full, dtype, -9, 9, extreme=True), d.axis(len(full)))


def _soft_backward(log: bool) -> Inputs:
    function = reference.log_softmax if log else reference.softmax

    def inputs(d: Any, dtype: DType) -> Sample:
        full = shape(d, least=1, empty=False)
        axis = d.axis(len(full))
        out = function(d.rng.uniform(-3, 3, full), axis).astype(dtype.numpy)
        return sample(array(d, full, dtype), d.layout(out), axis)

    return inputs


def _logsumexp(d: Any, dtype: DType) -> Sample:
    x = array(d, shape(d), dtype, -9, 9, extreme=True)
    return sample(x, _axes(d, x.ndim, everything=False), d.boolean())


def _normed(d: Any, dtype: DType) -> tuple[tuple[int, ...], int, np.ndarray]:
    """(shape, number of normalised axes, array)."""
    full = (*(d.choice(FEW) for _ in range(d.integer(0, 2))), side(d, empty=False))
    ndim = d.integer(1, len(full)) if 0 not in full else 1
    return full, ndim, array(d, full, dtype, *d.choice([(-3, 3), (2, 4)]))


def _maybe(d: Any, full: tuple[int, ...], dtype: DType) -> np.ndarray | None:
    return array(d, full, dtype) if d.boolean() else None


def _layer_norm(d: Any, dtype: DType) -> Sample:
    full, ndim, x = _normed(d, dtype)
    weight, bias = (_maybe(d, full[len(full) - ndim :], dtype) for _ in range(2))
    return sample(x, ndim, weight, bias, 1e-5)


def _add_layer_norm(d: Any, dtype: DType) -> Sample:
    full, ndim, x = _normed(d, dtype)
    weight, bias = (_maybe(d, full[len(full) - ndim :], dtype) for _ in range(2))
    return sample(x, array(d, full, dtype), ndim, weight, bias, 1e-5)


def _rms_norm(d: Any, dtype: DType) -> Sample:
    full, ndim, x = _normed(d, dtype)
    return sample(x, ndim, _maybe(d, full[len(full) - ndim :], dtype), 1e-5)


def _norm_backward(mean: bool) -> Inputs:
    def inputs(d: Any, dtype: DType) -> Sample:
        full, ndim, x = _normed(d, dtype)
        weight = _maybe(d, full[len(full) - ndim :], dtype)
        wide = x.astype(np.float64)
        if mean:
            _, *kept = reference.layer_norm(wide, ndim, None, None, 0.1)
        else:
            _, *kept = reference.rms_norm(wide, ndim, None, 0.1)
        own = (float32 if dtype in HALVES else dtype).numpy
        statistics = [d.layout(np.asarray(a, own)) for a in kept]
        return sample(array(d, full, dtype), x, ndim, weight, *statistics)

    return inputs


def _classes(d: Any, dtype: DType) -> list[Any]:
    rows, classes = d.choice(FEW), side(d, empty=False)
    logits = array(d, (rows, classes), dtype, -9, 9)
    kind = d.choice([int64, int32, uint8])
    target = d.rng.integers(0, classes, rows).astype(kind.numpy)
    weight = array(d, (classes,), dtype, 0.1, 2) if d.boolean() else None
    return [logits, d.layout(target), weight, d.choice([-100, 0, 1]), d.choice([0.0, 0.1, 1.0])]


def _cross_entropy(d: Any, dtype: DType) -> Sample:
    return sample(*_classes(d, dtype))


def _cross_entropy_backward(d: Any, dtype: DType) -> Sample:
    arguments = _classes(d, dtype)
    logits = arguments[0]
    lse = reference.logsumexp(logits.astype(np.float64), (1,), False).astype(dtype.numpy)
    g = array(d, (len(logits),) if d.boolean() else (), dtype)
    return sample(g, *arguments, d.layout(lse))


def _cross_entropy_in_place(d: Any, dtype: DType) -> Sample:
    logits, *rest = _classes(d, dtype)
    return sample(d.layout(np.array(logits), broadcast=False), *rest)


def _distance(want: Any, x: np.ndarray, axis: int) -> np.ndarray:
    """4 (|x - max| + log(width)): near 0 the logarithm of the sum has lost its digits."""
    if not x.size:
        return x
    return 4 * (np.abs(x - x.max(axis, keepdims=True)) + np.log(x.shape[axis]))


def _largest(want: Any, x: np.ndarray, axis: Any, keepdim: bool) -> float:
    finite = x[np.isfinite(x)]
    return 4 * (float(np.abs(finite).max(initial=0)) + float(np.log(max(x.size, 1))))


def _logits(want: Any, x: Any, target: Any, weight: Any, *_: Any) -> list[Any]:
    """C (|max| + log C) w of the losses: an unlikely loss is a difference of logits."""
    rows, classes = x.shape
    top = 1.0 if weight is None else float(weight.max(initial=0))
    size = np.abs(x).max(1, initial=0) + np.log(classes)
    return [classes * size * top, size, np.zeros(())] if rows else [0.0, 0.0, 0.0]


def _weights(want: Any, g: Any, logits: Any, target: Any, weight: Any, *_: Any) -> np.ndarray:
    """4 |g| (w[t] + mean(w)), where the gradient may cancel to 0."""
    top = 1.0 if weight is None else float(weight.max(initial=0))
    return np.broadcast_to(8 * np.abs(g) * top, len(logits))[:, None] + np.zeros(logits.shape)


def _weights_in_place(want: Any, logits: Any, target: Any, weight: Any, *_: Any) -> np.ndarray:
    """Of the gradient for g = 1, which may cancel to 0."""
    return _weights(want, np.ones(()), want[0], target, weight)


def _binary(backward: bool) -> Inputs:
    def inputs(d: Any, dtype: DType) -> Sample:
        full = shape(d)
        x, target = array(d, full, dtype, -9, 9), array(d, full, dtype, 0, 1)
        weight, positive = (
            array(d, d.broadcastable(full, within=True), dtype, 0.1, 2) if d.boolean() else None
            for _ in range(2)
        )
        first = (array(d, full, dtype),) if backward else ()
        return sample(*first, x, target, weight, positive)

    return inputs


ROWS: tuple[Entry, ...] = (
    # the contract allows 256 eps sum|x|, for any number of terms; these are few
    entry("sum", _sum, half="table", floor=_terms),
    entry("amax", _extremum, dtypes=(*WORKING, int64), half="table", same=0.0),
    entry("amin", _extremum, dtypes=(*WORKING, int64), half="table", same=0.0),
    *(
        entry(n, _place, dtypes=(*WORKING, int64), half="table", same=0.0)
        for n in ("argmax", "argmin")
    ),
    entry("prod", _prod, scale=4, floor=_factors),
    *(entry(n, _truth, dtypes=(bool_,), same="bits") for n in ("any", "all")),
    entry("count_nonzero", _count, dtypes=(bool_,), same="bits"),
    entry("cummax", _running, dtypes=(*WORKING, int64), same=0.0),
    entry("cummin", _running, dtypes=(*WORKING, int64), same=0.0),
    entry("softmax", _soft, half="table", least=1),
    entry("log_softmax", _soft, half="table", floor=_distance),
    # the sums of a row are as long as it is: width * eps * sum|g * out|
    entry("softmax_backward", _soft_backward(log=False), scale=4, half="table"),
    entry("log_softmax_backward", _soft_backward(log=True), scale=4, half="table"),
    entry("logsumexp", _logsumexp, half="table", floor=_largest),
    # x - mean cancels: an eps of the row's largest value, over its deviation
    entry("layer_norm", _layer_norm, half="table", wide=(1, 2), scale=8),
    entry("add_layer_norm", _add_layer_norm, half="table", wide=(2, 3), scale=8),
    entry("rms_norm", _rms_norm, half="table", wide=(1,), scale=4),
    entry("layer_norm_backward", _norm_backward(mean=True), half="table", scale=16),
    entry("rms_norm_backward", _norm_backward(mean=False), half="table", scale=16),
    entry("cross_entropy", _cross_entropy, scale=4, floor=_logits),
    entry("cross_entropy_backward", _cross_entropy_backward, half="table", scale=4, floor=_weights),
    entry(
        "cross_entropy_in_place",
        _cross_entropy_in_place,
        half="table",
        scale=4,
        floor=_weights_in_place,
        writes=(0,),
    ),
    entry("binary_cross_entropy_with_logits", _binary(backward=False), scale=2, least=1),
    entry(
        "binary_cross_entropy_with_logits_backward",
        _binary(backward=True),
        half="table",
        scale=2,
        least=1,
    ),
)

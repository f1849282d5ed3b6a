"""Rows of `minidl.ops.norm`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops.norm import add_layer_norm, group_norm, layer_norm, normalize, rms_norm
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike


def _inputs(factors: int, arrays: int = 1, **attributes: Any) -> Any:
    """Arrays of one shape, that of their last axes, and up to `factors` arrays of that shape."""

    def inputs(d: Any, dtype: DType) -> Sample:
        # three values or more per row: for fewer the gradient is a difference that cancels to 0
        shape = (*d.shape(max_dims=2, max_side=3), d.integer(1, 3), d.integer(3, 5))
        own = shape[-d.integer(1, 2) :]
        drawn = alike(*(d.array(s, dtype) for s in (*[shape] * arrays, *[own] * factors)))
        given, parts = drawn[:arrays], drawn[arrays:]
        options = {name: draw(d) for name, draw in attributes.items()}
        return sample(*given, own, *(part if d.boolean() else None for part in parts), **options)

    return inputs


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    axes = tuple(range(-len(shape), 0))
    out = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return out * (1 if weight is None else weight) + (0 if bias is None else bias)


def _rms_norm(x: Any, shape: Any, weight: Any, eps: float) -> Any:
    axes = tuple(range(-len(shape), 0))
    out = x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)
    return out * (1 if weight is None else weight)


def _normalize_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=2)  # a row of one is +-1, with gradient 0
    return sample(d.array(shape, dtype), d.choice([2.0, 1.0, 3.0]), d.axis(len(shape)))


def _normalize(x: Any, p: float, dim: int) -> Any:
    size = (np.abs(x) ** p).sum(dim, keepdims=True) ** (1 / p)
    return x / np.maximum(size, 1e-12)


def _eps(d: Any) -> float:
    return d.choice([1e-5, 1e-3, 0.5])


def _group_inputs(d: Any, dtype: DType) -> Sample:
    groups, size = d.integer(1, 3), d.integer(1, 2)
    shape = (d.integer(1, 2), groups * size, *d.shape(max_dims=1, min_side=3), 3)
    drawn = alike(*(d.array(s, dtype) for s in (shape, shape[1:2], shape[1:2])))
    factors = [part if d.boolean() else None for part in drawn[1:]]
    return sample(drawn[0], groups, *factors, _eps(d))


def _group_norm(x: Any, groups: int, weight: Any, bias: Any, eps: float) -> Any:
    rows = x.reshape(x.shape[0], groups, -1)
    out = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + eps)
    place = (-1,) + (1,) * (x.ndim - 2)
    out = out.reshape(x.shape) * (1 if weight is None else weight.reshape(place))
    return out + (0 if bias is None else bias.reshape(place))


def _torch_group_norm(torch: Any, x: Any, groups: int, weight: Any, bias: Any, eps: float) -> Any:
    # torch's own fails for a bias without a weight
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    return torch.nn.functional.group_norm(x, groups, weight, bias, eps)


CASES = [
    Case("group_norm", group_norm, _group_norm, _group_inputs, dtypes=(float64, float32), scale=4,
         torch=_torch_group_norm),
    # four roundings of a term that the bias may cancel
    Case("layer_norm", layer_norm, _layer_norm, _inputs(2, eps=_eps), scale=4,
         operators=("layer_norm", "layer_norm_backward")),
    Case("add_layer_norm", add_layer_norm,
         lambda x, y, *rest, **options: _layer_norm(x + y, *rest, **options),
         _inputs(2, arrays=2, eps=_eps),
         lambda torch, x, y, *rest, **options: torch.nn.functional.layer_norm(
             x + y, *rest, **options),
         scale=4),
    Case("rms_norm", rms_norm, _rms_norm, _inputs(1, eps=_eps),
         operators=("rms_norm", "rms_norm_backward")),
    # a composition: half dtypes are rounded more than once
    Case("normalize", normalize, _normalize, _normalize_inputs, dtypes=(float64, float32)),
]  # fmt: skip

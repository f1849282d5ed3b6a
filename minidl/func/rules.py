"""Rules: how an operator computes a whole batch at once.

A rule gets the operator and its arguments, in which the batch is the first axis of every Batched
`value` of the innermost level; it calls the same operator, or others, on these values. Operators
without a rule, and arguments that a rule does not take, run once per sample and are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.func.batched import Batched, NeedsLoop, set_rule
from minidl.tensor import Tensor

_ELEMENTWISE = """
clone cast add sub mul div trunc_divide floor_divide remainder fmod neg abs sign reciprocal lerp
addcmul addcdiv eq ne lt le gt ge isnan isinf isfinite signbit isclose logical_and logical_or
logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift
bitwise_right_shift where replace_special clamp clamp_scalar maximum minimum fmax fmin pow
pow_scalar sqrt rsqrt exp exp2 expm1 log log2 log10 log1p logaddexp sin cos tan asin acos atan
atan2 hypot sinh cosh tanh tanh_backward asinh acosh atanh erf erfc erfinv floor ceil trunc frac
round relu relu_backward hardtanh leaky_relu leaky_relu_backward elu elu_backward sigmoid
sigmoid_backward logsigmoid softplus silu silu_backward gelu gelu_backward lgamma digamma
polygamma zeta igamma igammac xlogy xlog1py logit entr ndtr ndtri
"""
# operators that reduce or run along `dim`: an axis, several, or None for all
_ALONG = """
sum mean var std logsumexp norm amax amin max min any all count_nonzero median prod cumsum cumprod
softmax softmax_backward log_softmax log_softmax_backward sort argsort topk kthvalue argmax argmin
"""
_ONE_AXIS_ONLY = ("prod", "argmax", "argmin", "median")  # None is all axes as one

RULES: dict[str, Callable[..., Any]] = {}


def _rule(*names: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        for name in names:
            RULES[name] = function
        return function

    return add


def dispatch(function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Compute the operator of `function` for the innermost batch among its arguments."""
    op = function.op
    given = [*args, *kwargs.values()]
    tensors = [x for a in given for x in (a if isinstance(a, list | tuple) else (a,))]
    level = max(x.level for x in tensors if type(x) is Batched)
    size = next(x.value.shape[0] for x in tensors if type(x) is Batched and x.level == level)
    call = _Call(function, args, kwargs, level, size)
    rule = RULES.get(op.name)
    if rule is not None:
        try:
            return call.wrap(rule(call, *args, **kwargs))
        except NeedsLoop:
            pass
    if op.composite is not None:
        try:
            return op.composite(*args, **kwargs)
        except NeedsLoop:
            pass
    return call.looped()


set_rule(dispatch)


class _Call:
    """One call of an operator, and what rules need to know of its batch."""

    def __init__(self, function: Any, args: tuple, kwargs: dict, level: int, size: int) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.level, self.size = level, size

    def is_batched(self, x: Any) -> bool:
        return type(x) is Batched and x.level == self.level

    def value(self, x: Any) -> Any:
        """The argument with the batch as its first axis, or as it is."""
        return x.value if self.is_batched(x) else x

    def filled(self, x: Any) -> Any:
        """The argument with the batch as its first axis in any case."""
        if self.is_batched(x):
            return x.value
        return ops.broadcast_to(ops.unsqueeze(x, 0), (self.size, *x.shape))

    def wrap(self, out: Any) -> Any:
        if isinstance(out, tuple | list):
            return type(out)([Batched(x, self.level) for x in out])
        return Batched(out, self.level)

    def looped(self) -> Any:
        """One call per sample, stacked."""
        found = []
        for i in range(self.size):
            args = [self._sample(a, i) for a in self.args]
            kwargs = {name: self._sample(a, i) for name, a in self.kwargs.items()}
            found.append(self.function(*args, **kwargs))
        if not found:
            raise NeedsLoop("an empty batch")
        if isinstance(found[0], tuple | list):
            return self.wrap(tuple(_stacked(parts) for parts in zip(*found, strict=True)))
        return self.wrap(_stacked(found))

    def _sample(self, x: Any, i: int) -> Any:
        if isinstance(x, list | tuple):
            return type(x)([self._sample(item, i) for item in x])
        return x.value[i] if self.is_batched(x) else x


def _stacked(parts: Sequence[Any]) -> Any:
    if len({tuple(part.shape) for part in parts}) > 1:
        raise NeedsLoop("samples of several shapes")
    return ops.stack(list(parts))


def is_tensor(x: Any) -> bool:
    """Whether an argument is a tensor, of this level or not."""
    return type(x) is Tensor or type(x) is Batched


# ---------------------------------------------------------------- elementwise


def _aligned(call: _Call, *tensors: Any) -> list[Any]:
    """Values whose batch axes stand in front of as many axes as the widest sample has."""
    dtypes = {x.dtype for x in tensors if is_tensor(x)}
    if len(dtypes) > 1:  # a sample without axes is weak, its batch is not
        raise NeedsLoop("several dtypes")
    ndim = max(len(x.shape) for x in tensors if is_tensor(x))
    found = []
    for x in tensors:
        if call.is_batched(x) and len(x.shape) < ndim:
            shape = (call.size, *(1,) * (ndim - len(x.shape)), *x.shape)
            found.append(ops.reshape(x.value, shape))
        else:
            found.append(call.value(x))
    return found


def _elementwise(call: _Call, *args: Any, **kwargs: Any) -> Any:
    op = call.function.op
    kinds = [op.kinds[p.name] for p in op.parameters]
    places = [i for i, a in enumerate(args) if kinds[i] != "attribute" and is_tensor(a)]
    conditions = [i for i in places if kinds[i] == "index"]
    values = list(args)
    if conditions:  # of `where`: its dtype is its own
        others = [i for i in places if i not in conditions]
        dtypes = {args[i].dtype for i in others}
        if len(dtypes) > 1:
            raise NeedsLoop("several dtypes")
        ndim = max(len(args[i].shape) for i in places)
        for i in places:
            if call.is_batched(args[i]):
                shape = args[i].shape
                wide = (call.size, *(1,) * (ndim - len(shape)), *shape)
                values[i] = ops.reshape(args[i].value, wide)
    else:
        for i, value in zip(places, _aligned(call, *(args[i] for i in places)), strict=True):
            values[i] = value
    return call.function(*values, **kwargs)


RULES.update(dict.fromkeys(_ELEMENTWISE.split(), _elementwise))

# ---------------------------------------------------------------- along axes


def _shifted(dim: Any, ndim: int) -> Any:
    """An axis of a sample, or several, as axes of the batch."""
    if isinstance(dim, list | tuple):
        return tuple(_shifted(d, ndim) for d in dim)
    if not -ndim <= dim < ndim:
        raise NeedsLoop("an axis that a sample does not have")
    return dim + 1 if dim >= 0 else dim


def _named(call: _Call, args: Sequence[Any]) -> dict[str, Any]:
    """The arguments by name, defaults included."""
    bound = call.function.op.signature.bind(*args, **call.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _call_by_name(call: _Call, named: dict[str, Any]) -> Any:
    parameters = call.function.op.parameters
    args = [named[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    kwargs = {p.name: named[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return call.function(*args, **kwargs)


def _along(call: _Call, *args: Any, **kwargs: Any) -> Any:
    op = call.function.op
    named = _named(call, args)
    tensors = [name for name in op.inputs if is_tensor(named[name])]
    ndim = len(named[tensors[0]].shape)
    if not ndim:
        raise NeedsLoop("a sample without axes")
    dim = named["dim"]
    for name in tensors:
        named[name] = call.filled(named[name])
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        if op.name in _ONE_AXIS_ONLY or op.name in ("max", "min"):
            if named.get("keepdim"):
                raise NeedsLoop("all axes kept")
            named[tensors[0]] = ops.reshape(named[tensors[0]], (call.size, -1))
            named["dim"] = 1
        else:
            if isinstance(dim, tuple | list) and op.name in ("any", "all"):
                raise NeedsLoop("no axes")
            named["dim"] = tuple(range(1, ndim + 1))
    else:
        named["dim"] = _shifted(dim, ndim)
    return _call_by_name(call, named)


RULES.update(dict.fromkeys(_ALONG.split(), _along))


@_rule("median_of_all")
def _median_of_all(call: _Call, input: Any) -> Any:
    flat = ops.reshape(input.value, (call.size, -1))
    return ops.median(flat, 1)[0]


# ---------------------------------------------------------------- views and movement


@_rule("view")
def _view(call: _Call, input: Any, shape: Any) -> Any:
    if -1 in shape and 0 in input.value.shape:
        raise NeedsLoop("a side that cannot be told")
    return ops.reshape(input.value, (call.size, *shape))


@_rule("expand")
def _expand(call: _Call, input: Any, shape: Any) -> Any:
    (value,) = _aligned(call, input)
    missing = len(shape) - len(input.shape)
    wide = ops.reshape(value, (call.size, *(1,) * missing, *input.shape))
    return ops.broadcast_to(wide, (call.size, *shape))


@_rule("permute")
def _permute(call: _Call, input: Any, dims: Any) -> Any:
    return ops.permute(input.value, (0, *(_shifted(d, len(input.shape)) for d in dims)))


@_rule("diagonal")
def _diagonal(call: _Call, input: Any, offset: int, dim1: int, dim2: int) -> Any:
    ndim = len(input.shape)
    return ops.diagonal(input.value, offset, _shifted(dim1, ndim), _shifted(dim2, ndim))


@_rule("unfold")
def _unfold(call: _Call, input: Any, dim: int, size: int, step: int) -> Any:
    ndim = len(input.shape)
    if not ndim:
        raise NeedsLoop("a sample without axes")
    return call.function(input.value, _shifted(dim, ndim), size, step)


@_rule("getitem")
def _getitem(call: _Call, input: Any, index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, np.ndarray | list) or is_tensor(p) for p in parts):
        raise NeedsLoop("an index of places")
    return input.value[(slice(None), *parts)]


@_rule("flip")
def _flip(call: _Call, input: Any, dims: Any) -> Any:
    return call.function(input.value, _shifted(tuple(dims), len(input.shape)))


@_rule("triangle")
def _triangle(call: _Call, input: Any, diagonal: int, upper: bool) -> Any:
    if len(input.shape) < 2:
        raise NeedsLoop("a sample without a plane")
    return call.function(input.value, diagonal, upper)


@_rule("pad")
def _pad(call: _Call, input: Any, widths: Any, value: Any) -> Any:
    return call.function(input.value, ((0, 0), *widths), value)


@_rule("cat", "stack")
def _joined(call: _Call, tensors: Sequence[Any], dim: int = 0) -> Any:
    extra = call.function.op.name == "stack"
    if len({x.dtype for x in tensors}) > 1 or any(tuple(x.shape) == (0,) for x in tensors):
        raise NeedsLoop("several dtypes, or parts that are left out")
    ndim = len(tensors[0].shape) + extra
    if not ndim:
        raise NeedsLoop("samples without axes")
    return call.function([call.filled(x) for x in tensors], _shifted(dim, ndim))


# ---------------------------------------------------------------- look-ups


@_rule("gather")
def _gather(call: _Call, input: Any, dim: int, index: Any) -> Any:
    ndim = len(input.shape)
    if not ndim or len(index.shape) != ndim:
        raise NeedsLoop("samples without axes")
    return call.function(call.filled(input), _shifted(dim, ndim), call.filled(index))


@_rule("take_along")
def _take_along(call: _Call, input: Any, indices: Any, dim: int) -> Any:
    if not len(input.shape):
        raise NeedsLoop("samples without axes")
    dim = _shifted(dim, len(input.shape))
    return call.function(call.filled(input), call.filled(indices), dim)


@_rule("index_select")
def _index_select(call: _Call, input: Any, dim: int, index: Any) -> Any:
    if call.is_batched(index) or not len(input.shape):
        raise NeedsLoop("an index of each sample's own")
    return call.function(input.value, _shifted(dim, len(input.shape)), index)


@_rule("embedding")
def _embedding(call: _Call, input: Any, weight: Any, padding_idx: Any) -> Any:
    if call.is_batched(weight):
        raise NeedsLoop("a table of each sample's own")
    return call.function(input.value, weight, padding_idx)


@_rule("scatter_add")
def _scatter_add(call: _Call, input: Any, dim: int, index: Any, src: Any) -> Any:
    ndim = len(input.shape)
    if not ndim or len(index.shape) != ndim or len(src.shape) != ndim:
        raise NeedsLoop("samples without axes")
    filled = [call.filled(x) for x in (input, index, src)]
    return call.function(filled[0], _shifted(dim, ndim), *filled[1:])


# ---------------------------------------------------------------- products


@_rule("matmul")
def _matmul(call: _Call, input: Any, other: Any) -> Any:
    a, b = len(input.shape), len(other.shape)
    if input.dtype is not other.dtype:
        raise NeedsLoop("several dtypes")
    if not a or not b:
        raise NeedsLoop("no axes")
    x, y = call.value(input), call.value(other)
    if not call.is_batched(other) and b <= 2 and a > 1:
        return call.function(x, y)  # one matrix for all: one product
    if a == 1:
        x = ops.unsqueeze(x, -2)
    if b == 1:
        y = ops.unsqueeze(y, -1)
    ndim = max(a, b, 2)
    x, y = (
        ops.reshape(v, (call.size, *(1,) * (ndim + 1 - v.ndim), *v.shape[1:]))
        if call.is_batched(of)
        else v
        for of, v in ((input, x), (other, y))
    )
    out = call.function(x, y)
    if a == 1:
        out = ops.squeeze(out, -2)
    return ops.squeeze(out, -1) if b == 1 else out


@_rule("linear")
def _linear(call: _Call, input: Any, weight: Any, bias: Any = None) -> Any:
    if call.is_batched(weight) or call.is_batched(bias):
        if not len(input.shape) or len({input.dtype, weight.dtype}) > 1:
            raise NeedsLoop("several dtypes")
        out = ops.matmul(input, ops.transpose(weight, 0, 1)) if len(weight.shape) == 2 else None
        if out is None:
            raise NeedsLoop("a weight that is no matrix")
        out = out if bias is None else out + bias
        return out.value  # type: ignore[union-attr]
    return call.function(input.value, weight, bias)


@_rule("linear_activation", "linear_gated")
def _linear_activation(call: _Call, input: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    if call.is_batched(weight) or call.is_batched(bias):
        raise NeedsLoop("weights of each sample's own")
    return call.function(input.value, weight, bias, *rest)


@_rule("attention")
def _attention(call: _Call, query: Any, key: Any, value: Any, attn_mask: Any, *rest: Any) -> Any:
    ranks = {len(x.shape) for x in (query, key, value)}
    if len(ranks) > 1 or min(ranks) < 2:
        raise NeedsLoop("shapes of several ranks")
    if call.is_batched(attn_mask):
        (mask,) = _aligned_to(call, max(ranks), attn_mask)
    else:
        mask = attn_mask
    return call.function(*(call.filled(x) for x in (query, key, value)), mask, *rest)


def _aligned_to(call: _Call, ndim: int, *tensors: Any) -> list[Any]:
    return [
        ops.reshape(x.value, (call.size, *(1,) * (ndim - len(x.shape)), *x.shape)) for x in tensors
    ]


# ---------------------------------------------------------------- normalisation and losses


@_rule("layer_norm", "rms_norm")
def _norm(call: _Call, input: Any, *rest: Any) -> Any:
    if any(call.is_batched(x) for x in rest):
        raise NeedsLoop("weights of each sample's own")
    return call.function(input.value, *rest)


@_rule("add_layer_norm")
def _add_norm(call: _Call, input: Any, other: Any, *rest: Any) -> Any:
    if any(call.is_batched(x) for x in rest):
        raise NeedsLoop("weights of each sample's own")
    return call.function(call.filled(input), call.filled(other), *rest)


@_rule("mse_loss", "l1_loss", "huber_loss", "kl_div")
def _pointwise_loss(call: _Call, input: Any, target: Any, reduction: str, *rest: Any) -> Any:
    losses = call.function(*_aligned(call, input, target), "none", *rest)
    return _reduced(losses, reduction)


@_rule("binary_cross_entropy", "binary_cross_entropy_with_logits")
def _binary_loss(call: _Call, input: Any, target: Any, *rest: Any) -> Any:
    *weights, reduction = rest
    if any(w is not None for w in weights) or input.shape != target.shape:
        raise NeedsLoop("weights")
    losses = call.function(call.filled(input), call.filled(target), *weights, "none")
    return _reduced(losses, reduction)


@_rule("cross_entropy")
def _cross_entropy(
    call: _Call, input: Any, target: Any, weight: Any, ignore: int, smoothing: float, reduction: str
) -> Any:
    plain = weight is None and len(input.shape) == 2 and len(target.shape) == 1
    whole = call.filled(target)
    if not plain or not input.shape[0] or (reduction == "mean" and bool((whole == ignore).any())):
        raise NeedsLoop("means over parts of a sample")
    logits = ops.reshape(call.filled(input), (-1, input.shape[1]))
    losses = call.function(logits, ops.reshape(whole, (-1,)), weight, ignore, smoothing, "none")
    return _reduced(ops.reshape(losses, (call.size, -1)), reduction)


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none" or losses.ndim == 1:
        return losses
    axes = tuple(range(1, losses.ndim))
    return ops.mean(losses, axes) if reduction == "mean" else ops.sum(losses, axes)

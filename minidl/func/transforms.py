"""Derivatives of functions: grad, vjp, jvp, Jacobians and Hessians. They nest, also with `vmap`.

A derivative is taken by the recorded graph, so it is differentiable itself as far as something
outside asks for that. There is no forward mode: `jvp` differentiates the vector-Jacobian product,
which is linear in its vector, once more, and `jacfwd` gives what `jacrev` gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import minidl.ops as ops
from minidl import autograd
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.func.batched import NeedsLoop, level_set, levels, lifted, raw, wrapped
from minidl.func.tree import flatten, mapped
from minidl.tensor import Tensor

Argnums = int | tuple[int, ...]


class _Inputs:
    """Fresh copies of the tensors by which is differentiated, connected to what was before."""

    def __init__(self, tree: Any, name: str) -> None:
        leaves, self.build = flatten(tree)
        for x in leaves:
            if not isinstance(x, Tensor):
                raise DTypeError(
                    "only Tensors have derivatives", operator=name, got=type(x).__name__
                )
            if not x.dtype.is_floating_point:
                raise DTypeError(
                    "only floating point tensors have derivatives", operator=name, got=repr(x.dtype)
                )
        self.given = [lifted(x) for x in leaves]
        self.recording = autograd.is_grad_enabled()
        self.raw = [_fresh(raw(x)) for x in self.given]
        self.tree = self.build(
            [wrapped(r, level_set(x)) for r, x in zip(self.raw, self.given, strict=True)]
        )

    def gradients(self, output: Tensor, weights: Tensor | None, retain: bool = True) -> list[Any]:
        """Derivatives of a raw output, weighted; zeros where it does not depend on an input."""
        if not output.requires_grad:
            return [ops.zeros_like(x) for x in self.raw]
        found = autograd.grad(
            output, self.raw, weights, create_graph=True, retain_graph=retain, allow_unused=True
        )
        return [ops.zeros_like(x) if g is None else g for g, x in zip(found, self.raw, strict=True)]

    def finished(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors with their history, if it leads further than to the fresh copies."""
        if self.recording and _leads_out(tensors, self.raw):
            return list(tensors)
        return [t.detach() for t in tensors]

    def like(self, tensors: Sequence[Tensor]) -> Any:
        """A tree of the inputs' form from raw tensors."""
        pairs = zip(tensors, self.given, strict=True)
        return self.build([wrapped(t, level_set(x)) for t, x in pairs])


def _fresh(x: Tensor) -> Tensor:
    if x.requires_grad:
        return x.view(x.shape)  # type: ignore[attr-defined]
    return x.detach().requires_grad_()


def _leads_out(tensors: Sequence[Tensor], own: Sequence[Tensor]) -> bool:
    """Whether a leaf that is not among `own` is behind the tensors."""
    mine = {id(x) for x in own}
    stack: list[Any] = [t.node if t.node is not None else t for t in tensors if t.requires_grad]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        item = item[0] if type(item) is tuple else item
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        if type(item) is Tensor:
            if id(item) not in mine:
                return True
            continue
        if id(item) in mine:
            continue
        stack.extend(item.edges)
    return False


def _raw_output(out: Any, name: str) -> Tensor:
    if not isinstance(out, Tensor):
        raise DTypeError("the function must return a Tensor", operator=name, got=type(out).__name__)
    return raw(lifted(out))


def _split(args: tuple[Any, ...], argnums: Argnums, name: str) -> tuple[Any, Callable[..., Any]]:
    """The arguments by which is differentiated, and the others with new values for them."""
    places = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for place in places:
        if not isinstance(place, int) or not -len(args) <= place < len(args):
            raise ArgumentError(
                f"argnums must lie in [{-len(args)}, {len(args)})", operator=name, got=str(argnums)
            )
    places = tuple(place % len(args) for place in places)
    if not places or len(set(places)) != len(places):
        raise ArgumentError(
            "argnums must name an argument, and none twice", operator=name, got=str(argnums)
        )
    chosen = tuple(args[place] for place in places)

    def joined(values: Any) -> list[Any]:
        values = (values,) if isinstance(argnums, int) else values
        new = list(args)
        for place, value in zip(places, values, strict=True):
            new[place] = value
        return new

    return chosen[0] if isinstance(argnums, int) else chosen, joined


def grad_and_value(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of `func` and its value.

    func: returns one number, a Tensor of shape (), or with `has_aux` a pair of it and anything.
    argnums: by which arguments, each a tensor or a tree of tensors. Returns (gradient, value), or
    (gradient, (value, aux)).
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        chosen, joined = _split(args, argnums, "grad")
        inputs = _Inputs(chosen, "grad")
        with autograd.enable_grad():
            out = func(*joined(inputs.tree), **kwargs)
            value, aux = _with_aux(out, has_aux, "grad")
            if not isinstance(value, Tensor) or len(value.shape):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ShapeError(
                    "the function must return one number, of shape ()",
                    operator="grad", got=str(got),
                )  # fmt: skip
            total = _raw_output(value, "grad")
            found = inputs.gradients(total, ops.ones_like(total.detach()), retain=True)
        gradient = inputs.like(inputs.finished(found))
        value = _kept(value, inputs)
        return gradient, (value, mapped(lambda x: _kept(x, inputs), aux)) if has_aux else value

    return wrapper


def _with_aux(out: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, tuple) or len(out) != 2:
        raise ArgumentError(
            "with has_aux the function must return a pair (output, aux)",
            operator=name,
            got=type(out).__name__,
        )
    return out


def _kept(x: Any, inputs: _Inputs) -> Any:
    """A result of the function as the caller sees it."""
    if not isinstance(x, Tensor):
        return x
    (tensor,) = inputs.finished([raw(x)])
    return wrapped(tensor, level_set(x))


def grad(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of `func`, and aux with `has_aux`.

    The arguments are those of `grad_and_value`.
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapper


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`func(*primals)` and the function of vector-Jacobian products there.

    Returns (output, vjp_fn), and aux with `has_aux`; `vjp_fn(cotangents)`, a tree like the output,
    returns a tuple like the primals.
    """
    inputs = _Inputs(primals, "vjp")
    with autograd.enable_grad():
        out, aux = _with_aux(func(*inputs.tree), has_aux, "vjp")
    leaves, build = flatten(out)
    outputs = [_raw_output(x, "vjp") for x in leaves]
    depth = len(levels.sizes)

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        given = flatten(cotangents)[0]
        shapes = [tuple(x.shape) for x in leaves]
        if [tuple(x.shape) for x in given] != shapes:
            raise ShapeError(
                f"cotangents must have the shapes of the output, {shapes}",
                operator="vjp",
                got=str([tuple(x.shape) for x in given]),
            )
        if any(level >= depth for x in given for level in level_set(x)):
            raise NeedsLoop("the outputs have no axis for the batch of the cotangents")
        with autograd.enable_grad():
            total = _weighted(outputs, [raw(lifted(x)) for x in given])
            found = [ops.zeros_like(x) for x in inputs.raw]
            if total is not None:
                found = inputs.gradients(total, None)
        found = inputs.like(inputs.finished(found))
        return found

    shown = build([_kept(x, inputs) for x in leaves])
    if has_aux:
        return shown, vjp_fn, mapped(lambda x: _kept(x, inputs), aux)
    return shown, vjp_fn


def _weighted(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor | None:
    parts = [ops.sum(out * w) for out, w in zip(outputs, weights, strict=True) if out.requires_grad]
    total = None
    for part in parts:
        total = part if total is None else total + part
    return total


def jvp(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> Any:
    """`func(*primals)` and its derivative along `tangents`, a tree like the primals.

    Returns (output, tangent of the output), and aux with `has_aux`. By the derivative of the
    vector-Jacobian product (a "double backward"), at the cost of two of them.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise ArgumentError("primals and tangents must be tuples", operator="jvp")
    inputs = _Inputs(primals, "jvp")
    directions = flatten(tangents)[0]
    if [tuple(x.shape) for x in directions] != [tuple(x.shape) for x in flatten(primals)[0]]:
        raise ShapeError("tangents must have the shapes of primals", operator="jvp")
    with autograd.enable_grad():
        out, aux = _with_aux(func(*inputs.tree), has_aux, "jvp")
        leaves, build = flatten(out)
        outputs = [_raw_output(x, "jvp") for x in leaves]
        found = _pushed(inputs, outputs, [raw(lifted(x)) for x in directions])
    shown = build([_kept(x, inputs) for x in leaves])
    levels_of = [level_set(lifted(x)) for x in leaves]
    pairs = zip(inputs.finished(found), levels_of, strict=True)
    tangent = build([wrapped(t, of) for t, of in pairs])
    if has_aux:
        return shown, tangent, mapped(lambda x: _kept(x, inputs), aux)
    return shown, tangent


def _pushed(
    inputs: _Inputs, outputs: Sequence[Tensor], directions: Sequence[Tensor]
) -> list[Tensor]:
    """The derivatives of raw outputs along raw directions of the inputs."""
    vectors = [ops.zeros_like(out).requires_grad_() for out in outputs]
    total = _weighted(outputs, vectors)
    if total is None:
        return [ops.zeros_like(out) for out in outputs]
    along = [
        ops.sum(g * d)
        for g, d in zip(inputs.gradients(total, None), directions, strict=True)
        if g.requires_grad
    ]
    if not along:
        return [ops.zeros_like(out) for out in outputs]
    whole = functools.reduce(lambda a, b: a + b, along)
    found = autograd.grad(whole, vectors, create_graph=True, allow_unused=True)
    return [ops.zeros_like(v) if g is None else g for g, v in zip(found, vectors, strict=True)]


def jacrev(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `func`: one gradient for every number of the output.

    Of an output of shape S by an input of shape T it is (*S, *T); for trees of outputs and inputs a
    tree of the former of trees of the latter. `chunk_size` is accepted and changes nothing.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        chosen, joined = _split(args, argnums, "jacrev")
        inputs = _Inputs(chosen, "jacrev")
        with autograd.enable_grad():
            out, aux = _with_aux(func(*joined(inputs.tree), **kwargs), has_aux, "jacrev")
            leaves, build = flatten(out)
            blocks = [_rows(inputs, x) for x in leaves]
        jacobian = build([inputs.build(block) for block in blocks])
        return (jacobian, mapped(lambda x: _kept(x, inputs), aux)) if has_aux else jacobian

    return wrapper


def _rows(inputs: _Inputs, out: Any) -> list[Any]:
    """The Jacobians of one output by all inputs."""
    shape = tuple(out.shape)
    every = lifted(out)
    of, batch = level_set(every), len(level_set(every))
    whole = _raw_output(out, "jacrev")
    lead = whole.shape[:batch]
    flat = ops.reshape(whole, (*lead, -1))
    rows = []
    for i in range(flat.shape[-1]):
        part = flat[(..., i)]
        rows.append(inputs.gradients(part, ops.ones_like(part.detach())))
    found = []
    for k, x in enumerate(inputs.raw):
        own = x.shape[batch:]
        if rows:
            stacked = ops.stack([row[k] for row in rows], batch)
        else:
            stacked = ops.zeros((*lead, 0, *own), dtype=x.dtype, device=x.device)
        found.append(ops.reshape(stacked, (*lead, *shape, *own)))
    return [wrapped(t, of) for t in inputs.finished(found)]


def jacfwd(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """The Jacobian, as `jacrev` computes it: there is no forward mode here."""
    return jacrev(func, argnums, has_aux=has_aux)


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that returns the second derivatives of `func`: the Jacobian of its Jacobian."""
    return jacfwd(jacrev(func, argnums), argnums)

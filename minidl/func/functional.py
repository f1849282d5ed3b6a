"""`minidl.autograd.functional`: derivatives of functions of tensors, in PyTorch's older names.

Inputs are one tensor or a tuple, and so are results. Nothing is differentiable again unless
`create_graph`. `vectorize` and `outer_jacobian_strategy` are accepted and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl.ops as ops
from minidl import autograd
from minidl.errors import ArgumentError, DTypeError, GradientError, ShapeError
from minidl.tensor import Tensor

_STRATEGIES = ("reverse-mode", "forward-mode")


class _Problem:
    """Inputs and outputs of a function as tuples, and what to give back."""

    def __init__(
        self, name: str, func: Callable[..., Any], inputs: Any, create_graph: bool
    ) -> None:
        self.name, self.create_graph = name, create_graph
        self.single_input = isinstance(inputs, Tensor)
        given = (inputs,) if self.single_input else tuple(inputs)
        for x in given:
            if not isinstance(x, Tensor):
                raise DTypeError(
                    "inputs must be a Tensor or a tuple of Tensors",
                    operator=name,
                    got=type(x).__name__,
                )
        self.inputs = tuple(self._fresh(x) for x in given)
        with autograd.enable_grad():
            out = func(*self.inputs)
        self.single_output = isinstance(out, Tensor)
        several = isinstance(out, tuple | list)
        self.outputs: tuple[Tensor, ...] = tuple(out) if several else (out,)
        for y in self.outputs:
            if not isinstance(y, Tensor):
                raise DTypeError(
                    "the function must return a Tensor or a tuple of Tensors",
                    operator=name,
                    got=type(y).__name__,
                )

    def _fresh(self, x: Tensor) -> Tensor:
        if self.create_graph and x.requires_grad:
            return x.clone()  # type: ignore[attr-defined]
        return x.detach().requires_grad_()

    def gradients(
        self, outputs: Any, inputs: Any, weights: Any, strict: bool, graph: bool
    ) -> list[Tensor]:
        """Derivatives, zeros where there is no dependence, which `strict` refuses."""
        outputs, weights = list(outputs), list(weights)
        tracked = [i for i, y in enumerate(outputs) if y.requires_grad]
        if strict and len(tracked) < len(outputs):
            raise GradientError("an output does not depend on the inputs", operator=self.name)
        found: Any = [None] * len(inputs)
        if tracked:
            found = autograd.grad(
                [outputs[i] for i in tracked],
                inputs,
                [weights[i] for i in tracked],
                retain_graph=True,
                create_graph=graph,
                allow_unused=True,
            )
        if strict and any(g is None for g in found):
            raise GradientError("an output does not depend on an input", operator=self.name)
        return [ops.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]

    def vectors(self, v: Any, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The given vectors, of the shapes of `like`; 1 for one output of one number."""
        if v is None:
            if len(like) != 1 or like[0].numel() != 1:
                raise ArgumentError(
                    "v may be left out only for one output of one number", operator=self.name
                )
            return (ops.ones_like(like[0].detach()),)
        given = (v,) if isinstance(v, Tensor) else tuple(v)
        shapes, wanted = ([tuple(x.shape) for x in part] for part in (given, like))
        if shapes != wanted:
            raise ShapeError(
                f"v must have the shapes {wanted}", operator=self.name, got=str(shapes)
            )
        return given

    def result(self, tensors: Any, single: bool) -> Any:
        """One tensor or a tuple, without history unless it was asked for."""
        done = tuple(t if self.create_graph else t.detach() for t in tensors)
        return done[0] if single else done

    def output(self) -> Any:
        """What the function returned."""
        return self.result(self.outputs, self.single_output)


def vjp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The output, and the product of the vectors `v` (like the output) with the Jacobian."""
    p = _Problem("vjp", func, inputs, create_graph)
    v = p.vectors(v, p.outputs)
    found = p.gradients(p.outputs, p.inputs, v, strict, create_graph)
    return p.output(), p.result(found, p.single_input)


def jvp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The output, and the product of the Jacobian with the vectors `v` (like the inputs).

    By differentiating the vector-Jacobian product by its vector.
    """
    p = _Problem("jvp", func, inputs, create_graph)
    v = p.vectors(v, p.inputs)
    with autograd.enable_grad():
        dummies = tuple(ops.zeros_like(y).requires_grad_() for y in p.outputs)
        back = p.gradients(p.outputs, p.inputs, dummies, strict, True)
        found = p.gradients(back, dummies, v, strict, create_graph)
    return p.output(), p.result(found, p.single_output)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: (*output, *input) for one of each, else tuples of outputs of inputs."""
    if strategy not in _STRATEGIES:
        raise ArgumentError(f"strategy is one of {_STRATEGIES}", operator="jacobian", got=strategy)
    p = _Problem("jacobian", func, inputs, create_graph)
    blocks = [_rows(p, y, strict) for y in p.outputs]
    done = tuple(p.result(block, p.single_input) for block in blocks)
    return done[0] if p.single_output else done


def _rows(p: _Problem, output: Tensor, strict: bool) -> list[Tensor]:
    with autograd.enable_grad():
        flat = ops.reshape(output, (-1,))
        rows = []
        for i in range(flat.shape[0]):
            one = ops.ones((), dtype=flat.dtype, device=flat.device)
            rows.append(p.gradients((flat[i],), p.inputs, (one,), strict, p.create_graph))
        found = []
        for k, x in enumerate(p.inputs):
            shape = (*output.shape, *x.shape)
            parts = [row[k] for row in rows]
            found.append(
                ops.reshape(ops.stack(parts), shape) if parts else ops.zeros(shape, device=x.device)
            )
    return found


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a function of one number: (*input, *input), or tuples of tuples."""
    single = isinstance(inputs, Tensor)

    def first(*args: Tensor) -> Any:
        def checked(*xs: Tensor) -> Tensor:
            return _number(func(*xs), "hessian")

        found = jacobian(checked, args, create_graph=True, strict=strict)
        return tuple(ops.reshape(j, x.shape) for j, x in zip(found, args, strict=True))

    given = (inputs,) if single else tuple(inputs)
    found = jacobian(first, given, create_graph, strict, vectorize, outer_jacobian_strategy)
    return found[0][0] if single else found


def _number(out: Any, name: str) -> Tensor:
    if not isinstance(out, Tensor) or out.numel() != 1:
        raise ShapeError("the function must return one Tensor of one element", operator=name)
    return out


def vhp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The output, and the product of `v` (like the inputs) with the Hessian."""
    p = _Problem("vhp", func, inputs, create_graph)
    _number(p.outputs[0], "vhp")
    v = p.vectors(v, p.inputs)
    with autograd.enable_grad():
        one = ops.ones_like(p.outputs[0].detach())
        first = p.gradients(p.outputs, p.inputs, (one,), strict, True)
        found = p.gradients(first, p.inputs, v, strict, create_graph)
    return p.output(), p.result(found, p.single_input)


def hvp(
    func: Callable[..., Any],
    inputs: Any,
    v: Any = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The output, and the product of the Hessian with `v`: that of `vhp`, since it is symmetric."""
    p = _Problem("hvp", func, inputs, create_graph)
    _number(p.outputs[0], "hvp")
    v = p.vectors(v, p.inputs)
    with autograd.enable_grad():
        one = ops.ones_like(p.outputs[0].detach())
        first = p.gradients(p.outputs, p.inputs, (one,), strict, True)
        dummies = tuple(ops.zeros_like(x).requires_grad_() for x in p.inputs)
        back = p.gradients(first, p.inputs, dummies, strict, True)
        found = p.gradients(back, dummies, v, strict, create_graph)
    return p.output(), p.result(found, p.single_input)

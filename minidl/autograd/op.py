"""`@op`: a forward on raw arrays becomes an operator on Tensors that records its gradient.

The forward's signature says what its arguments are (`Array`, `Array | None`, `Sequence[Array]`,
`Index`, everything else an attribute); the gradient's parameter names say what a node keeps. From
the two a function specialised for that operator is written and compiled on its first call:
straight-line Python without `*args`, `isinstance` or look-ups (see `ops/README.md`).
"""

from __future__ import annotations

import inspect
import linecache
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd.arguments import (
    Diverted,
    explain,
    half_entries,
    operand,
    placed,
    prepare,
    rounded,
    sequence,
)
from minidl.autograd.inplace import in_place, inplace_form, writable, write
from minidl.autograd.node import Node, check_versions, constant, edge_of, lent, rebuilt, unfreed
from minidl.autograd.specialise import backward_source_of, source_of
from minidl.backends import ARRAY_TYPES, local, on_device
from minidl.backends.table import entered
from minidl.dtypes import FLOATS
from minidl.errors import GradientError
from minidl.tensor import Storage, Tensor, View

__all__ = [
    "Array",
    "Index",
    "Operator",
    "constant",
    "explain",
    "in_place",
    "op",
    "register_gradients",
    "writable",
    "write",
]

Array = Any
Index = Any

KINDS = {
    "Array": "array",
    "Array | None": "optional",
    "Sequence[Array]": "sequence",
    "Index": "index",
    "Index | None": "index",
}


class Operator:
    """What `@op` knows of an operator; `function` is what users call."""

    fresh = True  # gradients are made by operators: what they return is nobody else's
    frees = False  # whether a node keeps arrays, which go after its backward
    materialize = True  # a missing gradient of one of several outputs arrives as zeros

    def __init__(self, forward: Callable, name: str, options: dict[str, Any]) -> None:
        self.name = name
        self.forward = forward
        outputs = options["outputs"]
        self.outputs = (
            ("out",)
            if outputs == 1
            else tuple(f"out{i}" for i in range(outputs))
            if isinstance(outputs, int)
            else tuple(outputs)
        )
        self.residuals: tuple[str, ...] = tuple(options["residuals"])
        self.view: bool = options["view"]
        self.nondiff: bool = options["nondiff"]
        self.needed_by: dict[str, str] = options["needed_by"] or {}
        self.promote: str | None = None if self.view else options["promote"]
        self.gradient: Callable | None = None
        self.composite: Callable | None = None
        signature = inspect.signature(forward)
        parameters = list(signature.parameters.values())[1:]
        self.signature = signature.replace(parameters=parameters)
        self.parameters = parameters
        if not all(p.annotation is p.empty or isinstance(p.annotation, str) for p in parameters):
            raise TypeError(f"[{name}] operators need `from __future__ import annotations`")
        self.kinds = {p.name: KINDS.get(p.annotation, "attribute") for p in parameters}
        self.inputs = [n for n, kind in self.kinds.items() if kind not in ("attribute", "index")]
        self.sequence = any(kind == "sequence" for kind in self.kinds.values())
        # Python scalars are operands beside a tensor; `loose` inputs may be something else than one
        self.scalars = self.promote in ("same", "float") and len(self.inputs) > 1
        self.loose = [n for n in self.inputs if self.scalars or self.kinds[n] == "optional"]
        self.names: list[str] = []  # what the gradient gets after g
        self.saves: list[str] = []  # of these, what a node keeps
        self.function = self._function()

    def _function(self) -> Any:
        self.namespace: dict[str, Any] = {"OP": self, "SPECIALISE": _specialise}
        function = types.FunctionType(_unspecialised.__code__, self.namespace, self.name)
        function.__doc__ = self.forward.__doc__
        function.__module__ = self.forward.__module__
        function.__qualname__ = self.name
        function.__signature__ = self.signature  # type: ignore[attr-defined]
        function.op = self  # type: ignore[attr-defined]
        function.gradient = self.set_gradient  # type: ignore[attr-defined]
        if len(self.outputs) == 1 and not self.view:
            function.composite = self.set_composite  # type: ignore[attr-defined]
        return function

    def set_gradient(self, gradient: Callable) -> Callable:
        """Register the gradient: its parameter names are what a node keeps."""
        code = gradient.__code__
        first, *names = code.co_varnames[: code.co_argcount] or ("",)
        if first != "g":
            raise TypeError(f"[{self.name}] the first parameter of a gradient is g")
        indices = [name for name, kind in self.kinds.items() if kind == "index"]
        arrays = {*self.inputs, *self.outputs, *self.residuals, *indices}
        known = {*arrays, *self.kinds, "needs", *(f"{name}_shape" for name in self.inputs)}
        for name in names:
            if name not in known:
                raise TypeError(
                    f"[{self.name}] the gradient names {name!r}, which is neither an input, an"
                    f" attribute, <input>_shape, an output {self.outputs} nor a residual"
                    f" {self.residuals}"
                )
        self.names = names
        self.saves = [name for name in names if name != "needs"]
        self.frees = any(name in arrays for name in self.saves)
        self.gradient = gradient
        self.function.__code__ = _unspecialised.__code__  # it may have been called before
        return gradient

    def set_composite(self, composite: Callable) -> Callable:
        """Register the same function in primitive operators; `create_graph` records it."""
        self.composite = composite
        return composite

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        """Gradients for the node's edges; the compiled function takes the place of this one."""
        raise GradientError("has no gradient", operator=self.name)


def through_composite(op: Operator, node: Node, g: Any) -> tuple:
    """Gradients by way of the composite, whose operators are recorded."""
    args, inputs, keywords = [], [], {}
    edges = iter(node.edges)
    for parameter, value in zip(op.parameters, node.call, strict=True):
        if op.kinds[parameter.name] in ("array", "optional"):
            edge = next(edges)
            if value is not None:
                array, *guard = value
                check_versions(op.name, guard)
                value = rebuilt(array, edge)
            inputs.append(None if edge is None else value)
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            args.append(value)
    assert op.composite is not None
    out = op.composite(*args, **keywords)
    found = iter(gradients_of(out, [x for x in inputs if x is not None], g))
    return tuple(None if x is None else next(found) for x in inputs)


def miscounted(op: Operator, result: Sequence[Any], node: Node) -> None:
    """Raise the error for a gradient that returned too few or too many values."""
    raise GradientError(
        f"the gradient returned {len(result)} values for {len(node.edges)} inputs",
        operator=op.name,
    )


def _unspecialised(*args: Any, **kwargs: Any) -> Any:
    return SPECIALISE(OP)(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _specialise(op: Operator) -> Any:
    """Write and compile the function of `op`, on its first call."""
    function, namespace = op.function, op.namespace
    for p in op.parameters:
        if p.default is not p.empty:
            namespace["DEFAULT_" + p.name] = p.default
    source = source_of(op)
    if op.gradient is not None:
        source += backward_source_of(op)
    filename = f"<minidl operator {op.name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    namespace |= _HELPERS | {"FORWARD": op.forward, "THIS": function, "GRADIENT": op.gradient}
    made: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), namespace, made)
    if op.gradient is not None:
        op.backward = made["backward"]
    new = made["specialised"]
    function.__defaults__ = new.__defaults__
    function.__kwdefaults__ = new.__kwdefaults__
    function.__code__ = new.__code__  # last: another thread may be calling
    return function


_HELPERS = {
    "Tensor": Tensor,
    "Node": Node,
    "VIEW": View,
    "STORAGE": Storage,
    "NEW": object.__new__,
    "NDARRAY": np.ndarray,
    "ARRAY_TYPES": ARRAY_TYPES,
    "HALF": half_entries,
    "ON_DEVICE": on_device,
    "PLACED": placed,
    "LOCAL": local,
    **{d.name.upper(): d.numpy for d in FLOATS},
    "DIVERTED": Diverted,
    "PREPARE": prepare,
    "OPERAND": operand,
    "SEQUENCE": sequence,
    "ROUNDED": rounded,
    "EXPLAIN": explain,
    "ENTERED": entered,
    "EDGE": edge_of,
    "CHECK": check_versions,
    "LENT": lent,
    "REBUILT": rebuilt,
    "UNFREED": unfreed,
    "THROUGH": through_composite,
    "MISCOUNTED": miscounted,
}


def op(
    forward: Callable | None = None,
    *,
    outputs: int | Sequence[str] = 1,
    residuals: Sequence[str] = (),
    view: bool = False,
    nondiff: bool = False,
    promote: str | None = "same",
    inplace_of: Any = None,
    needed_by: dict[str, str] | None = None,
) -> Any:
    """Make an operator of `forward(k, ...)`, which works on raw arrays with the kernel table k.

    outputs: how many outputs, or their names; residuals: names of further returned values that
    only the gradient sees; view: the result shares the first input's elements; nondiff: no
    gradient by nature; promote: "same" (tensors and scalars are promoted to a common dtype),
    "float" (so are integers, to the default dtype), "match" (dtypes must be equal), None (arrays
    pass as they are); inplace_of: the operator that this one computes into its first argument;
    needed_by: saved input -> the input whose gradient alone needs it (None where that has none).
    """
    options = {
        "outputs": outputs,
        "residuals": residuals,
        "view": view,
        "nondiff": nondiff,
        "promote": promote,
        "needed_by": needed_by,
    }

    def decorate(forward: Callable) -> Any:
        if inplace_of is not None:
            return inplace_form(forward, inplace_of)
        return Operator(forward, forward.__name__.strip("_"), options).function

    return decorate if forward is None else decorate(forward)


gradients_of: Callable[..., Sequence[Any]]


def register_gradients(function: Callable) -> None:
    """Take the engine's `gradients(out, inputs, g)` for composites; the engine calls this once."""
    global gradients_of
    gradients_of = function

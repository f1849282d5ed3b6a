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

from minidl.autograd.arguments import explain, operand, prepare, refuse, rounded, sequence
from minidl.autograd.inplace import in_place, inplace_form, writable, write
from minidl.autograd.node import Node, check_versions, constant, edge_of, lent, rebuilt
from minidl.autograd.specialise import backward_source_of, source_of
from minidl.backends import local
from minidl.backends.table import entered
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
PLAIN, INPUT, OUTPUT, CONSTANT, SEQUENCE = range(5)


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
        self.kinds = {p.name: KINDS.get(p.annotation, "attribute") for p in parameters}
        self.inputs = [n for n, kind in self.kinds.items() if kind not in ("attribute", "index")]
        self.sequence = any(kind == "sequence" for kind in self.kinds.values())
        self.saves: list[str] = []
        self.plan: list[tuple[int, int]] = []
        self.wants_needs = False
        self.fast: Any = None  # backward(node, g) without graph, compiled on the first call
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
        names = list(code.co_varnames[: code.co_argcount])
        if not names or names[0] != "g":
            raise TypeError(f"[{self.name}] the first parameter of a gradient is g")
        self.wants_needs = "needs" in names
        self.saves = [name for name in names[1:] if name != "needs"]
        self.needs_position = names.index("needs") if self.wants_needs else 0
        for name in self.saves:
            self.plan.append(self._plan(name))
        self.frees = any(how != PLAIN for how, _ in self.plan)
        self.gradient = gradient
        return gradient

    def set_composite(self, composite: Callable) -> Callable:
        """Register the same function in primitive operators; `create_graph` records it."""
        self.composite = composite
        return composite

    def _plan(self, name: str) -> tuple[int, int]:
        """(how to rebuild, which edge): PLAIN as it is, INPUT, OUTPUT, CONSTANT a tensor."""
        if name in self.inputs:
            return (SEQUENCE if self.sequence else INPUT, self.inputs.index(name))
        if name in self.outputs:
            return OUTPUT, self.outputs.index(name)
        if name in self.residuals or self.kinds.get(name) == "index":
            return CONSTANT, 0
        if name in self.kinds or (name.endswith("_shape") and name[:-6] in self.inputs):
            return PLAIN, 0
        raise TypeError(
            f"[{self.name}] the gradient names {name!r}, which is neither an input, an attribute,"
            f" <input>_shape, an output {self.outputs} nor a residual {self.residuals}"
        )

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        """Gradients for the node's edges, given the gradient `g` of its output(s)."""
        if self.gradient is None:
            raise GradientError("has no gradient", operator=self.name)
        saved = node.saved
        if saved is None:
            raise GradientError(
                "the graph was freed by an earlier backward; pass retain_graph=True to the first",
                operator=self.name,
            )
        if type(saved) is not tuple:  # a checkpointed region: computed again when needed
            saved = saved.recompute(node)
        check_versions(self.name, node.guards)
        if create_graph and self.composite is not None:
            return self._through_composite(node, g)
        args = [g]
        for (how, which), value in zip(self.plan, saved, strict=True):
            if how == PLAIN or value is None:
                args.append(value)
            elif how == SEQUENCE:
                edges = node.edges if create_graph else (None,) * len(value)
                args.append([rebuilt(a, e) for a, e in zip(value, edges, strict=True)])
            elif type(value) is not np.ndarray:
                args.append(value)
            elif how == CONSTANT or not create_graph:
                args.append(constant(value))
            elif how == INPUT:
                args.append(rebuilt(value, node.edges[which]))
            else:
                edge = node if len(self.outputs) == 1 else (node, which)
                args.append(rebuilt(value, edge if value.dtype.kind not in "iub" else None))
        if self.wants_needs:
            args.insert(self.needs_position, tuple(edge is not None for edge in node.edges))
        result = self.gradient(*args)
        if type(result) is not tuple:
            result = tuple(result) if type(result) is list else (result,)
        if len(result) != len(node.edges):
            miscounted(self, result, node)
        return result

    def _through_composite(self, node: Node, g: Any) -> tuple:
        args, inputs, keywords = [], [], {}
        edges = iter(node.edges)
        for parameter, value in zip(self.parameters, node.call, strict=True):
            kind = self.kinds[parameter.name]
            if kind in ("array", "optional"):
                edge = next(edges)
                if value is None:
                    inputs.append(None)
                else:
                    array, storage, version = value
                    check_versions(self.name, (storage, version))
                    value = rebuilt(array, edge)
                    inputs.append(None if edge is None else value)
            if parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = value
            else:
                args.append(value)
        assert self.composite is not None
        out = self.composite(*args, **keywords)
        wanted = [x for x in inputs if x is not None]
        found = iter(gradients_of(out, wanted, g))
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
    namespace |= _HELPERS
    namespace |= {"FORWARD": op.forward, "THIS": function}
    namespace |= {"GRADIENT": op.gradient, "SLOW": op.backward}
    made: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), namespace, made)
    op.fast = made.get("backward")
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
    "ASARRAY": np.asarray,
    "LOCAL": local,
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "PREPARE": prepare,
    "OPERAND": operand,
    "REFUSE": refuse,
    "SEQUENCE": sequence,
    "ROUNDED": rounded,
    "EXPLAIN": explain,
    "ENTERED": entered,
    "EDGE": edge_of,
    "CHECK": check_versions,
    "LENT": lent,
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

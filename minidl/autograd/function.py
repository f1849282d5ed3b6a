"""`autograd.Function`: an operator of the user's own, written as PyTorch users write it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.modes import no_grad
from minidl.autograd.node import Node, check_versions, constant, edge_of, rebuilt, show, unfreed
from minidl.backends import local
from minidl.dtypes import FLOAT
from minidl.errors import DTypeError, GradientError, UnsupportedError
from minidl.tensor import Tensor


class Context:
    """What `forward` leaves for `backward`: saved tensors, flags, attributes of your own."""

    def __init__(self, name: str, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._name = name
        self._to_save: tuple[Any, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._materialize = True
        self._node: Any = type(None)  # a weak reference, called; the node holds this context

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs and outputs for `backward`, which finds them in `saved_tensors`."""
        for x in tensors:
            if x is not None and type(x) is not Tensor:
                raise DTypeError(
                    "save_for_backward takes Tensors; keep other values as attributes of ctx",
                    operator=self._name,
                    got=type(x).__name__,
                )
        self._to_save = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which inputs `forward` wrote in place; it must return them."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing gradients of outputs arrive as zeros (default) or as None."""
        self._materialize = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """The tensors that `save_for_backward` kept."""
        node = self._node()
        if node is None:  # in forward or setup_context
            return self._to_save
        saved = node.saved if type(node.saved) is tuple else unfreed(self._name, node)
        check_versions(self._name, node.guards)
        recording = local.state.recording
        tensors = []
        for kept in saved:
            if kept is None:
                tensors.append(None)
                continue
            array, edge, output = kept
            if output is not None:
                edge = (node, output) if type(node.dtype) is tuple else node
            tensors.append(rebuilt(array, edge if recording else None))
        return tuple(tensors)

    def _keep(self, inputs: tuple, edges: tuple, outputs: tuple, node: Node) -> None:
        """Give the node the raw arrays of what is saved, and how to find their edges again."""
        saved, guards = [], []
        for x in self._to_save:
            if x is None:
                saved.append(None)
                continue
            output = next((i for i, y in enumerate(outputs) if y is x), None)
            edge = next((e for y, e in zip(inputs, edges, strict=True) if y is x), None)
            saved.append((x.array, edge, output))
            guards += [x.storage, x.storage.version]
        node.saved, node.guards, self._to_save = tuple(saved), tuple(guards), ()
        self._node = weakref.ref(node)


class _FunctionOperator:
    """What a node needs of its operator, for one call of a Function."""

    fresh, frees = False, True

    def __init__(self, function: type[Function], ctx: Context) -> None:
        self.name = function.__name__
        self.function = function
        self.ctx = ctx

    @property
    def materialize(self) -> bool:
        return self.ctx._materialize

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        result = self.function.backward(self.ctx, *(g if type(g) is tuple else (g,)))
        results = result if isinstance(result, tuple) else (result,)
        count = len(node.edges)
        if len(results) < count or any(r is not None for r in results[count:]):
            raise GradientError(
                f"backward returned {len(results)} gradients for {count} inputs of forward",
                operator=self.name,
            )
        for r in results:
            if r is not None and type(r) is not Tensor:
                raise GradientError(
                    "backward must return Tensors or None",
                    operator=self.name,
                    got=type(r).__name__,
                )
        return results[:count]


class Function:
    """Base of user-written operators.

    Subclasses define static `forward(ctx, *args)` and `backward(ctx, *grads)`, and are called as
    `MyFunction.apply(*args)`. `backward` returns one gradient (or None) per argument of `forward`;
    it is differentiable itself if it uses operators only. The two-part form
    `forward(*args)` + `setup_context(ctx, inputs, output)` works too.
    """

    setup_context: Any = None

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; nothing is recorded inside."""
        raise UnsupportedError("a Function must define a static method forward")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradients with respect to each argument of forward, given those of the outputs."""
        raise UnsupportedError("a Function must define a static method backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` and record `backward` for it."""
        edges = tuple(edge_of(x) if type(x) is Tensor else None for x in args)
        recorded = local.state.recording is not False and any(e is not None for e in edges)
        ctx = Context(cls.__name__, tuple(recorded and e is not None for e in edges))
        with no_grad():
            if cls.setup_context is None:
                result = cls.forward(ctx, *args)
            else:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
        several = isinstance(result, tuple | list)
        raw = tuple(result) if several else (result,)
        dirty = {id(x) for x in ctx._dirty}
        if not dirty <= {id(y) for y in raw}:
            raise GradientError("forward must return what it marks dirty", operator=cls.__name__)
        for x in ctx._dirty:
            if recorded and (x.base is not None or (x.tracked and x.node is None)):
                raise GradientError(
                    "a view or a leaf that requires gradients cannot be marked dirty",
                    operator=cls.__name__,
                )
        shared = {x.storage for x in args if type(x) is Tensor}
        outputs = tuple(
            # a write into an output that shares an input's elements would change the input
            # behind its history (PyTorch refuses such writes): it gets elements of its own
            (constant(y.array.copy()) if recorded else y.detach())
            if type(y) is Tensor and id(y) not in dirty and y.storage in shared
            else y
            for y in raw
        )
        if recorded:
            cls._record(ctx, args, edges, raw, outputs)
        return outputs if several else outputs[0]

    @classmethod
    def _record(cls, ctx: Context, args: tuple, edges: tuple, raw: tuple, outputs: tuple) -> None:
        fixed = {id(y) for y in ctx._non_differentiable}
        shapes: Any = tuple([y.array.shape if type(y) is Tensor else () for y in outputs])
        dtypes: Any = tuple(
            [y.array.dtype if type(y) is Tensor else np.dtype(int) for y in outputs]
        )
        single = len(outputs) == 1
        if single:
            (shapes,), (dtypes,) = shapes, dtypes
        node = Node(_FunctionOperator(cls, ctx), edges, (), shapes, dtypes)
        ctx._keep(args, edges, raw, node)
        for i, (y, before) in enumerate(zip(outputs, raw, strict=True)):
            if type(y) is Tensor and y.dtype.kind == FLOAT and id(before) not in fixed:
                y.base = None
                y.node = node if single else (node, i)
                y.tracked = True
        show(node)


class _Once:
    """The operator of gradients that were computed without a graph."""

    fresh = frees = False

    def __init__(self, name: str) -> None:
        self.name = name

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        raise GradientError(
            "its backward is marked once_differentiable and has no derivative", operator=self.name
        )


def once_differentiable(backward: Callable) -> Callable:
    """Mark a Function's backward that is not made of operators: differentiating it raises."""

    @functools.wraps(backward)
    def wrapped(ctx: Context, *grads: Any) -> Any:
        recording = local.state.recording
        with no_grad():
            result = backward(ctx, *grads)
        if not recording:
            return result
        edges = tuple(edge_of(g) for g in grads if type(g) is Tensor)
        results = result if isinstance(result, tuple) else (result,)
        closed = []
        for r in results:
            if type(r) is Tensor:
                r = constant(r.array)
                r.node = Node(_Once(ctx._name), edges, (), r.array.shape, r.array.dtype)
                r.tracked = True
            closed.append(r)
        return tuple(closed)

    return wrapped

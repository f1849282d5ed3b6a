"""The backward pass: gradients flow from outputs to inputs in topological order, iteratively."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from minidl.autograd.anomaly import check_gradients, detects_anomaly
from minidl.autograd.node import Accumulated, Node, Retain, constant, edge_of, rebuilt
from minidl.autograd.op import register_gradients
from minidl.backends import kernels_for, local, owns_memory
from minidl.errors import DeviceError, DTypeError, GradientError, ShapeError
from minidl.tensor import Tensor


class _Operators:
    """The few operators that the engine itself needs; `ops` hands them over once."""

    add: Callable
    add_: Callable
    sum_to: Callable
    cast: Callable


def register_operators(add: Callable, add_: Callable, sum_to: Callable, cast: Callable) -> None:
    """Give the engine `add`, its in-place form, `sum_to(x, shape)` and `cast(x, numpy dtype)`."""
    _Operators.add, _Operators.add_ = staticmethod(add), staticmethod(add_)
    _Operators.sum_to, _Operators.cast = staticmethod(sum_to), staticmethod(cast)


def _target(edge: Any) -> Any:
    """The node or leaf of an edge."""
    return edge[0] if type(edge) is tuple else edge


def _count_uses(roots: Iterable[Any]) -> dict[Any, int]:
    """For every node and leaf that `roots` reach: how many edges lead to it."""
    uses: dict[Any, int] = {root: 0 for root in roots}
    stack = [root for root in uses if type(root) is not Tensor]
    while stack:
        for edge in stack.pop().edges:
            if edge is None:
                continue
            kind = type(edge)
            target = edge[0] if kind is tuple else edge
            if target in uses:
                uses[target] += 1
            else:
                uses[target] = 1
                if kind is not Tensor:
                    stack.append(target)
    return uses


def _leading_to(roots: Iterable[Any], wanted: set[Any]) -> set[Any]:
    """The nodes among those that `roots` reach through which a wanted node or leaf is reached."""
    through: set[Any] = set()
    seen: set[Any] = set()
    stack = [(root, False) for root in roots]
    while stack:
        target, done = stack.pop()
        if type(target) is Tensor:
            continue
        sources = [_target(edge) for edge in target.edges if edge is not None]
        if done:
            if any(source in wanted or source in through for source in sources):
                through.add(target)
        elif target not in seen:
            seen.add(target)
            stack.append((target, True))
            stack += [(source, False) for source in sources]
    return through


class _Pass:
    """One backward pass: what has arrived at each edge so far."""

    def __init__(self, create_graph: bool) -> None:
        self.create_graph = create_graph
        self.arrived: dict[Any, Tensor] = {}
        # edges whose sum is a buffer of this pass, which may be added to in place
        self.owned: set[Any] = set()

    def deliver(self, edge: Any, g: Tensor, own: bool = False) -> None:
        """Add `g` to what has arrived at `edge`, in the shape and dtype of the value there."""
        if type(edge) is tuple:
            node, i = edge
            shape, dtype = node.shape[i], node.dtype[i]
        else:
            value = edge.array if type(edge) is Tensor else edge
            shape, dtype = value.shape, value.dtype
        if g.array.shape != shape:
            extra = g.array.ndim - len(shape)
            pairs = zip(shape, g.array.shape[max(extra, 0) :], strict=False)
            if extra < 0 or any([n != m and n != 1 for n, m in pairs]):
                raise ShapeError(
                    "a gradient must have the shape of its value, or one that sums down to it",
                    operator="backward",
                    got=f"{g.array.shape}, {shape}",
                )
            g, own = _Operators.sum_to(g, shape), False
        if g.array.dtype != dtype:
            g, own = _Operators.cast(g, dtype), False
        if edge not in self.arrived:
            if own:
                self.owned.add(edge)
        elif edge in self.owned and not self.create_graph:
            g = _Operators.add_(self.arrived[edge], g)
        else:
            g = _Operators.add(self.arrived[edge], g)
            self.owned.add(edge)
        self.arrived[edge] = g

    def take_all(self, node: Node) -> list[Tensor | None] | None:
        """What has arrived at the outputs of a node that has several; None if nothing has."""
        parts = [self.arrived.pop((node, i), None) for i in range(len(node.dtype))]
        return None if all([part is None for part in parts]) else parts


def _takes_over(r: Tensor, g: Any, node: Node, results: tuple) -> bool:
    """Whether a leaf may keep the returned array as its .grad: nobody else holds it."""
    array = r.array
    if not node.op.fresh or r.tracked or not owns_memory(array):
        return False
    if g.array is array if type(g) is not tuple else any(r is part for part in g):
        return False
    for value in node.saved:
        if value is array:
            return False
    arrays = [other.array for other in results if other is not None]
    return len([other for other in arrays if other is array or other.base is array]) == 1


def _apply_hooks(hooks: Iterable[Callable], g: Tensor, what: str) -> Tensor:
    for hook in sorted(hooks, key=lambda hook: type(hook) is Retain):  # these come last
        new = hook(g)
        if new is None:
            continue
        if type(new) is not Tensor or new.shape != g.shape or new.dtype is not g.dtype:
            got = type(new).__name__ if type(new) is not Tensor else f"{new.shape} {new.dtype.name}"
            raise ShapeError(
                f"a hook on {what} must return a Tensor of the same shape and dtype",
                got=f"{got} for {g.shape} {g.dtype.name}",
            )
        g = new
    return g


def _run(
    roots: Sequence[tuple[Any, Tensor]],
    retain_graph: bool,
    create_graph: bool,
    captured: dict[Any, Any] | None,
) -> None:
    """Propagate (edge, gradient) pairs; fill `captured`, or accumulate into leaves if None."""
    targets = [_target(edge) for edge, _ in roots]
    through = needed = None  # nodes to run, and what a gradient is delivered to; None is all
    if captured is not None:
        wanted = {_target(edge) for edge in captured}
        through = _leading_to(targets, wanted)
        needed = through | wanted
    uses = _count_uses(targets)
    stream, check = _Pass(create_graph), detects_anomaly()
    for edge, g in roots:
        stream.deliver(edge, g)
    ready = [target for target in dict.fromkeys(targets) if uses[target] == 0]
    deliver, arrived = stream.deliver, stream.arrived
    while ready:
        node = ready.pop()
        if type(node) is Tensor:  # among the roots
            _finish_leaf(node, arrived.pop(node), stream, captured)
            continue
        several = type(node.dtype) is tuple
        g = stream.take_all(node) if several else arrived.pop(node, None)
        if node.hooks is not None and g is not None:
            g = _node_hooks(node, g)
        if captured is not None and g is not None:
            _capture_node(node, g, captured)
        used = g is not None and (through is None or node in through)
        if used:
            if type(g) is list:
                g = _whole(node, g) if node.op.materialize else tuple(g)
            results = node.op.backward(node, g, create_graph)
            if check or node.where is not None:
                check_gradients(node, g, results)
        else:
            results = (None,) * len(node.edges)
        for edge, r in zip(node.edges, results, strict=True):
            if edge is None:
                continue
            kind = type(edge)
            target = edge[0] if kind is tuple else edge
            if r is not None and (needed is None or target in needed):
                own = kind is Tensor and _takes_over(r, g, node, results)
                value, array = edge.array if kind is Tensor else target, r.array
                if edge in arrived or array.shape != value.shape or array.dtype is not value.dtype:
                    deliver(edge, r, own)
                else:  # the same, where it is the first
                    arrived[edge] = r
                    if own:
                        stream.owned.add(edge)
            uses[target] = left = uses[target] - 1
            if not left and kind is not Tensor:
                ready.append(target)
            elif not left and edge in arrived:
                _finish_leaf(edge, arrived.pop(edge), stream, captured)
        if used and not retain_graph and node.op.frees:
            node.saved = node.call = None


def _whole(node: Node, g: list) -> tuple:
    """All gradients of a node with several outputs: zeros for those that nothing arrived at."""
    zeros = kernels_for(next(part.array for part in g if part is not None)).zeros
    return tuple(
        constant(zeros(shape, dtype)) if part is None and dtype.kind not in "iub" else part
        for part, shape, dtype in zip(g, node.shape, node.dtype, strict=True)
    )


def _node_hooks(node: Node, g: Any) -> Any:
    what = f"a result of {node.name()}"
    if type(g) is list:
        return [
            part if part is None else _apply_hooks(node.hooks.get(i, {}).values(), part, what)
            for i, part in enumerate(g)
        ]
    return _apply_hooks(node.hooks.get(0, {}).values(), g, what)


def _capture_node(node: Node, g: Any, captured: dict[Any, Any]) -> None:
    if type(g) is list:
        for i, part in enumerate(g):
            if (node, i) in captured:
                captured[node, i] = part
    elif node in captured:
        captured[node] = g


def _finish_leaf(leaf: Tensor, g: Tensor, stream: _Pass, captured: dict | None) -> None:
    own = leaf in stream.owned
    if leaf.hooks and (hooks := _before_leaf(leaf)):
        g, own = _apply_hooks(hooks, g, "a leaf"), False  # a hook may have kept it
    if captured is not None:
        if leaf in captured:
            captured[leaf] = g
    elif leaf.tracked:  # it may have been switched off since
        accumulate(leaf, g, stream.create_graph, own)


def _before_leaf(leaf: Tensor) -> list[Any]:
    return [hook for hook in leaf.hooks.values() if type(hook) is not Accumulated]


def accumulate(x: Tensor, g: Tensor, create_graph: bool, own: bool = False) -> None:
    """Add `g` to `x.grad`; `own` says that nobody else holds the buffer of `g`."""
    if type(g.array) is not type(x.array):
        got = f"{g.device} for {x.device}"
        raise DeviceError("a hook or gradient moved a gradient off its tensor's device", got=got)
    if x._grad is not None:
        if create_graph:
            x._grad = _Operators.add(x._grad, g)
        else:
            _Operators.add_(x._grad, g)
    elif own and owns_memory(g.array):
        x._grad = g
    else:
        x._grad = rebuilt(kernels_for(g.array).array(g.array, order="C"), edge_of(g))
    for hook in list(x.hooks.values()) if x.hooks else ():
        if type(hook) is Accumulated:
            hook.run(x)


def _roots(tensors: Any, grad_tensors: Any, function: str) -> list[tuple[Any, Tensor]]:
    outputs = [tensors] if type(tensors) is Tensor else list(tensors)
    several = isinstance(grad_tensors, list | tuple)
    gradients: Sequence[Any] = grad_tensors if several else [grad_tensors] * len(outputs)
    if len(gradients) != len(outputs):
        got = f"{len(gradients)} for {len(outputs)}"
        raise GradientError("there must be one gradient per output", operator=function, got=got)
    pairs = []
    for output, g in zip(outputs, gradients, strict=True):
        if type(output) is not Tensor:
            raise DTypeError("needs Tensors", operator=function, got=type(output).__name__)
        if not output.requires_grad:
            raise GradientError(
                "the tensor does not require gradients and was not computed from one that does",
                operator=function,
            )
        if g is None:
            if output.array.size != 1:
                raise GradientError(
                    "a gradient must be given for an output of more than one element",
                    operator=function,
                    got=str(output.shape),
                )
            g = constant(kernels_for(output.array).ones(output.shape, output.array.dtype))
        elif type(g) is not Tensor:
            raise DTypeError("a gradient must be a Tensor", operator=function, got=repr(g))
        elif g.shape != output.shape:
            raise ShapeError(
                "a gradient must have the shape of its output",
                operator=function,
                got=f"{g.shape}, {output.shape}",
            )
        elif type(g.array) is not type(output.array):
            raise DeviceError(
                "a gradient must be on the device of its output",
                operator=function,
                got=f"{g.device}, {output.device}",
            )
        pairs.append((output.node or output, g))
    return pairs


def _run_in_mode(roots: Any, retain_graph: bool | None, create_graph: bool, captured: Any) -> None:
    state = local.state
    before = state.recording
    # a recorder is active under create_graph, too, so that anomalies of second order are located
    state.recording = state.recorder if create_graph else False
    try:
        keep = create_graph if retain_graph is None else retain_graph
        _run(roots, keep, create_graph, captured)
    finally:
        state.recording = before


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Sum the gradients of `tensors` into the `.grad` of the leaves (or of `inputs` only).

    tensors: outputs; grad_tensors: one gradient per output, of its shape (ones for a single
    element). Raises GradientError without a graph, after it was freed, or where a saved tensor
    was written in place. Reverse-mode accumulation (Griewank and Walther 2008).
    """
    roots = _roots(tensors, grad_tensors, "backward")
    if inputs is None:
        _run_in_mode(roots, retain_graph, create_graph, None)
        return
    wanted = list(dict.fromkeys((inputs,) if type(inputs) is Tensor else inputs))
    if not wanted:
        raise GradientError("inputs must not be empty", operator="backward")
    found = _captured(roots, wanted, retain_graph, create_graph, "backward")
    for x, g in zip(wanted, found, strict=True):
        if g is not None:
            accumulate(x, g, create_graph)


def _captured(
    roots: Any, inputs: Sequence[Tensor], retain: bool | None, create_graph: bool, name: str
) -> list[Any]:
    keys: list[Any] = []
    for x in inputs:
        if type(x) is not Tensor or not x.requires_grad:
            raise GradientError(
                "every input must be a Tensor that requires gradients", operator=name
            )
        keys.append(x.node or x)
    captured = dict.fromkeys(keys)
    _run_in_mode(roots, retain, create_graph, captured)
    return [captured[key] for key in keys]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`; `.grad` is left alone.

    Returns one tensor per input, of its shape; None (or zeros with materialize_grads) where the
    outputs do not depend on it, which is an error unless allow_unused. only_inputs: ignored, as by
    PyTorch.
    """
    if is_grads_batched:
        raise NotImplementedError("[grad] is_grads_batched: call grad once per row instead")
    roots = _roots(outputs, grad_outputs, "grad")
    wanted = [inputs] if type(inputs) is Tensor else list(inputs)
    found = _captured(roots, wanted, retain_graph, create_graph, "grad")
    for i, g in enumerate(found):
        if g is None:
            if materialize_grads:
                found[i] = constant(
                    kernels_for(wanted[i].array).zeros(wanted[i].shape, wanted[i].array.dtype)
                )
            elif not allow_unused:
                raise GradientError(
                    f"the outputs do not depend on input {i}; pass allow_unused=True for None",
                    operator="grad",
                )
    return tuple(found)


def _through(out: Tensor, inputs: Sequence[Tensor], g: Tensor) -> Sequence[Any]:
    """Gradients of a composite, recorded; None for inputs without influence."""
    captured = {x.node: None for x in inputs}
    if out.requires_grad:
        _run([(out.node, g)], True, True, captured)
    return [captured[x.node] for x in inputs]


register_gradients(_through)


def _backward_method(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Sum the gradients of this tensor into the `.grad` of the leaves."""
    backward(self, gradient, retain_graph, create_graph, inputs)


Tensor.backward = _backward_method  # type: ignore[attr-defined]

"""The nodes of the graph, and tensors around raw arrays."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from minidl.backends import local
from minidl.errors import GradientError
from minidl.tensor import Storage, Tensor


class Node:
    """One recorded call: its operator, where its inputs came from, and what its gradient needs.

    `edges` has one entry per differentiable input: the node that made it, `(node, i)`, the leaf
    itself, or None. `saved` are the values that the gradient names, as raw arrays; `guards` are
    (storage, version seen, ...) of those that a user could write. `call` are all arguments, kept
    for fused operators only. `shape` and `dtype` are those of the output, or tuples of several.
    """

    __slots__ = (
        "op",
        "edges",
        "saved",
        "guards",
        "call",
        "shape",
        "dtype",
        "hooks",
        "where",
        "__weakref__",
    )

    def __init__(self, op: Any, edges: tuple, saved: Any, shape: Any, dtype: Any) -> None:
        self.op = op
        self.edges = edges
        self.saved = saved
        self.guards: tuple = ()
        self.call: Any = None
        self.shape = shape
        self.dtype = dtype
        self.hooks: Any = None
        self.where: Any = None

    def name(self) -> str:
        """PyTorch's style of name, e.g. `MulBackward0`."""
        words = self.op.name.strip("_").split("_")
        return "".join(word.capitalize() for word in words) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """(node, output index) per input; None for inputs without a gradient and for leaves."""
        pairs = [edge if type(edge) is tuple else (edge, 0) for edge in self.edges]
        return tuple((None, 0) if type(n) is Tensor else (n, i) for n, i in pairs)

    def adopt(self, x: Tensor) -> None:
        """Take over the hooks of `retain_grad` that the node of `x` has, before it becomes this."""
        if x.node is not None and (kept := retained(x)):
            for key in kept:
                del hooks_of(x.node)[key]
            hooks_of(self).update(kept)

    def __repr__(self) -> str:
        return f"<{self.name()}>"


def check_versions(name: str, guards: Sequence[Any]) -> None:
    """Refuse saved arrays that were written in place since."""
    for i in range(0, len(guards), 2):
        if guards[i].version != guards[i + 1]:
            raise GradientError(
                "a tensor that its gradient needs was written in place after it was used: saved"
                f" at version {guards[i + 1]}, now at version {guards[i].version}; use the"
                " operator that makes a new tensor, or .clone() first",
                operator=name,
            )


def unfreed(name: str, node: Node) -> tuple:
    """What a checkpointed node keeps, computed again; an error where it was freed."""
    if node.saved is None:
        raise GradientError(
            "the graph was freed by an earlier backward; pass retain_graph=True to the first",
            operator=name,
        )
    return node.saved.recompute(node)


_new = object.__new__


def constant(array: Any) -> Tensor:
    """A tensor of its own storage around a raw array."""
    tensor = _new(Tensor)
    tensor.array = array
    tensor.storage = Storage()
    tensor.tracked = tensor.is_parameter = False
    tensor.node = tensor.base = tensor.hooks = tensor._grad = None
    return tensor


_LENT = Storage()


def lent(array: Any, edge: Any) -> Tensor:
    """A saved array as a tensor for one gradient call without graph; they share one storage."""
    tensor = _new(Tensor)
    tensor.array = array
    tensor.storage = _LENT
    tensor.tracked = tensor.is_parameter = False
    tensor.node = tensor.base = tensor.hooks = tensor._grad = None
    return tensor


class _Alias:
    """The operator of a tensor that stands for a saved array: its gradient is `g` itself."""

    name = "alias"
    fresh = frees = False

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        return (g,)


ALIAS = _Alias()


def rebuilt(array: Any, edge: Any) -> Tensor:
    """The tensor that a saved array was: connected to `edge`, but a node of its own.

    So each use is told apart when one tensor was passed twice.
    """
    tensor = constant(array)
    if edge is not None and array.dtype.kind not in "iub":
        tensor.node = Node(ALIAS, (edge,), (), array.shape, array.dtype)
        tensor.tracked = True
    return tensor


def edge_of(x: Tensor) -> Any:
    """What a node keeps of an input: the node that made it, the leaf, or None."""
    if x.base is not None:
        x.refresh()
    return (x.node or x) if x.tracked else None


def hooks_of(edge: Any) -> dict[int, Any]:
    """The hooks of one output of a node."""
    node, i = edge if type(edge) is tuple else (edge, 0)
    if node.hooks is None:
        node.hooks = {}
    return node.hooks.setdefault(i, {})


class Retain:
    """The hook of `retain_grad`; it follows its tensor through in-place writes."""

    def __init__(self, tensor: Tensor, accumulate: Callable) -> None:
        self.tensor, self.accumulate = weakref.ref(tensor), accumulate

    def __call__(self, g: Tensor) -> None:
        """Add `g` to the tensor's `.grad`."""
        tensor = self.tensor()
        if tensor is not None:
            self.accumulate(tensor, g, create_graph=True)


class Accumulated:
    """The hook of a leaf that runs after its gradient was added to `.grad`, not before."""

    def __init__(self, run: Callable[[Tensor], None]) -> None:
        self.run = run


def retained(x: Tensor) -> dict[int, Any]:
    """Those hooks of the node of `x` that belong to the tensor itself (`retain_grad`)."""
    node, i = x.node if type(x.node) is tuple else (x.node, 0)
    hooks = node.hooks.get(i, {}) if node.hooks else {}
    return {key: hook for key, hook in hooks.items() if type(hook) is Retain and hook.tensor() is x}


def replace_history(x: Tensor, node: Node) -> None:
    """Give `x`, which was written in place, the node of what was written."""
    node.adopt(x)
    x.node, x.tracked = node, True
    show(node)


def show(node: Node) -> None:
    """Show a node to the active recorder, if there is one."""
    recording = local.state.recording
    if callable(recording):
        recording(node)

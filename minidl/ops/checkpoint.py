"""Activation checkpointing: compute again in the backward pass what is not kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". The region is recorded as usual,
but its nodes keep nothing afterwards; the first of them that backward reaches runs the function
again and takes what each node needs from there. So `autograd.grad`, `create_graph` and parameters
that the function closes over work as without checkpointing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from minidl.autograd import is_grad_enabled, recorded_by
from minidl.autograd.node import Node, check_versions
from minidl.errors import GradientError, UnsupportedError
from minidl.ops.random import default_generator
from minidl.tensor import Tensor


class _Region:
    """One checkpointed call: the function, its arguments, and how many nodes it recorded."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict, keep_rng: bool) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        tensors = [x for x in (*args, *kwargs.values()) if type(x) is Tensor]
        self.guards = [part for x in tensors for part in (x.storage, x.storage.version)]
        self.rng = default_generator.get_state() if keep_rng else None
        self.count = 0
        self.found: list[Any] = []

    def strip(self, nodes: list[Any]) -> None:
        """Replace what the nodes keep by promises to compute it again."""
        self.count = len(nodes)
        for i, node in enumerate(ref() for ref in nodes):
            if node is not None and node.op.frees and node.saved is not None:
                node.saved, node.call = _Promise(self, i), None

    def compute(self) -> None:
        """Run the function again and collect what its nodes keep."""
        check_versions("checkpoint", self.guards)
        found: list[Node] = []
        now = default_generator.get_state() if self.rng is not None else None
        try:
            if self.rng is not None:
                default_generator.set_state(self.rng)
            # alone: a recorder that is active now is not to see these nodes
            with recorded_by(found.append, alone=True):
                self.function(*self.args, **self.kwargs)
        finally:
            if now is not None:
                default_generator.set_state(now)
        if len(found) != self.count:
            raise GradientError(
                f"the function recorded {self.count} operators in the forward pass and"
                f" {len(found)} when it was run again; it must be deterministic",
                operator="checkpoint",
            )
        self.found = found


class _Promise:
    """Stands for the saved values of one node of a region."""

    __slots__ = ("region", "index")

    def __init__(self, region: _Region, index: int) -> None:
        self.region, self.index = region, index

    def recompute(self, node: Node) -> tuple:
        """Give the node what it would have kept."""
        region = self.region
        if not region.found or region.found[self.index] is None:
            region.compute()
        again = region.found[self.index]
        region.found[self.index] = None
        node.saved, node.guards, node.call = again.saved, again.guards, again.call
        # a region inside of this one has stripped its nodes too
        return node.saved if type(node.saved) is tuple else node.saved.recompute(node)


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)` whose activations are computed again in the backward pass.

    The function must do the same when it is run again; random numbers of the default generator
    are drawn again (preserve_rng_state). Raises GradientError if it recorded something else, or if
    an argument was written in place since.
    """
    if use_reentrant:
        raise UnsupportedError("[checkpoint] use_reentrant=True: pass False, the results are equal")
    if not is_grad_enabled():
        return function(*args, **kwargs)
    region = _Region(function, args, kwargs, preserve_rng_state)
    nodes: list[Any] = []
    with recorded_by(lambda node: nodes.append(weakref.ref(node))):
        result = function(*args, **kwargs)
    region.strip(nodes)  # not before the end: the function may take gradients itself
    return result

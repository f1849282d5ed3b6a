"""Hooks of a module, and the calls around a forward pass that has any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minidl.autograd import Function, RemovableHandle
from minidl.errors import ArgumentError, DTypeError
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.nn.module import Module


class HookTable(dict[int, Any]):
    """Hooks by the id of their handle, in the order in which they run."""

    def add(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Append `hook` (or put it first) and return the handle that removes it."""
        handle = RemovableHandle(self)
        while handle.id in self:  # a module unpickled here brings the ids of another process
            handle = RemovableHandle(self)
        others = list(self.items()) if prepend else []
        if prepend:
            self.clear()
        self[handle.id] = hook
        self.update(others)
        return handle

    def __deepcopy__(self, memo: dict[int, Any]) -> HookTable:
        # The copied module runs the same functions, from a table of its own.
        return HookTable(self)


@dataclass
class ModuleHooks:
    """Every hook of one module; a module without hooks has no such object and pays nothing."""

    forward_pre: HookTable = field(default_factory=HookTable)
    forward: HookTable = field(default_factory=HookTable)
    backward_pre: HookTable = field(default_factory=HookTable)
    backward: HookTable = field(default_factory=HookTable)
    state_pre: HookTable = field(default_factory=HookTable)
    state_post: HookTable = field(default_factory=HookTable)
    load_pre: HookTable = field(default_factory=HookTable)
    load_post: HookTable = field(default_factory=HookTable)


def call_with_hooks(
    module: Module, hooks: ModuleHooks, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run `module.forward` between its hooks; what a hook returns, if not None, is used instead."""
    for hook, with_kwargs in list(hooks.forward_pre.values()):
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise ArgumentError(
                        "a hook with kwargs must return None or (args, kwargs)",
                        operator="forward_pre_hook",
                        got=type(changed).__name__,
                    )
                args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    watch = _BackwardWatch(module, hooks) if hooks.backward or hooks.backward_pre else None
    if watch is not None:
        args = watch.inputs(args)
    output = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(hooks.forward.values()):
        changed = hook(module, args, kwargs, output) if with_kwargs else hook(module, args, output)
        if changed is not None:
            output = changed
    return output if watch is None else watch.outputs(output)


class _BackwardWatch:
    """Stands on both sides of one forward pass and hands the gradients that cross to the hooks."""

    def __init__(self, module: Module, hooks: ModuleHooks) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: tuple[Tensor | None, ...] | None = None
        self.places: list[int] = []
        self.input_count = 0

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pass the tensors among `args` through a node that sees the gradients of the inputs."""
        self.input_count = len(args)
        found = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.requires_grad]
        if not found:
            return args
        self.places = found
        passed = _Crossing.apply(self.input_gradients, *(args[i] for i in found))
        replaced = list(args)
        for place, tensor in zip(found, passed, strict=True):
            replaced[place] = tensor
        return tuple(replaced)

    def outputs(self, output: Any) -> Any:
        """Pass the output through a node that sees the gradients of the outputs."""
        values = output if isinstance(output, tuple) else (output,)
        found = [i for i, x in enumerate(values) if isinstance(x, Tensor) and x.requires_grad]
        if not found:
            return output
        replaced = list(values)
        crossing = _Crossing.apply(
            lambda grads: self.output_gradients(grads, found, len(values)),
            *(values[i] for i in found),
        )
        for place, tensor in zip(found, crossing, strict=True):
            replaced[place] = tensor
        return tuple(replaced) if isinstance(output, tuple) else replaced[0]

    def output_gradients(
        self, grads: tuple[Tensor | None, ...], places: list[int], count: int
    ) -> tuple[Tensor | None, ...]:
        spread: list[Tensor | None] = [None] * count
        for place, grad in zip(places, grads, strict=True):
            spread[place] = grad
        grad_output = tuple(spread)
        for hook in list(self.hooks.backward_pre.values()):
            changed = hook(self.module, grad_output)
            if changed is not None:
                grad_output = _replaced(changed, count, "full_backward_pre_hook")
        self.grad_output = grad_output
        if not self.places:  # no input takes part: nothing further back will call the hooks
            self.run_backward((None,) * self.input_count)
        return tuple(grad_output[i] for i in places)

    def input_gradients(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        spread: list[Tensor | None] = [None] * self.input_count
        for place, grad in zip(self.places, grads, strict=True):
            spread[place] = grad
        if self.grad_output is None:  # they came past the output, which holds no tensor
            return grads
        changed = self.run_backward(tuple(spread))
        return tuple(changed[i] for i in self.places)

    def run_backward(self, grad_input: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for hook in list(self.hooks.backward.values()):
            changed = hook(self.module, grad_input, self.grad_output)
            if changed is not None:
                grad_input = _replaced(changed, len(grad_input), "full_backward_hook")
        self.grad_output = None
        return grad_input


def _replaced(grads: Any, count: int, name: str) -> tuple[Tensor | None, ...]:
    grads = grads if isinstance(grads, tuple) else (grads,)
    if len(grads) != count:
        raise ArgumentError(
            f"the hook must return {count} gradients", operator=name, got=str(len(grads))
        )
    for grad in grads:
        if grad is not None and not isinstance(grad, Tensor):
            raise DTypeError(
                "the hook must return Tensors or None", operator=name, got=type(grad).__name__
            )
    return grads


class _Crossing(Function):
    """Identity on several tensors at once, so that one call sees all their gradients together."""

    @staticmethod
    def forward(ctx: Any, on_gradients: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.on_gradients = on_gradients
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.on_gradients(grads)

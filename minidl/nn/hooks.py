"""Hooks: of one module and of all, and the calls around a forward pass that has any."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from minidl.autograd import Function, RemovableHandle
from minidl.errors import ArgumentError, DTypeError, UnsupportedError
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


class GlobalTable(HookTable):
    """Hooks of all modules; while there are any, no module is called without looking for them."""

    def add(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Append `hook`, and from now on call every module with hooks."""
        Hooked._hooks = GLOBAL
        return super().add(hook, prepend)

    def pop(self, *args: Any) -> Any:
        """Remove a hook; with the last one, modules without hooks are called as before."""
        hook = super().pop(*args)
        if not any(GLOBAL.calls()):
            Hooked._hooks = None
        return hook


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

    def calls(self) -> tuple[HookTable, HookTable, HookTable, HookTable]:
        """The tables that a call of the module looks into."""
        return self.forward_pre, self.forward, self.backward_pre, self.backward

    def with_global(self, table: str) -> list[Any]:
        """The hooks of all modules, then those of this one."""
        return [*getattr(GLOBAL, table).values(), *getattr(self, table).values()]


GLOBAL = ModuleHooks(GlobalTable(), GlobalTable(), GlobalTable(), GlobalTable())
# hooks that see (and may replace) what any module registers
REGISTERED = {kind: HookTable() for kind in ("parameter", "buffer", "module")}
NONE = ModuleHooks()


class ForwardHook(NamedTuple):
    """A hook around `forward` and how it is called; `always` also where forward fails."""

    run: Callable[..., Any]
    with_kwargs: bool = False
    always: bool = False

    def after(self, module: Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Hand the hook an output and return what is used from here on."""
        if self.with_kwargs:
            changed = self.run(module, args, kwargs, output)
        else:
            changed = self.run(module, args, output)
        return output if changed is None else changed


def pre_hook_of(module: Any, kind: type, name: str) -> tuple[int, Any] | None:
    """The module's hook of this class (or a subclass) for the tensor `name`, with its id."""
    own = module.__dict__.get("_hooks", NONE)
    for key, hook in own.forward_pre.items():
        if isinstance(hook.run, kind) and getattr(hook.run, "name", None) == name:
            return key, hook.run
    return None


class Hooked:
    """What registers hooks: the base of every module."""

    # The module's own, once it has any; until then the class's, which hooks of all modules set.
    _hooks: ModuleHooks | None = None

    def _hook_tables(self) -> ModuleHooks:
        return self.__dict__.setdefault("_hooks", ModuleHooks())

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args[, kwargs])` before forward; its result replaces the arguments."""
        return self._hook_tables().forward_pre.add(ForwardHook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args[, kwargs], output)` after forward; a result is used instead.

        With `always_call` it is called, too, where forward or another hook raises: with the
        output that there is by then, or None; what it raises itself becomes a warning there.
        """
        return self._hook_tables().forward.add(ForwardHook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the outputs are there."""
        return self._hook_tables().backward_pre.add(hook, prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the inputs are there.

        A result that is not None replaces grad_input. Only positional tensor arguments are seen.
        """
        return self._hook_tables().backward.add(hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Refused: its gradients were those of the last operator, not of the module."""
        raise UnsupportedError(
            "deprecated by PyTorch and not supported; use register_full_backward_hook instead",
            operator="register_backward_hook",
        )

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before this module's state is collected."""
        return self._hook_tables().state_pre.add(hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` once the state is collected.

        The hook changes state_dict in place and returns None.
        """
        return self._hook_tables().state_post.add((hook, True))

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """As register_state_dict_post_hook, of old: what the hook returns replaces state_dict."""
        return self._hook_tables().state_post.add((hook, False))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook` before this module reads its state.

        Arguments: module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs; the hook may rename entries of state_dict in place.
        """
        return self._hook_tables().load_pre.add((hook, True))

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        """As register_load_state_dict_pre_hook, of old: the hook does without the module."""
        return self._hook_tables().load_pre.add((hook, with_module))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading; it may edit the two lists."""
        return self._hook_tables().load_post.add(hook)


def call_with_hooks(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `module.forward` between its hooks; what a hook returns, if not None, is used instead."""
    own = module.__dict__.get("_hooks", NONE)
    output = None
    called: list[ForwardHook] = []
    try:
        for hook in own.with_global("forward_pre"):
            args, kwargs = _before(hook, module, args, kwargs)
        watch = _BackwardWatch.over(module, own)
        if watch is not None:
            args = watch.inputs(args)
        output = module.forward(*args, **kwargs)
        for hook in own.with_global("forward"):
            called.append(hook)
            output = hook.after(module, args, kwargs, output)
        return output if watch is None else watch.outputs(output)
    except Exception:
        for hook in own.with_global("forward"):
            if hook.always and not any(hook is other for other in called):
                try:
                    output = hook.after(module, args, kwargs, output)
                except Exception as error:
                    warnings.warn(
                        "[forward_hook] a hook with always_call=True raised while another error "
                        f"was on its way: {error}",
                        stacklevel=2,
                    )
        raise


def _before(
    hook: ForwardHook, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not hook.with_kwargs:
        changed = hook.run(module, args)
        if changed is not None:
            args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs
    changed = hook.run(module, args, kwargs)
    if changed is None:
        return args, kwargs
    if not (isinstance(changed, tuple) and len(changed) == 2):
        raise ArgumentError(
            "a hook with kwargs must return None or (args, kwargs)",
            operator="forward_pre_hook",
            got=type(changed).__name__,
        )
    return changed


class _BackwardWatch:
    """Stands on both sides of one forward pass and hands the gradients that cross to the hooks."""

    def __init__(self, module: Module, hooks: ModuleHooks) -> None:
        self.module, self.hooks = module, hooks
        self.grad_output: tuple[Tensor | None, ...] | None = None
        self.places: list[int] = []
        self.input_count = 0

    @classmethod
    def over(cls, module: Module, own: ModuleHooks) -> _BackwardWatch | None:
        """A watch over this call, if there is a hook that wants its gradients."""
        wanted = own.with_global("backward_pre") or own.with_global("backward")
        return cls(module, own) if wanted else None

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
        if hasattr(output, "_fields"):
            return type(output)(*replaced)
        return tuple(replaced) if isinstance(output, tuple) else replaced[0]

    def output_gradients(
        self, grads: tuple[Tensor | None, ...], places: list[int], count: int
    ) -> tuple[Tensor | None, ...]:
        spread: list[Tensor | None] = [None] * count
        for place, grad in zip(places, grads, strict=True):
            spread[place] = grad
        grad_output = tuple(spread)
        for hook in self.hooks.with_global("backward_pre"):
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
        for hook in self.hooks.with_global("backward"):
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

"""Module: the base of every layer and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from minidl.errors import ArgumentError, MinidlError, UnsupportedError
from minidl.nn.hooks import call_with_hooks
from minidl.nn.moving import Movable
from minidl.nn.state import Stateful
from minidl.ops import training

ModuleT = TypeVar("ModuleT", bound="Module")


class Module(Stateful, Movable):
    """Base of all layers and models.

    Assigning a Parameter or a Module to an attribute registers it; `forward` is the computation and
    is reached by calling the module.
    """

    training: bool
    T_destination = TypeVar("T_destination", bound=dict[str, Any])  # PyTorch's, for annotations

    # Calling -------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's output; every subclass defines it."""
        self._require_init("the module is called")
        raise NotImplementedError(
            f"[{type(self).__name__}] a module that is called must define forward"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` between the hooks; an error of the engine gains the module's path."""
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return call_with_hooks(self, args, kwargs)
        except MinidlError as error:
            self._locate(error)
            raise

    def _locate(self, error: MinidlError) -> None:
        """Name in `error` the innermost module that failed, as seen from this one."""
        if error.module is None:
            error.module = self
            return
        for name, module in self.named_modules():
            if module is error.module:
                error.path = name
                return

    # Modes and gradients -------------------------------------------------------------------------

    def apply(self: ModuleT, fn: Callable[[Module], Any]) -> ModuleT:
        """Call `fn` on every module, children before parents; for initialising weights."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self: ModuleT, mode: bool = True) -> ModuleT:
        """Set training mode here and below (dropout draws, for example)."""
        if not isinstance(mode, bool):
            raise ArgumentError("mode must be a bool", operator="train", got=repr(mode))
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: ModuleT) -> ModuleT:
        """Set evaluation mode: `train(False)`."""
        return self.train(False)

    def requires_grad_(self: ModuleT, requires_grad: bool = True) -> ModuleT:
        """Freeze or thaw all parameters."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        training.clear_grads(self.parameters(), set_to_none)

    def unused_parameters(self) -> list[str]:
        """Names of the parameters that want a gradient and have none: what no backward reached.

        To be asked after a backward whose step started from `zero_grad()`, which drops the
        gradients; those filled with zeros (`set_to_none=False`) count as reached. Frozen
        parameters are not named; one that modules share is named once, as in named_parameters.
        """
        return [name for name, p in self.named_parameters() if p.requires_grad and p.grad is None]

    # Left out ------------------------------------------------------------------------------------

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Refused: there is no compiler, modules run as they are written."""
        raise UnsupportedError(
            "modules run without being compiled; leave the call out", operator="compile"
        )

    def share_memory(self: ModuleT) -> ModuleT:
        """Refused: processes do not share a module's memory."""
        raise UnsupportedError(
            "the memory of a module is not shared; send its state_dict() to the other process",
            operator="share_memory",
        )

    # Printing ------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return the settings shown between the parentheses of the module's repr."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        """Show the tree of modules, one line each, in PyTorch's form."""
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [(name, repr(self.__dict__[name])) for name in self._module_names]
        return tree_repr(self._get_name(), lines, children)


# `forward` of the classes that an operator may stand in for
FORWARDS: dict[type[Module], Any] = {}


def is_watched(module: Module) -> bool:
    """Whether the module must be called: it has hooks, or another `forward` than in FORWARDS."""
    kind = type(module)
    known = kind.forward is FORWARDS.get(kind) and "forward" not in module.__dict__
    return not known or module._hooks is not None


def tree_repr(head: str, lines: list[str], children: list[tuple[str, str]]) -> str:
    """Join a module's own lines and the representations of its children, indented by two."""
    if not children and len(lines) <= 1:
        return f"{head}({''.join(lines)})"
    lines = lines + [f"({name}): {text}" for name, text in children]
    body = "".join(f"{line}\n" for line in lines).replace("\n", "\n  ").rstrip(" ")
    return f"{head}(\n  {body})"

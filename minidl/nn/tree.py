"""The tree behind every model: named parameters, buffers and submodules, and walks over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minidl.errors import ArgumentError, DTypeError
from minidl.nn.hooks import REGISTERED, Hooked
from minidl.tensor import Parameter, Tensor

if TYPE_CHECKING:
    from minidl.nn.module import Module


class Tree(Hooked):
    """What a Module registers, and where it is found again.

    Values live in the instance's `__dict__` only, so that reading an attribute costs nothing
    extra; three ordered tables of names say which of them are parameters, buffers (with their
    persistence) and submodules.
    """

    _parameter_names: dict[str, None]
    _buffer_names: dict[str, bool]
    _module_names: dict[str, None]

    # Whether the arguments of __init__ go on to the next class in line, for a second base class.
    call_super_init: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            raise TypeError(
                f"[{type(self).__name__}] Module.__init__ takes no arguments unless the class sets "
                f"call_super_init = True, got {len(args)} by position and {sorted(kwargs)}"
            )
        # Written past __setattr__, which consults the very tables that are made here.
        self.__dict__.update(training=True, _parameter_names={}, _buffer_names={}, _module_names={})
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    # Registration --------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Register parameters and submodules, check values of registered names, store the rest."""
        if isinstance(value, Tensor) and value.is_parameter:
            self._require_init("parameters are assigned")
            self._forget(name, keep=self._parameter_names)
            self.register_parameter(name, value)
        elif isinstance(value, Tree):
            self._require_init("submodules are assigned")
            if name in self._parameter_names:
                self._check_plain(name, value)
            value = _seen("module", self, name, value)
            self._forget(name, keep=self._module_names)
            self._module_names[name] = None
            self.__dict__[name] = value
        else:
            self._check_plain(name, value)
            object.__setattr__(self, name, value)

    if not TYPE_CHECKING:  # type checkers go on reporting misspelt attributes

        def __getattr__(self, name: str) -> Any:
            """Explain why an attribute is missing; one that exists never comes here."""
            self._require_init("the module is used")
            # Looked up again for Python's own message, or that of a property which failed inside.
            return object.__getattribute__(self, name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes of a pickled or copied module.

        Written out so that a subclass whose own `__getattr__` reads an attribute is not asked for
        this method while it has none yet.
        """
        self.__dict__.update(state)

    def __delattr__(self, name: str) -> None:
        """Remove an attribute, registered or not."""
        object.__delattr__(self, name)
        self._forget(name, keep=None)

    def _require_init(self, what: str) -> None:
        if "_module_names" not in self.__dict__:
            raise AttributeError(
                f"[{type(self).__name__}] super().__init__() must run before {what}"
            )

    def _forget(self, name: str, keep: dict[str, Any] | None) -> None:
        for names in (self._parameter_names, self._buffer_names, self._module_names):
            if names is not keep:
                names.pop(name, None)

    def _check_plain(self, name: str, value: Any) -> None:
        """Refuse a value that would silently take a registered tensor or module out of the tree."""
        own = self.__dict__
        if value is None or "_module_names" not in own:
            return
        if name in own["_parameter_names"]:
            wanted = "parameter and takes a Parameter"
        elif name in own["_module_names"]:
            wanted = "submodule and takes a Module"
        elif name in own["_buffer_names"] and not isinstance(value, Tensor):
            wanted = "buffer and takes a Tensor"
        else:
            return
        raise DTypeError(
            f"'{name}' is a registered {wanted} or None",
            operator=type(self).__name__,
            got=type(value).__name__,
        )

    def _check_new_name(self, kind: str, name: Any, names: dict[str, Any]) -> None:
        self._require_init(f"{kind}s are assigned")
        if not isinstance(name, str):
            raise TypeError(f"[register_{kind}] name must be a string, got {type(name).__name__}")
        if not name or "." in name:
            raise KeyError(
                f"[register_{kind}] name must not be empty or contain a dot, got '{name}'"
            )
        if name not in names and hasattr(self, name):
            raise KeyError(f"[register_{kind}] attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Tensor | None) -> None:
        """Add a parameter under `name`; None reserves the name (a layer without bias)."""
        if name not in self.__dict__:  # assignment over a plain attribute is allowed, as in torch
            self._check_new_name("parameter", name, self._parameter_names)
        if param is not None:
            if not isinstance(param, Parameter):
                raise DTypeError(
                    f"the value of '{name}' must be a Parameter or None",
                    operator="register_parameter",
                    got=type(param).__name__,
                )
            if not param.is_leaf:
                raise ArgumentError(
                    f"a parameter must be a leaf, '{name}' is the result of an operator; "
                    "wrap its .detach() instead",
                    operator="register_parameter",
                )
            param = _seen("parameter", self, name, param)
        self._parameter_names[name] = None
        self.__dict__[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that moves and is saved with the module but is not trained."""
        self._check_new_name("buffer", name, self._buffer_names)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise DTypeError(
                f"the value of '{name}' must be a Tensor or None",
                operator="register_buffer",
                got=type(tensor).__name__,
            )
        self.__dict__[name] = _seen("buffer", self, name, tensor)
        self._buffer_names[name] = persistent

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`."""
        self._check_new_name("module", name, self._module_names)
        if module is not None and not isinstance(module, Tree):
            raise DTypeError(
                f"the value of '{name}' must be a Module or None",
                operator="register_module",
                got=type(module).__name__,
            )
        self.__dict__[name] = _seen("module", self, name, module)
        self._module_names[name] = None

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`."""
        self.register_module(name, module)

    # Walking the tree ----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) of the direct submodules, each module once."""
        seen: set[Module] = set()
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct submodules."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (dotted path, module) of this module and all below it, parents first."""
        memo = set() if memo is None else memo
        module: Any = self
        if module in memo:
            return
        if remove_duplicate:
            memo.add(module)
        yield prefix, module
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """Yield this module and all below it."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def _named_tensors(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        else:
            modules = iter(((prefix, self),))
        for path, module in modules:
            for name in getattr(module, table):
                tensor = module.__dict__[name]
                if tensor is None or id(tensor) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, parameter); a parameter that modules share comes once."""
        return self._named_tensors("_parameter_names", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the parameters of this module and, with `recurse`, of all below it."""
        return (tensor for _, tensor in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer), persistent or not."""
        return self._named_tensors("_buffer_names", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers of this module and, with `recurse`, of all below it."""
        return (tensor for _, tensor in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """Return the module at the dotted path `target`; AttributeError if there is none."""
        module: Any = self
        for name in target.split(".") if target else ():
            if name not in module._module_names or module.__dict__[name] is None:
                raise AttributeError(
                    f"[get_submodule] {type(module).__name__} has no submodule '{name}', "
                    f"wanted '{target}'"
                )
            module = module.__dict__[name]
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put `module` at the dotted path `target`, in the place of the one that is there.

        Raises AttributeError where something else than a module is there or, with `strict`,
        nothing; a `target` of "" and what is no module are ValueErrors.
        """
        path, _, name = target.rpartition(".")
        if not name:
            raise ArgumentError("target must not be empty", operator="set_submodule")
        if not isinstance(module, Tree):
            raise ArgumentError(
                "module must be a Module", operator="set_submodule", got=type(module).__name__
            )
        parent = self.get_submodule(path)
        there = getattr(parent, name, None) if not strict else getattr(parent, name)
        if hasattr(parent, name) and not isinstance(there, Tree):
            raise AttributeError(f"[set_submodule] '{target}' is not a module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Tensor:
        """Return the parameter at the dotted path `target`; AttributeError if there is none."""
        return self._get_tensor(target, "parameter", "_parameter_names")

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer at the dotted path `target`; AttributeError if there is none."""
        return self._get_tensor(target, "buffer", "_buffer_names")

    def _get_tensor(self, target: str, kind: str, table: str) -> Tensor:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module.__dict__[table] or module.__dict__[name] is None:
            raise AttributeError(
                f"[get_{kind}] {type(module).__name__} has no {kind} '{name}', wanted '{target}'"
            )
        return module.__dict__[name]


def _seen(kind: str, module: Tree, name: str, value: Any) -> Any:
    """Show what is registered to the hooks of all modules; what they return is used instead."""
    for hook in list(REGISTERED[kind].values()):
        changed = hook(module, name, value)
        value = value if changed is None else changed
    return value

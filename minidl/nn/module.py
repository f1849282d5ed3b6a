"""Module: the tree of parameters, buffers and submodules that every model is."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import minidl.dtypes as dtypes
from minidl.autograd import RemovableHandle, no_grad
from minidl.errors import ArgumentError, DTypeError, MinidlError, UnsupportedError
from minidl.nn.hooks import ModuleHooks, call_with_hooks
from minidl.nn.state import IncompatibleKeys, fitted, with_shapes
from minidl.ops import training
from minidl.tensor import Parameter, Tensor, as_device

ModuleT = TypeVar("ModuleT", bound="Module")


class Module:
    """Base of all layers and models.

    Assigning a Parameter or a Module to an attribute registers it; `forward` is the computation and
    is reached by calling the module. Values live in the instance's `__dict__` only, so that reading
    an attribute costs nothing extra; three ordered tables of names say which of them are
    parameters, buffers (with their persistence) and submodules.
    """

    _version: int = 1
    training: bool
    _parameter_names: dict[str, None]
    _buffer_names: dict[str, bool]
    _module_names: dict[str, None]
    _hooks: ModuleHooks | None

    def __init__(self) -> None:
        # Written past __setattr__, which consults the very tables that are made here.
        self.__dict__.update(
            training=True,
            _parameter_names={},
            _buffer_names={},
            _module_names={},
            _hooks=None,
        )

    # Calling -------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's output; every subclass defines it."""
        raise NotImplementedError(
            f"[{type(self).__name__}] a module that is called must define forward"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` between the hooks; an error of the engine gains the module's path."""
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return call_with_hooks(self, self._hooks, args, kwargs)
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

    # Registration --------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Register parameters and submodules, check values of registered names, store the rest."""
        if type(value) is Tensor and value.is_parameter:
            self._require_init("parameters are assigned")
            self._forget(name, keep=self._parameter_names)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._require_init("submodules are assigned")
            if name in self._parameter_names:
                self._check_plain(name, value)
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
        self._buffer_names[name] = persistent
        self.__dict__[name] = tensor

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`."""
        self._check_new_name("module", name, self._module_names)
        if module is not None and not isinstance(module, Module):
            raise DTypeError(
                f"the value of '{name}' must be a Module or None",
                operator="register_module",
                got=type(module).__name__,
            )
        self._module_names[name] = None
        self.__dict__[name] = module

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
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
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
        module = self
        for name in target.split(".") if target else ():
            if name not in module._module_names or module.__dict__[name] is None:
                raise AttributeError(
                    f"[get_submodule] {type(module).__name__} has no submodule '{name}', "
                    f"wanted '{target}'"
                )
            module = module.__dict__[name]
        return module

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

    # State ---------------------------------------------------------------------------------------

    def get_extra_state(self) -> Any:
        """Return what a subclass wants saved beside its tensors; defining it turns it on."""
        raise NotImplementedError(f"[{type(self).__name__}] get_extra_state is not defined")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise NotImplementedError(f"[{type(self).__name__}] set_extra_state is not defined")

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Module.get_extra_state

    def _saved_names(self) -> Iterator[str]:
        """Names of the parameters and persistent buffers that hold a tensor."""
        persistent = (name for name, keep in self._buffer_names.items() if keep)
        for name in itertools.chain(self._parameter_names, persistent):
            if self.__dict__[name] is not None:
                yield name

    def state_dict(
        self,
        *,
        destination: Any = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> OrderedDict[str, Any]:
        """Return all parameters and persistent buffers by dotted name; the tensors share storage.

        `keep_vars=True` gives the parameters themselves instead of detached views.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        hooks = self._hooks or ModuleHooks()
        for hook in list(hooks.state_pre.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in list(hooks.state_post.values()):
            hook(self, destination, prefix, metadata)
        return destination

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Write this module's own entries; a subclass may override it to add others."""
        for name in self._saved_names():
            tensor = self.__dict__[name]
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_extra_state():
            destination[f"{prefix}_extra_state"] = self.get_extra_state()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy tensors (or NumPy arrays) by name into this module.

        With `assign=True` the given tensors become the module's own instead. Nothing is written
        unless everything fits: otherwise raises RuntimeError that lists every wrong shape and, if
        `strict`, every missing and unexpected name.
        """
        if not isinstance(state_dict, Mapping) or not all(isinstance(k, str) for k in state_dict):
            raise DTypeError(
                "state_dict must be a mapping from names to tensors",
                operator="load_state_dict",
                got=type(state_dict).__name__,
            )
        metadata = getattr(state_dict, "_metadata", {})
        # A shallow copy: load hooks rename entries, and the caller's mapping must stay as it is.
        state = OrderedDict(state_dict)
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        writes: list[Callable[[], Any]] = []
        for path, module in list(self.named_modules(remove_duplicate=False)):
            prefix = f"{path}." if path else ""
            saved = metadata.get(path, {})
            local = dict(saved, assign_to_params_buffers=assign, writes=writes)
            arguments = (state, prefix, local, strict, missing, unexpected, errors)
            for hook in list((module._hooks or ModuleHooks()).load_pre.values()):
                hook(module, *arguments)
            module._load_from_state_dict(*arguments)

        def problems() -> list[str]:
            found = []
            if strict and missing:
                found.append(f"missing keys: {with_shapes(missing, self.state_dict())}")
            if strict and unexpected:
                found.append(f"unexpected keys: {with_shapes(unexpected, state)}")
            return found + errors

        def write_all() -> None:
            for write in writes:
                write()
            writes.clear()

        # The hooks may read what was loaded; where names are wrong, they may yet forgive them.
        if not problems():
            write_all()
        result = IncompatibleKeys(missing, unexpected)
        for module in list(self.modules()):
            for hook in list((module._hooks or ModuleHooks()).load_post.values()):
                hook(module, result)
        if found := problems():
            listed = "\n  ".join([f"{type(self).__name__} does not fit the state:", *found])
            raise MinidlError(listed, operator="load_state_dict")
        write_all()
        return result

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Read this module's own entries, report what does not fit; subclasses may override it.

        What is to be written goes to `local_metadata["writes"]`, as functions to call later.
        """
        assign = local_metadata["assign_to_params_buffers"]
        writes = local_metadata["writes"]
        saved = list(self._saved_names())
        for name in saved:
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            value = fitted(state_dict[key], self.__dict__[name], assign)
            if isinstance(value, str):
                error_msgs.append(f"{key}: {value}")
            else:
                writes.append(partial(self._load_tensor, name, value, assign))
        extra = f"{prefix}_extra_state"
        if self._has_extra_state():
            if extra in state_dict:
                writes.append(partial(self.set_extra_state, state_dict[extra]))
            else:
                missing_keys.append(extra)
            saved.append("_extra_state")
        children = {name for name in self._module_names if self.__dict__[name] is not None}
        for key in state_dict:
            if key.startswith(prefix):
                # Keys below a submodule are judged by the submodule.
                name, _, below = key[len(prefix) :].partition(".")
                if name not in (children if below else saved):
                    unexpected_keys.append(key)

    def _load_tensor(self, name: str, value: Tensor, assign: bool) -> None:
        if assign:
            if name in self._parameter_names:
                value.requires_grad_(self.__dict__[name].requires_grad)
            self.__dict__[name] = value
        else:
            with no_grad():
                self.__dict__[name].copy_(value)

    # Changing the tree ---------------------------------------------------------------------------

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

    def _apply(self: ModuleT, fn: Callable[[Tensor], Tensor]) -> ModuleT:
        """Replace the data of every parameter, its gradient and every buffer by `fn` of it.

        Parameters stay the same objects, so an optimiser that holds them goes on working.
        """
        with no_grad():
            for module in self.modules():
                own = module.__dict__
                for name in module._parameter_names:
                    param = own[name]
                    if param is None:
                        continue
                    # Both are made before either is replaced: a failure loses no gradient.
                    data = fn(param.data)
                    grad = None if param.grad is None else fn(param.grad)
                    param.data = data
                    param.grad = grad
                for name in module._buffer_names:
                    if own[name] is not None:
                        own[name] = fn(own[name])
        return self

    def to(self: ModuleT, *args: Any, **kwargs: Any) -> ModuleT:
        """Move to a device and/or cast floating tensors: `to(device)`, `to(dtype)`, `to(tensor)`.

        Raises TypeError if the dtype is not a floating one.
        """
        device, dtype = _parse_to(*args, **kwargs)
        if dtype is not None and not dtype.is_floating_point:
            raise DTypeError(
                "a module is cast to floating point dtypes only", operator="to", got=repr(dtype)
            )

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

        return self._apply(move)

    def type(self: ModuleT, dst_type: Any) -> ModuleT:
        """Cast every parameter and buffer, whatever its kind, to `dst_type`."""
        return self._apply(lambda tensor: tensor.to(dtype=dst_type))

    def float(self: ModuleT) -> ModuleT:
        """Cast floating tensors to float32."""
        return self.to(dtypes.float32)

    def double(self: ModuleT) -> ModuleT:
        """Cast floating tensors to float64."""
        return self.to(dtypes.float64)

    def half(self: ModuleT) -> ModuleT:
        """Cast floating tensors to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self: ModuleT) -> ModuleT:
        """Cast floating tensors to bfloat16."""
        return self.to(dtypes.bfloat16)

    def cpu(self: ModuleT) -> ModuleT:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self: ModuleT, device: Any = None) -> ModuleT:
        """Move to a GPU."""
        return self.to("cuda" if device is None else device)

    # Hooks ---------------------------------------------------------------------------------------

    def _hook_tables(self) -> ModuleHooks:
        if self._hooks is None:
            self._hooks = ModuleHooks()
        return self._hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args[, kwargs])` before forward; its result replaces the arguments."""
        return self._hook_tables().forward_pre.add((hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args[, kwargs], output)` after forward; a result is used instead."""
        if always_call:
            raise UnsupportedError(
                "always_call=True is not supported; wrap the call in try/finally instead",
                operator="register_forward_hook",
            )
        return self._hook_tables().forward.add((hook, with_kwargs), prepend)

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

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before this module's state is collected."""
        return self._hook_tables().state_pre.add(hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` once the state is collected."""
        return self._hook_tables().state_post.add(hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook` before this module reads its state.

        Arguments: module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs; the hook may rename entries of state_dict in place.
        """
        return self._hook_tables().load_pre.add(hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after loading; it may edit the two lists."""
        return self._hook_tables().load_post.add(hook)

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


def _parse_to(
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    memory_format: Any = None,
) -> tuple[Any, Any]:
    """Sort the arguments of `to` into (device, dtype); `non_blocking` changes nothing."""
    if memory_format is not None:
        raise UnsupportedError(
            "memory_format is not supported; arrays are row-major", operator="to"
        )
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, dtypes.DType):
            dtype = arg
        elif not isinstance(arg, bool) and arg is not None:
            device = arg
    return as_device(device), None if dtype is None else dtypes.dtype_of(dtype)

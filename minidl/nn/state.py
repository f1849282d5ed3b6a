"""The state of a module: its tensors by name, saved and loaded."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.errors import ArgumentError, DTypeError, MinidlError
from minidl.nn.hooks import NONE
from minidl.nn.parameter import is_lazy
from minidl.nn.tree import Tree
from minidl.tensor import Parameter, Tensor


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` could not match: names without a value, and names without a place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


def fitted(value: Any, tensor: Tensor, assign: bool) -> Tensor | str:
    """Return `value` in the form in which it replaces `tensor`, or say why it cannot.

    `value`: a Tensor or a NumPy array of the tensor's shape; the dtypes may differ. With `assign`
    it becomes a Parameter where `tensor` is one. Nothing is written.
    """
    try:
        if isinstance(value, np.ndarray):
            value = ops.from_numpy(np.array(value) if assign else value)
        if not isinstance(value, Tensor):
            return f"value must be a Tensor or a NumPy array, got {type(value).__name__}"
        if is_lazy(tensor) or is_lazy(value):
            known = is_lazy(value) and not is_lazy(tensor)
            return "the saved value is not initialised, the model's is" if known else value
        if value.shape != tensor.shape:
            return (
                f"size mismatch, the saved shape is {tuple(value.shape)}, "
                f"the model's is {tuple(tensor.shape)}"
            )
        if assign and isinstance(tensor, Parameter) and not isinstance(value, Parameter):
            value = Parameter(value.detach(), requires_grad=tensor.requires_grad)
    except MinidlError as error:
        return str(error)
    return value


def with_shapes(names: Iterable[str], state: Mapping[str, Any]) -> str:
    """List names, each with the shape of its value in `state` if it has one."""
    values: list[Any] = [state.get(name) for name in names]
    return ", ".join(
        f"{name} {tuple(value.shape)}" if not is_lazy(value) and hasattr(value, "shape") else name
        for name, value in zip(names, values, strict=True)
    )


class Stateful(Tree):
    """Saving and loading of a module's tensors by name."""

    _version: int = 1

    def get_extra_state(self) -> Any:
        """Return what a subclass wants saved beside its tensors; defining it turns it on."""
        raise NotImplementedError(f"[{type(self).__name__}] get_extra_state is not defined")

    def set_extra_state(self, state: Any) -> None:
        """Take back what `get_extra_state` returned."""
        raise NotImplementedError(f"[{type(self).__name__}] set_extra_state is not defined")

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Stateful.get_extra_state

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
        hooks = self._hooks or NONE
        for hook in list(hooks.state_pre.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._module_names:
            module = self.__dict__[name]
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        result = destination
        for hook, in_place in list(hooks.state_post.values()):
            changed = hook(self, result, prefix, metadata)
            if in_place and changed is not None:
                raise ArgumentError(
                    "a hook changes the state in place and must return None",
                    operator="state_dict_post_hook",
                    got=type(changed).__name__,
                )
            result = result if changed is None else changed
        return result

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
            # strict is True as in PyTorch: what is missing or unexpected is always listed
            arguments = (state, prefix, local, True, missing, unexpected, errors)
            for hook, with_module in list((module._hooks or NONE).load_pre.values()):
                hook(module, *arguments) if with_module else hook(*arguments)
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
            for hook in list((module._hooks or NONE).load_post.values()):
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
        elif not is_lazy(value):
            tensor = self.__dict__[name]
            if is_lazy(tensor):
                tensor.materialize(value.shape)
            with no_grad():
                tensor.copy_(value)

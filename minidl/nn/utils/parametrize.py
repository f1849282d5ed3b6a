"""Parametrisations: a tensor of a module computed, at each use, from others that are trained.

`register_parametrization` turns the tensor into a property of a class made for the module, and
keeps what it is computed from under `module.parametrizations.NAME`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from minidl.autograd import no_grad
from minidl.errors import ArgumentError, MinidlError, ShapeError
from minidl.nn.containers import ModuleDict, ModuleList
from minidl.nn.module import Module
from minidl.tensor import Parameter, Tensor

ModuleT = TypeVar("ModuleT", bound=Module)


class _Cache:
    """What parametrised tensors were computed inside `cached()`, by module and name."""

    def __init__(self) -> None:
        self.depth = 0
        self.values: dict[tuple[int, str], Tensor] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrised tensor once inside, however often it is used.

    Values are forgotten where the outermost block ends. Meant for one thread.
    """
    _cache.depth += 1
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values.clear()


def _is_like(name: str, value: Any, original: Tensor) -> None:
    """Refuse what is no tensor of the original's shape and dtype."""
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"{name} must be a Tensor", operator="parametrize", got=str(type(value))
        )
    if value.dtype is not original.dtype:
        raise ArgumentError(
            f"{name} must have its dtype, {original.dtype}; unsafe=True admits others",
            operator="parametrize",
            got=repr(value.dtype),
        )
    if value.shape != original.shape:
        raise ShapeError(
            f"{name} must have its shape, {original.shape}; unsafe=True admits others",
            operator="parametrize",
            got=str(value.shape),
        )


def _inverse(module: Any, value: Any) -> Any:
    """What the parametrisation computes `value` from; `value` itself where it does not say."""
    if not hasattr(module, "right_inverse"):
        return value
    try:
        return module.right_inverse(value)
    except MinidlError:
        raise
    except NotImplementedError:
        return value


def _add_tensor(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrisations of one tensor, in order, and what the first of them takes.

    `original` is the tensor that was parametrised, or `original0`, `original1`, ... where the
    right inverse of the first parametrisation gives several.
    """

    original: Tensor

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ArgumentError("there must be a module", operator="ParametrizationList")
        super().__init__(modules)
        self.unsafe = unsafe
        before = original.data  # this array, whatever `original` holds below
        value: Any = original
        with no_grad():
            for module in reversed(list(modules)):
                value = _inverse(module, value)
        if not isinstance(value, Tensor | list | tuple):
            raise ArgumentError(
                "right_inverse must return a Tensor or a sequence of Tensors",
                operator="parametrize",
                got=type(value).__name__,
            )
        self.is_tensor = isinstance(value, Tensor)
        self.ntensors = 1 if isinstance(value, Tensor) else len(value)
        if isinstance(value, Tensor):
            if value.dtype is not original.dtype:
                raise ArgumentError(
                    "right_inverse must keep the dtype of a single tensor",
                    operator="parametrize",
                    got=f"{value.dtype}, {original.dtype}",
                )
            original.data = value.data
            _add_tensor(self, "original", original)
        else:
            for i, part in enumerate(value):
                if not isinstance(part, Tensor):
                    raise ArgumentError(
                        "right_inverse must return Tensors",
                        operator="parametrize",
                        got=type(part).__name__,
                    )
                if isinstance(original, Parameter):
                    part = Parameter(part.detach(), original.requires_grad)
                _add_tensor(self, f"original{i}", part)
        if not unsafe:
            try:
                _is_like("the parametrisation of a tensor", self(), before)
            except Exception:
                original.data = before
                raise

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Any) -> None:
        """Set the originals so that the tensor computed from them is `value`.

        Calls the `right_inverse` of the parametrisations, last first; ArgumentError (a
        RuntimeError and ValueError) where one has none or gives something that does not fit.
        """
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise ArgumentError(
                        f"{type(module).__name__} has no right_inverse: the tensor cannot be set",
                        operator="parametrize",
                    )
                value = module.right_inverse(value)
            values = [value] if self.is_tensor else value
            if not isinstance(values, list | tuple) or len(values) != self.ntensors:
                raise ArgumentError(
                    f"right_inverse must return {self.ntensors} tensors, as it did first",
                    operator="parametrize",
                    got=type(value).__name__,
                )
            for part, original in zip(values, self._originals(), strict=True):
                if not isinstance(part, Tensor) or part.dtype is not original.dtype:
                    raise ArgumentError(
                        f"right_inverse must return a Tensor of dtype {original.dtype}",
                        operator="parametrize",
                        got=repr(getattr(part, "dtype", type(part))),
                    )
            for part, original in zip(values, self._originals(), strict=True):
                original.data = part.data

    def forward(self) -> Tensor:
        """Compute the tensor: the first module takes the originals, each next one its output."""
        value = None
        for i, module in enumerate(self):
            value = module(value) if i else module(*self._originals())
        return value  # type: ignore[return-value]


def _with_own_class(module: Module, base: type[Module]) -> None:
    """Give `module` a class of its own, so that properties can be added for it alone."""

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        replica = base.__new__(base)
        memo[id(self)] = replica
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
        _with_own_class(replica, base)
        for name in self.parametrizations:
            _add_property(replica, name)
        return replica

    def getstate(self: Any) -> Any:
        raise ArgumentError(
            "a parametrised module is saved by its state_dict(), not pickled",
            operator=type(self).__name__,
        )

    members = {"__deepcopy__": deepcopy, "__getstate__": getstate, "__module__": base.__module__}
    module.__class__ = type(f"Parametrized{base.__name__}", (base,), members)


def _add_property(module: Module, name: str) -> None:
    def value(self: Any) -> Tensor:
        if not _cache.depth:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache.values:
            _cache.values[key] = self.parametrizations[name]()
        return _cache.values[key]

    def set_value(self: Any, new: Any) -> None:
        self.parametrizations[name].right_inverse(new)

    setattr(type(module), name, property(value, set_value))


def register_parametrization(
    module: ModuleT, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> ModuleT:
    """Compute the parameter or buffer `tensor_name` of `module` by `parametrization` from now on.

    parametrization: a Module whose forward takes the tensor trained instead (or several) and
    returns the one used; its `right_inverse(tensor)`, if it has one, gives what to start from and
    allows assignment. A second one is applied to the first one's result. Unless `unsafe`, shape
    and dtype must be kept, which is tried at once. Raises ValueError where that fails or there is
    no such tensor; the module is then as before.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = _chains(module)[tensor_name]
        if not unsafe:
            before = getattr(module, tensor_name)
            after = parametrization(before)
            _is_like("the parametrisation of a tensor", after, before)
            _is_like("right_inverse of a tensor", _inverse(parametrization, after), before)
        chain.append(parametrization)
        chain.unsafe |= unsafe
        return module
    if tensor_name not in {**module._parameter_names, **module._buffer_names}:
        raise ArgumentError(
            f"{type(module).__name__} has no parameter, buffer or parametrised '{tensor_name}'",
            operator="register_parametrization",
        )
    original = getattr(module, tensor_name)
    chain = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _with_own_class(module, type(module))
        module.register_module("parametrizations", ModuleDict())
    _add_property(module, tensor_name)
    _chains(module)[tensor_name] = chain
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module has parametrised tensors, or that of this name is one."""
    chains = module.__dict__.get("parametrizations")
    if not isinstance(chains, ModuleDict):
        return False
    return len(chains) > 0 if tensor_name is None else tensor_name in chains


def _chains(module: Any) -> ModuleDict:
    return module.parametrizations


def remove_parametrizations(
    module: ModuleT, tensor_name: str, leave_parametrized: bool = True
) -> ModuleT:
    """Make `tensor_name` a plain parameter or buffer again.

    It keeps the computed value, or with leave_parametrized=False that of the original, which is
    possible where that is one tensor. The parameter object is the original one where that is one
    tensor. Raises ValueError where the tensor is not parametrised.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(
            f"{type(module).__name__} has no parametrised '{tensor_name}'",
            operator="remove_parametrizations",
        )
    chain = _chains(module)[tensor_name]
    if not chain.is_tensor and not leave_parametrized:
        raise ArgumentError(
            f"'{tensor_name}' is computed from several tensors, there is no original to go back to",
            operator="remove_parametrizations",
        )
    if chain.is_tensor:
        tensor = chain.original
        if leave_parametrized:
            with no_grad():
                tensor.data = getattr(module, tensor_name).detach().clone()
    else:
        value = getattr(module, tensor_name)
        tensor = Parameter(value.detach()) if value.requires_grad else value.detach()
    own: Any = type(module)
    delattr(own, tensor_name)
    del _chains(module)[tensor_name]
    _add_tensor(module, tensor_name, tensor)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = own.__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of the module as it was before its first parametrisation."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def transfer_parametrizations_and_params(
    from_module: Module, to_module: ModuleT, tensor_name: str | None = None
) -> ModuleT:
    """Give `to_module` the parametrisations of `from_module`, of one tensor or of all.

    Both modules share them and the tensors that they take; a tensor that `to_module` lacks is
    made. ValueError where `from_module` has none.
    """
    if not is_parametrized(from_module):
        raise ArgumentError(
            "from_module must be parametrised",
            operator="transfer_parametrizations_and_params",
            got=type(from_module).__name__,
        )
    for name in [tensor_name] if tensor_name else list(_chains(from_module)):
        chain = _chains(from_module)[name]
        if not hasattr(to_module, name):
            to_module.register_parameter(name, Parameter(getattr(from_module, name).detach()))
        for parametrization in chain:
            register_parametrization(to_module, name, parametrization, unsafe=chain.unsafe)
        for key in (*chain._parameter_names, *chain._buffer_names):
            setattr(_chains(to_module)[name], key, getattr(chain, key))
    return to_module


__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

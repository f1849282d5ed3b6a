"""Modules that hold modules (Sequential, ModuleList, ModuleDict) or parameters (ParameterList)."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, UnsupportedError
from minidl.nn.linear import activation_after
from minidl.nn.module import Module, tree_repr
from minidl.tensor import Parameter, Tensor

NumberedT = TypeVar("NumberedT", bound="_Numbered")


class _Numbered(Module):
    """A list of modules registered under "0", "1", ...; what Sequential and ModuleList share."""

    def _name_at(self, index: Any) -> str:
        names = list(self._module_names)
        place = operator.index(index)
        if not -len(names) <= place < len(names):
            raise OutOfRangeError(
                f"index must lie in [{-len(names)}, {len(names)})",
                operator=type(self).__name__,
                got=str(place),
            )
        return names[place]

    def _replace(self, modules: Iterable[Module]) -> None:
        """Hold exactly `modules`, numbered anew from 0."""
        modules = list(modules)
        for name in list(self._module_names):
            delattr(self, name)
        self.extend(modules)

    def __len__(self) -> int:
        return len(self._module_names)

    def __iter__(self) -> Iterator[Any]:
        return iter([self.__dict__[name] for name in self._module_names])

    @overload
    def __getitem__(self: NumberedT, idx: slice) -> NumberedT: ...
    @overload
    def __getitem__(self, idx: int) -> Any: ...
    def __getitem__(self, idx: Any) -> Any:
        """Return one module, or a container of the same type for a slice."""
        if isinstance(idx, slice):
            part = type(self)()
            for name in list(self._module_names)[idx]:
                # A Sequential of named modules keeps the names in its slices.
                number = name if isinstance(self, Sequential) else str(len(part))
                part.add_module(number, self.__dict__[name])
            return part
        return self.__dict__[self._name_at(idx)]

    def __setitem__(self, idx: int, module: Module) -> None:
        setattr(self, self._name_at(idx), module)

    def __delitem__(self, idx: int | slice) -> None:
        """Remove modules; the rest is renumbered, named ones too, as in PyTorch."""
        gone = list(self._module_names)[idx] if isinstance(idx, slice) else [self._name_at(idx)]
        for name in gone:
            delattr(self, name)
        self._replace(self)

    def append(self: NumberedT, module: Module) -> NumberedT:
        """Add a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self: NumberedT, modules: Iterable[Module]) -> NumberedT:
        """Add several modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self: NumberedT, index: int, module: Module) -> NumberedT:
        """Put a module before position `index`; the later ones are renumbered."""
        if not isinstance(module, Module):
            raise DTypeError(
                "a container holds modules", operator="insert", got=type(module).__name__
            )
        modules = list(self)
        modules.insert(operator.index(index), module)
        self._replace(modules)
        return self

    def pop(self, key: int | slice = -1) -> Any:
        """Remove a module and return it."""
        module = self[key]
        del self[key]
        return module

    def __iadd__(self: NumberedT, other: Iterable[Module]) -> NumberedT:
        return self.extend(other)


class Sequential(_Numbered):
    """Modules that run in turn: `Sequential(a, b)`, or named, `Sequential({"a": a, "b": b})`."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        """Feed each module the output of the one before it."""
        own = self.__dict__
        modules = [own[name] for name in self._module_names]
        last = len(modules) - 1
        done = False  # with this module: the layer before it has taken its activation
        for i, module in enumerate(modules):
            if done:
                done = False
            elif i < last and (name := activation_after(module, modules[i + 1])):
                input, done = module.activated(input, name), True
            else:
                input = module(input)
        return input

    def __add__(self, other: Iterable[Module]) -> Sequential:
        return Sequential(*self, *other)

    def __mul__(self, other: int) -> Sequential:
        """Repeat the same modules, which then share their parameters, `other` times."""
        return Sequential(*(list(self) * _times(other)))

    __rmul__ = __mul__

    def __imul__(self, other: int) -> Sequential:
        return self.extend(list(self) * (_times(other) - 1))


def _times(count: Any) -> int:
    count = operator.index(count)
    if count <= 0:
        raise ArgumentError("the factor must be positive", operator="Sequential", got=str(count))
    return count


class ModuleList(_Numbered):
    """A list whose modules are registered; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Put a module before position `index`; the later ones are renumbered."""
        super().insert(index, module)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """Show runs of equal children as `(0-5): 6 x Layer(...)`, as PyTorch does."""
        runs: list[list[Any]] = []
        for position, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1][1] = position
            else:
                runs.append([position, position, text])
        children = [
            (str(a), text) if a == b else (f"{a}-{b}", f"{b - a + 1} x {text}")
            for a, b, text in runs
        ]
        return tree_repr(self._get_name(), [], children)


class ModuleDict(Module):
    """A dictionary whose modules are registered; it keeps the order of insertion."""

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        if key not in self._module_names:
            raise KeyError(key)
        return self.__dict__[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        if key not in self._module_names:
            raise KeyError(key)
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._module_names)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._module_names))

    def __contains__(self, key: object) -> bool:
        return key in self._module_names

    def keys(self) -> list[str]:
        """Return the names in order."""
        return list(self._module_names)

    def values(self) -> list[Any]:
        """Return the modules in order."""
        return [self.__dict__[name] for name in self._module_names]

    def items(self) -> list[tuple[str, Any]]:
        """Return (name, module) pairs in order."""
        return list(zip(self.keys(), self.values(), strict=True))

    def pop(self, key: str) -> Any:
        """Remove the module under `key` and return it."""
        module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Remove all modules."""
        for name in self.keys():  # noqa: SIM118 - the names, taken before any goes
            delattr(self, name)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace modules from a mapping, a ModuleDict or (name, module) pairs."""
        pairs: Any = modules.items() if isinstance(modules, Mapping | ModuleDict) else modules
        try:
            pairs = dict(pairs)
        except (TypeError, ValueError):
            raise DTypeError(
                "modules must be a mapping or (name, module) pairs",
                operator="ModuleDict",
                got=type(modules).__name__,
            ) from None
        for key, module in pairs.items():
            self[key] = module


def _as_parameter(value: Any) -> Any:
    """A tensor as a Parameter; everything else as it is."""
    if isinstance(value, Tensor) and not value.is_parameter:
        return Parameter(value)
    return value


def _parameter_lines(items: Iterable[tuple[Any, Any]], typename: Any) -> str:
    lines = []
    for name, value in items:
        if isinstance(value, Tensor):
            kind = "Parameter" if value.is_parameter else "Tensor"
            size = "x".join(map(str, value.shape))
            text = f"{kind} containing: [{typename(value)} of size {size}]"
        else:
            text = f"Object of type: {type(value).__name__}"
        lines.append(f"  ({name}): {text}")
    return "\n".join(lines)


class ParameterList(Module):
    """A list whose tensors are registered as parameters "0", "1" and so on; it holds anything."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def _name_at(self, index: Any) -> str:
        place = operator.index(index)
        if not -self._size <= place < self._size:
            raise OutOfRangeError(
                f"index must lie in [{-self._size}, {self._size})",
                operator="ParameterList",
                got=str(place),
            )
        return str(place % self._size)

    @overload
    def __getitem__(self, idx: slice) -> ParameterList: ...
    @overload
    def __getitem__(self, idx: int) -> Any: ...
    def __getitem__(self, idx: Any) -> Any:
        """Return one value, or a ParameterList of a slice."""
        if isinstance(idx, slice):
            return type(self)([self[i] for i in range(*idx.indices(self._size))])
        return self.__dict__[self._name_at(idx)]

    def __setitem__(self, idx: int, param: Any) -> None:
        setattr(self, self._name_at(idx), _as_parameter(param))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(self._size)])

    def __iadd__(self, parameters: Iterable[Any]) -> ParameterList:
        return self.extend(parameters)

    def append(self, value: Any) -> ParameterList:
        """Add a value at the end; a tensor becomes a parameter."""
        self._size += 1
        try:
            self[self._size - 1] = value
        except BaseException:
            self._size -= 1
            raise
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add all values at the end."""
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise DTypeError(
                "values must be an iterable of values, not one",
                operator="ParameterList",
                got=type(values).__name__,
            )
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """Show each value with its dtype and size."""
        return _parameter_lines(enumerate(self), lambda value: repr(value.dtype))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a list computes nothing."""
        raise UnsupportedError("a list of parameters is not called", operator="ParameterList")


class ParameterDict(Module):
    """A dictionary whose tensors are registered as parameters; it holds other values too."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        """Return the value under `key`."""
        if key not in self._keys:
            raise KeyError(key)
        return self.__dict__[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise DTypeError(
                "keys must be strings", operator="ParameterDict", got=type(key).__name__
            )
        if key not in self._keys and hasattr(type(self), key):
            raise KeyError(f"[ParameterDict] '{key}' is the name of an attribute")
        setattr(self, key, _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        if key not in self._keys:
            raise KeyError(key)
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys))

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __or__(self, other: Any) -> ParameterDict:
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other: Any) -> ParameterDict:
        new = ParameterDict(other)
        new.update(self)
        return new

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def copy(self) -> ParameterDict:
        """Return a dictionary of the same parameters."""
        return ParameterDict(self.items())

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`, which is `default` if there was none."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Remove all values."""
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str) -> Any:
        """Remove the value under `key` and return it."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove the last pair and return it."""
        if not self._keys:
            raise KeyError("[ParameterDict] there is nothing to remove")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self[key] if key in self else default  # noqa: SIM401 - no `get` of its own to use

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """Return a dictionary of `keys`, each with `default`."""
        return ParameterDict([(key, default) for key in keys])

    def keys(self) -> list[str]:
        """Return the names in order."""
        return list(self._keys)

    def items(self) -> list[tuple[str, Any]]:
        """Return (name, value) pairs in order."""
        return [(key, self[key]) for key in self._keys]

    def values(self) -> list[Any]:
        """Return the values in order."""
        return [self[key] for key in self._keys]

    def update(self, parameters: Any) -> None:
        """Add or replace values from a mapping (a plain dict: in the order of names) or pairs."""
        if isinstance(parameters, ParameterDict | OrderedDict):
            pairs = list(parameters.items())
        elif isinstance(parameters, Mapping):
            pairs = sorted(parameters.items())
        elif isinstance(parameters, Iterable):
            pairs = [tuple(pair) for pair in parameters]
        else:
            raise DTypeError(
                "parameters must be a mapping or (name, value) pairs",
                operator="ParameterDict",
                got=type(parameters).__name__,
            )
        if any(len(pair) != 2 for pair in pairs):
            raise ArgumentError("pairs must be (name, value)", operator="ParameterDict")
        for key, value in pairs:
            self[key] = value

    def extra_repr(self) -> str:
        """Show each value with its type and size."""
        return _parameter_lines(self.items(), lambda value: value.type())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a dictionary computes nothing."""
        raise UnsupportedError("a dictionary of parameters is not called", operator="ParameterDict")

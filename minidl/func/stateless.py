"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, DTypeError
from minidl.nn.module import Module
from minidl.tensor import Tensor


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """`module(*args, **kwargs)` with the given tensors in the place of its own.

    parameter_and_buffer_dicts: tensors by dotted name, one mapping or several without common names;
    what is not named stays. tie_weights: a tensor given for one name of a shared parameter serves
    all its names. strict: every name must be given, and no other. Gradients flow into the given
    tensors. The module is as before afterwards, also after an error. Raises ArgumentError (a
    ValueError) for wrong names.
    """
    values = _together(parameter_and_buffer_dicts)
    places = _places(module)
    if strict:
        missing, unknown = places.keys() - values.keys(), values.keys() - places.keys()
        tied = {name for name in missing if tie_weights and _given(name, places, values)}
        if missing - tied or unknown:
            raise ArgumentError(
                f"missing names {sorted(missing - tied)}, unknown names {sorted(unknown)}",
                operator="functional_call",
            )
    if tie_weights:
        _one_value_each(places, values)
    swapped: list[tuple[Module, str, Any]] = []
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    try:
        for name, (owner, attribute, tensor) in places.items():
            value = values.get(name)
            if value is None and tie_weights:
                value = _given(name, places, values)
            if value is not None:
                swapped.append((owner, attribute, tensor))
                owner.__dict__[attribute] = value
        return module(*args, **(kwargs or {}))
    finally:
        for owner, attribute, tensor in reversed(swapped):
            owner.__dict__[attribute] = tensor


def _together(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        parts = list(given)
        names = [name for part in parts for name in part]
        if len(set(names)) != len(names):
            raise ArgumentError("a name is in more than one mapping", operator="functional_call")
        given = {name: value for part in parts for name, value in part.items()}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise DTypeError(
                f"'{name}' must be a Tensor", operator="functional_call", got=type(value).__name__
            )
    return dict(given)


def _places(module: Module) -> dict[str, tuple[Module, str, Any]]:
    """Module and attribute of every parameter and buffer by its dotted name."""
    found = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for attribute in (*owner._parameter_names, *owner._buffer_names):
            tensor = owner.__dict__[attribute]
            if tensor is not None:
                name = f"{path}.{attribute}" if path else attribute
                found[name] = (owner, attribute, tensor)
    return found


def _one_value_each(places: dict[str, Any], values: dict[str, Any]) -> None:
    """Refuse different tensors for the names of one shared parameter."""
    first: dict[int, str] = {}
    for name, value in values.items():
        if name in places:
            other = first.setdefault(id(places[name][2]), name)
            if values[other] is not value:
                raise ArgumentError(
                    f"'{other}' and '{name}' are one parameter: give one tensor, or tie_weights="
                    "False",
                    operator="functional_call",
                )


def _given(name: str, places: dict[str, Any], values: dict[str, Any]) -> Any:
    """The tensor given for another name of the same parameter, or None."""
    tensor = places[name][2]
    for other, value in values.items():
        if other in places and places[other][2] is tensor:
            return value
    return None


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers of models of one kind, each stacked along a new first axis.

    With `vmap` and `functional_call` all models of an ensemble run at once. The stacked parameters
    are leaves that require gradients.
    """
    if not models:
        raise ArgumentError("there must be a model", operator="stack_module_state")
    if len({type(model) for model in models}) > 1 or len({m.training for m in models}) > 1:
        raise ArgumentError(
            "all models must be of one class, and all in training mode or none",
            operator="stack_module_state",
        )
    params = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    stacked = {
        name: ops.stack([p[name].detach() for p in params]).requires_grad_(
            params[0][name].requires_grad
        )
        for name in params[0]
    }
    return stacked, {name: ops.stack([b[name] for b in buffers]) for name in buffers[0]}

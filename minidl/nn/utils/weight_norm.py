"""Weight normalisation by a hook: direction and length of a weight as two parameters.

Source: Salimans and Kingma 2016, arXiv:1602.07868. `parametrizations.weight_norm` is its successor.
"""

from __future__ import annotations

from typing import Any, TypeVar

import minidl.ops as ops
from minidl.errors import ArgumentError
from minidl.nn.hooks import pre_hook_of
from minidl.nn.module import Module
from minidl.ops.views import axis as place
from minidl.tensor import Parameter, Tensor

ModuleT = TypeVar("ModuleT", bound=Module)


def norm_except(weight: Tensor, dim: int | None) -> Tensor:
    """The 2-norms over all axes but `dim`, which are kept with size 1; over all for None or -1."""
    if dim in (None, -1):
        return ops.norm(weight)
    dim = place(weight.ndim, dim, "weight_norm")
    others = [axis for axis in range(weight.ndim) if axis != dim]
    return ops.norm(weight, 2, others, True) if others else weight.abs()


def with_norm(direction: Tensor, length: Tensor, dim: int | None) -> Tensor:
    """The weight of this direction whose norms are `length`."""
    return direction * (length / norm_except(direction, dim))


class WeightNorm:
    """The hook that computes a module's weight from weight_g (lengths) and weight_v before use."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Tensor:
        """The weight that the two parameters say."""
        length, direction = (getattr(module, f"{self.name}_{part}") for part in "gv")
        return with_norm(direction, length, self.dim)

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the weight that the forward after this uses."""
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: ModuleT, name: str = "weight", dim: int | None = 0) -> ModuleT:
    """Replace the parameter `name` by `name_g`, its norms over all axes but `dim`, and `name_v`.

    The weight is computed anew before every forward. `dim` None: one norm for all of it. Raises
    ArgumentError (a RuntimeError) where the parameter has a weight norm already.
    """
    if pre_hook_of(module, WeightNorm, name):
        raise ArgumentError(f"'{name}' has a weight norm already", operator="weight_norm")
    hook = WeightNorm(name, dim)
    weight = module.get_parameter(name)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norm_except(weight, hook.dim).detach()))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    setattr(module, name, hook.compute_weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: ModuleT, name: str = "weight") -> ModuleT:
    """Make the weight that is computed a parameter again; ValueError where there is none."""
    found = pre_hook_of(module, WeightNorm, name)
    if found is None:
        raise ArgumentError(
            f"there is no weight norm of '{name}' in {module}", operator="remove_weight_norm"
        )
    key, hook = found
    weight = hook.compute_weight(module)
    for attribute in (name, f"{name}_g", f"{name}_v"):
        delattr(module, attribute)
    setattr(module, name, Parameter(weight.detach()))
    del module._hook_tables().forward_pre[key]
    return module

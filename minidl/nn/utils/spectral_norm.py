"""Spectral normalisation by a hook: a weight divided by its largest singular value.

Source: Miyato et al. 2018, arXiv:1802.05957. `parametrizations.spectral_norm` is its successor.
"""

from __future__ import annotations

from typing import Any, TypeVar

from minidl.autograd import no_grad
from minidl.errors import ArgumentError
from minidl.nn.hooks import pre_hook_of
from minidl.nn.module import Module
from minidl.ops.norm import normalize
from minidl.tensor import Parameter, Tensor

ModuleT = TypeVar("ModuleT", bound=Module)


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """The weight with `dim` first and all other axes joined."""
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


def output_axis(module: Module) -> int:
    """The axis of a weight that counts outputs: the second of transposed convolutions."""
    kinds = {kind.__name__ for kind in type(module).__mro__}
    return 1 if kinds & {"ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"} else 0


class SpectralNorm:
    """The hook that divides weight_orig before use, by power iteration over weight_u, weight_v."""

    def __init__(
        self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        if n_power_iterations <= 0:
            raise ArgumentError(
                "n_power_iterations must be positive",
                operator="spectral_norm",
                got=str(n_power_iterations),
            )
        self.name = name
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        """The weight over its largest singular value, which power iteration estimates better."""
        weight, u, v = (getattr(module, f"{self.name}_{part}") for part in ("orig", "u", "v"))
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(normalize(matrix.T.mv(u), dim=0, eps=self.eps))
                    u.copy_(normalize(matrix.mv(v), dim=0, eps=self.eps))
                u, v = u.clone(), v.clone()  # the next forward may come before this one's backward
        return weight / u.dot(matrix.mv(v))

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the weight that the forward after this uses."""
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> ModuleT:
    """Replace the parameter `name` by `name_orig`, divided by its largest singular value for use.

    The value comes from `n_power_iterations` steps before every forward in training mode, from
    the vectors `name_u` and `name_v`, which are buffers. Raises ArgumentError (a RuntimeError)
    where the parameter has a spectral norm already.
    """
    if pre_hook_of(module, SpectralNorm, name):
        raise ArgumentError(f"'{name}' has a spectral norm already", operator="spectral_norm")
    hook = SpectralNorm(name, n_power_iterations, output_axis(module) if dim is None else dim, eps)
    weight = module.get_parameter(name)
    rows, columns = as_matrix(weight.detach(), hook.dim).shape
    u, v = (normalize(weight.new_empty(size).normal_(), dim=0, eps=eps) for size in (rows, columns))
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.data)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: ModuleT, name: str = "weight") -> ModuleT:
    """Make the divided weight a parameter again; ValueError where there is none."""
    found = pre_hook_of(module, SpectralNorm, name)
    if found is None:
        raise ArgumentError(
            f"there is no spectral norm of '{name}' in {module}", operator="remove_spectral_norm"
        )
    key, hook = found
    with no_grad():
        weight = hook.compute_weight(module, do_power_iteration=False)
    for attribute in (name, f"{name}_u", f"{name}_v", f"{name}_orig"):
        delattr(module, attribute)
    module.register_parameter(name, Parameter(weight.detach()))
    del module._hook_tables().forward_pre[key]
    return module

"""Transforms of functions, under the names of `torch.func`: they nest and take trees of tensors."""

from minidl.func import functional as functional
from minidl.func.stateless import functional_call, stack_module_state
from minidl.func.transforms import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp
from minidl.func.vmap import vmap

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]

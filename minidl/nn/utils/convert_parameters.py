"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

import minidl.ops as ops
from minidl.errors import DTypeError, ShapeError
from minidl.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Join the elements of all parameters, in order, to one vector; gradients flow through it."""
    return ops.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give the parameters the elements of `vec`, which they share from then on, in order.

    Raises ShapeError where `vec` has fewer elements than the parameters; then none is written.
    """
    if not isinstance(vec, Tensor):
        raise DTypeError(
            "vec must be a Tensor", operator="vector_to_parameters", got=type(vec).__name__
        )
    parameters = list(parameters)
    if (needed := sum(parameter.numel() for parameter in parameters)) > vec.numel():
        raise ShapeError(
            f"vec must have {needed} elements",
            operator="vector_to_parameters",
            got=str(vec.numel()),
        )
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view(parameter.shape).data
        start = end

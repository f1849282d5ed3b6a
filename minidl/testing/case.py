"""One row of the operator table: what a test needs to know of an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from minidl.dtypes import FLOATS, DType


class Sample(NamedTuple):
    """Arguments of one call: arrays stand for tensors, everything else is passed as it is."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def sample(*args: Any, **kwargs: Any) -> Sample:
    """A Sample of these arguments; a list of arrays stands for a list of tensors."""
    return Sample(args, kwargs)


@dataclass(frozen=True)
class Case:
    """An operator, its NumPy oracle, and how to draw its arguments.

    name: unique in the table; operators: names of the `@op` operators that the row exercises
    (default: the name); function: on Tensors; oracle: the same call on NumPy arrays (float64 where
    the inputs are floating point), returning an array or a tuple of arrays; inputs(d, dtype): a
    Sample drawn with `strategies.Draw` d; torch: the same call on torch tensors, a name like
    "torch.add" or a function of (torch, *args, **kwargs), or None where torch has none; dtypes:
    those of the drawn inputs; grad / gradgrad: whether first and second derivatives exist;
    grad_inputs: smoother inputs for the difference quotients, if `inputs` come near a kink;
    scale: factor on the tolerance, with the reason beside the row.
    """

    name: str
    function: Callable[..., Any]
    oracle: Callable[..., Any]
    inputs: Callable[[Any, DType], Sample]
    torch: Any = "same"
    dtypes: tuple[DType, ...] = FLOATS
    grad: bool = True
    gradgrad: bool = True
    grad_inputs: Callable[[Any, DType], Sample] | None = None
    operators: tuple[str, ...] = ()
    scale: float = 1.0

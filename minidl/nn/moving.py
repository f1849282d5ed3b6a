"""Moving and casting a module: `to` and its short forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import minidl.dtypes as dtypes
import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.errors import DTypeError, UnsupportedError
from minidl.nn.tree import Tree
from minidl.tensor import Tensor, as_device

MovableT = TypeVar("MovableT", bound="Movable")


class Movable(Tree):
    """Replaces the data of all parameters, their gradients and the buffers."""

    def _apply(self: MovableT, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MovableT:
        """Replace the data of every parameter, its gradient and every buffer by `fn` of it.

        Parameters stay the same objects, so an optimiser that holds them goes on working.
        """
        with no_grad():
            for module in self.modules() if recurse else (self,):
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

    def to(self: MovableT, *args: Any, **kwargs: Any) -> MovableT:
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

    def to_empty(self: MovableT, *, device: Any, recurse: bool = True) -> MovableT:
        """Move to `device` without the values: every parameter and buffer is left unset."""
        where = as_device(device)
        return self._apply(lambda tensor: ops.empty_like(tensor, device=where), recurse)

    def type(self: MovableT, dst_type: Any) -> MovableT:
        """Cast every parameter and buffer, whatever its kind, to `dst_type`."""
        return self._apply(lambda tensor: tensor.to(dtype=dst_type))

    def float(self: MovableT) -> MovableT:
        """Cast floating tensors to float32."""
        return self.to(dtypes.float32)

    def double(self: MovableT) -> MovableT:
        """Cast floating tensors to float64."""
        return self.to(dtypes.float64)

    def half(self: MovableT) -> MovableT:
        """Cast floating tensors to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self: MovableT) -> MovableT:
        """Cast floating tensors to bfloat16."""
        return self.to(dtypes.bfloat16)

    def cpu(self: MovableT) -> MovableT:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self: MovableT, device: Any = None) -> MovableT:
        """Move to a GPU."""
        return self.to("cuda" if device is None else device)


def _parse_to(
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    memory_format: Any = None,
) -> tuple[Any, Any]:
    """Sort the arguments of `to` into (device, dtype); each None where it is not given.

    `non_blocking` changes nothing.
    """
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
    where = None if device is None else as_device(device)
    return where, None if dtype is None else dtypes.dtype_of(dtype)

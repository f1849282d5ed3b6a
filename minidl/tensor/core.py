"""The Tensor, the storage it shares with its views, and Parameter.

Operators attach their methods where they are defined (`minidl.ops`), the engine attaches
`backward`; here is what a tensor is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl.backends import ARRAY_TYPES, CPU, Device, device_of, host, local, moved, on_device
from minidl.dtypes import FLOAT, FROM_NUMPY, HALF_NUMPY, DType
from minidl.errors import DeviceError, DTypeError, GradientError, ShapeError


class Storage:
    """One per buffer, shared by all its views; `version` counts the in-place writes."""

    # a class attribute until the first write makes the instance's own: construction is free
    version = 0


class View:
    """How a view came from its root: `chain` is ((function, arguments), ...) to replay on it.

    `seen` is the root's node when the view's own node was derived; an in-place write gives the
    root a new node, and then the view derives its node again on next use. `recorded` is False
    for a view that was taken where nothing was recorded.
    """

    __slots__ = ("root", "chain", "seen", "recorded")

    def __init__(self, x: Tensor, function: Callable, args: tuple, recorded: bool) -> None:
        step = ((function, args),)
        if x.base is None or (x.tracked and x.node is None):  # no history before a leaf
            self.root, self.chain = x, step
        else:
            self.root, self.chain = x.base.root, x.base.chain + step
        self.seen = self.root.node
        self.recorded = recorded


class Tensor:
    """A typed n-dimensional array that remembers how it was computed.

    Made by `minidl.tensor(data)` and the creation functions, not by calling this class.
    `tracked` says that gradients flow to it (`requires_grad` is its public name); `node` is the
    graph node that made it, or `(node, i)` for output i of several, or None for a leaf.
    """

    __slots__ = (
        "array",
        "storage",
        "tracked",
        "node",
        "base",
        "hooks",
        "is_parameter",
        "_grad",
        "__weakref__",
    )
    __array_ufunc__ = None  # NumPy's operators defer to ours
    __array_priority__ = 1000

    def __init__(self, array: Any, storage: Storage | None = None) -> None:
        if type(array) not in ARRAY_TYPES and not isinstance(array, np.ndarray):
            raise DTypeError(
                "Tensor(array) wraps an array as it is; use minidl.tensor(data)",
                got=type(array).__name__,
            )
        # of NumPy's own class: operators test it
        self.array = array if type(array) in ARRAY_TYPES else array.view(np.ndarray)
        self.storage = Storage() if storage is None else storage
        self.tracked = False
        self.node: Any = None
        self.base: View | None = None
        self.hooks: Any = None
        self.is_parameter = False
        self._grad: Tensor | None = None

    def __init_subclass__(cls, unset: bool = False) -> None:
        if not unset:  # those of nn.parameter have no elements yet, and no operator takes them
            raise TypeError(
                f"{cls.__name__}: Tensor has no subclasses: operators test `type(x) is Tensor`;"
                " keep a tensor in an object of your own, or use minidl.nn.Parameter"
            )

    # what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.array.shape

    @property
    def dtype(self) -> DType:
        """Type of the elements, e.g. `minidl.float32`."""
        return FROM_NUMPY[self.array.dtype]

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return device_of(self.array)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    def dim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self.array.size

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        if dim is None:
            return self.array.shape
        try:
            return self.array.shape[dim]
        except IndexError:
            raise ShapeError(f"[size] axis {dim} of a tensor of shape {self.shape}") from None

    def stride(self, dim: int | None = None) -> Any:
        """Steps between neighbours along each axis (or one), in elements."""
        steps = tuple(s // self.array.itemsize for s in self.array.strides)
        return steps if dim is None else steps[dim]

    def data_ptr(self) -> int:
        """Address of the first element."""
        array: Any = self.array
        return array.data.ptr if self.is_cuda else array.ctypes.data

    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return bool(self.array.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating point one."""
        return self.dtype.kind == FLOAT

    @property
    def is_cuda(self) -> bool:
        """Whether the elements are on a GPU."""
        return not isinstance(self.array, np.ndarray)

    # gradient

    @property
    def requires_grad(self) -> bool:
        """Whether a backward pass computes a gradient for it or through it."""
        if self.base is not None:
            self.refresh()
        return self.tracked

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for gradients of this leaf, or stop asking."""
        if requires_grad and self.dtype.kind != FLOAT:
            raise DTypeError(
                "only floating point tensors can require gradients", got=repr(self.dtype)
            )
        if not requires_grad and self.node is not None:
            raise GradientError(
                "requires_grad can be switched off for leaves only; use .detach() on a result"
            )
        self.tracked = bool(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was not computed from tensors that require gradients."""
        if self.base is not None:
            self.refresh()
        return self.node is None

    @property
    def grad_fn(self) -> Any:
        """The graph node that made it, or None for a leaf."""
        if self.base is not None:
            self.refresh()
        return self.node[0] if type(self.node) is tuple else self.node

    @property
    def output_nr(self) -> int:
        """Which output of its node it is."""
        return self.node[1] if type(self.node) is tuple else 0

    @property
    def grad(self) -> Tensor | None:
        """The gradient summed up by `backward`, of the same shape and dtype, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if type(value) is not Tensor:
                raise DTypeError("grad must be a Tensor or None", got=type(value).__name__)
            if value.array.shape != self.array.shape:
                raise ShapeError(
                    "grad must have the tensor's shape", got=f"{value.shape}, {self.shape}"
                )
            if value.array.dtype != self.array.dtype:
                raise DTypeError(
                    "grad must have the tensor's dtype", got=f"{value.dtype}, {self.dtype}"
                )
            if type(value.array) is not type(self.array):
                got = f"{value.device}, {self.device}"
                raise DeviceError("grad must be on the tensor's device", got=got)
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def refresh(self) -> None:
        """Derive the node of a view again if its root was written in place since."""
        view = self.base
        # a root without a node was detached, which leaves its views as they are
        if view is not None and view.root.node not in (None, view.seen):
            state = local.state
            before, state.recording = state.recording, True
            try:
                fresh = replay(view.root, view.chain)
            finally:
                state.recording = before
            fresh.node.adopt(self)
            self.node, self.tracked = fresh.node, fresh.tracked
            view.seen = view.root.node

    def detach(self) -> Tensor:
        """The same elements (shared) without history."""
        return Tensor(self.array, self.storage)

    def detach_(self) -> Tensor:
        """Forget the history of this tensor."""
        if self.base is not None:
            raise GradientError("a view cannot be detached in place; use .detach()")
        self.node, self.tracked = None, False
        return self

    @property
    def data(self) -> Tensor:
        """A detached tensor that shares this one's elements."""
        return Tensor(self.array, self.storage)

    @data.setter
    def data(self, value: Tensor) -> None:
        if type(value) is not Tensor:
            raise DTypeError("data must be a Tensor", got=type(value).__name__)
        if self.tracked and value.dtype.kind != FLOAT:
            raise DTypeError(
                "data of a tensor that requires gradients must be floating point",
                got=repr(value.dtype),
            )
        self.array, self.storage = value.array, value.storage

    # Python values

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.array.size != 1:
            raise ShapeError("[item] needs a tensor of one element", got=str(self.shape))
        array = host(self.array)
        if array.dtype in HALF_NUMPY:
            return float(array.reshape(())[()])
        return array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers (a number for a 0-d tensor)."""
        array = host(self.array)
        return (array.astype(np.float32) if array.dtype in HALF_NUMPY else array).tolist()

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ShapeError(
                "the truth of a tensor of several (or no) elements is ambiguous; use .any() or"
                " .all()",
                got=str(self.shape),
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind == FLOAT:
            raise DTypeError("only integer tensors can be used as an index", got=repr(self.dtype))
        return int(self.item())

    def __len__(self) -> int:
        if not self.array.ndim:
            raise TypeError("len() of a 0-d tensor")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.array.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))  # type: ignore[attr-defined]

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())  # type: ignore[union-attr]

    __hash__ = object.__hash__

    def __format__(self, spec: str) -> str:
        return object.__format__(self, spec) if self.array.ndim else format(self.item(), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.node is not None:
            raise GradientError("only leaves can be deep-copied; use .detach().clone()")
        copy = Tensor(self.array.copy())
        memo[id(self)] = copy
        copy.tracked, copy.is_parameter = self.tracked, self.is_parameter
        if self._grad is not None and not self.is_parameter:
            copy._grad = self._grad.__deepcopy__(memo)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        if self.node is not None:
            raise GradientError("only leaves can be pickled; use .detach()")
        return _restore, (host(self.array), self.tracked, self.is_parameter, self.device.type)


def _restore(array: np.ndarray, tracked: bool, is_parameter: bool, device: str = "cpu") -> Tensor:
    tensor = Tensor(moved(array, Device(device)))
    tensor.tracked, tensor.is_parameter = tracked, is_parameter
    return tensor


def replay(root: Any, chain: tuple) -> Any:
    """Take a view again: apply the functions of `chain` to `root` one after the other."""
    for function, args in chain:
        root = function(root, *args)
    return root


class _ParameterType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.is_parameter


class Parameter(metaclass=_ParameterType):
    """A leaf that a module counts among its parameters.

    `Parameter(data)` returns a Tensor that shares `data`'s elements and carries a mark;
    `isinstance(p, Parameter)` tests the mark, and `type(p) is Tensor`.
    """

    def __new__(cls, data: Any, requires_grad: bool = True) -> Any:
        """Mark a tensor that shares `data`'s elements."""
        if type(data) is not Tensor:
            raise DTypeError("Parameter needs a Tensor", got=type(data).__name__)
        parameter = Tensor(data.array, data.storage)
        parameter.is_parameter = True
        return parameter.requires_grad_(requires_grad)


def as_device(device: Any) -> Device:
    """The Device for a Device, its name, or None (the CPU); DeviceError if it is not there."""
    if device is None:
        return CPU
    wanted = Device(device)
    if wanted.type != "cpu":
        on_device(wanted)
    return wanted


__all__ = ["Parameter", "Storage", "Tensor", "View", "as_device", "replay"]

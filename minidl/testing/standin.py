"""A stand-in for CuPy over NumPy, so that the GPU's kernel table is tested where there is no GPU.

Its array class holds a NumPy array without being one, and is as strict as CuPy or stricter: it has
no name and no argument that CuPy lacks, takes no NumPy array where CuPy takes none, gives 0-d
arrays and never scalars, and what would wait for the GPU raises `Synchronised`: `float(x)`,
`if x:`, `x.item()`, `np.add(x, 1)`, `x[mask]`. Only `get` and `asnumpy` read values, and `nonzero`
may ask how many there are.
"""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from minidl.backends import cuda, cupy_gpu, local
from minidl.backends.reference.special import lgamma
from minidl.backends.table import TABLES, Kernels

NAMES = Path(__file__).with_name("cupy_names.txt")


class Synchronised(AssertionError):
    """An operator waited for the GPU, or would have moved an array unasked."""


@cache
def known() -> dict[str, str]:
    """CuPy's public names -> `(a, axis)`, `(ufunc)` or nothing, as the list has them."""
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


def _check(name: str, kwargs: dict[str, Any]) -> None:
    """Whether CuPy has the name, and takes these keywords."""
    names = known()
    if name not in names:
        raise AttributeError(f"CuPy has no {name}")
    taken = names[name]
    if taken == "(ufunc)":
        taken = "(out, dtype, casting)"
    if taken:
        for key in kwargs:
            if key not in taken.strip("()").split(", "):
                raise TypeError(f"{name} has no argument {key!r}")


def _plain(x: Any) -> Any:
    """What NumPy computes with in place of an argument."""
    if isinstance(x, ndarray):
        return x._array
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)(_plain(item) for item in x)
    return x


def _operand(x: Any) -> Any:
    """An argument of a ufunc: an array or a scalar, no list."""
    if x is None or isinstance(x, ndarray | bool | int | float | complex | np.generic):
        return _plain(x)
    raise TypeError(f"Unsupported type {type(x)}")


def _wrapped(x: Any) -> Any:
    """The result of NumPy's function as CuPy gives it."""
    if isinstance(x, np.ndarray | np.generic):
        array = np.asarray(x)
        if not array.flags.writeable:
            array.flags.writeable = True  # CuPy has no read-only arrays, not even of diagonals
        return ndarray(array)
    if isinstance(x, list | tuple):
        return tuple(_wrapped(item) for item in x)
    return x


_addressed: list[tuple[int, int]] = []  # bounds of the arrays whose addresses were asked for


def addressed() -> list[tuple[int, int]]:
    """(first, behind the last) byte of the arrays whose address was taken since the last call."""
    found = _addressed.copy()
    _addressed.clear()
    return found


class Function:
    """A function of CuPy, served by NumPy's of that name."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.__name__ = name
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result, in arrays of the stand-in."""
        _check(self.__name__, kwargs)
        out = kwargs.get("out")
        given = {key: _plain(value) for key, value in kwargs.items()}
        result = self._function(*map(_plain, args), **given)
        return _wrapped(result) if out is None else out


class Ufunc(Function):
    """A ufunc: results in C order, no `where`, sums at places for few dtypes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result, in `out` or a new array."""
        _check(self.__name__, kwargs)
        inputs = getattr(self._function, "nin", len(args))
        out = args[inputs] if len(args) > inputs else kwargs.pop("out", None)
        result = self._function(*map(_operand, args[:inputs]), **kwargs, out=_operand(out))
        if out is not None:
            return out
        return _wrapped(np.asarray(result, order="C"))

    def outer(self, x: Any, y: Any) -> Any:
        """All pairs."""
        return _wrapped(self._function.outer(_operand(x), _operand(y)))  # type: ignore[attr-defined]

    def at(self, x: Any, places: Any, values: Any) -> None:
        """The atomic operations of CUDA."""
        if x.dtype.char not in "fdFDiILQ":
            raise TypeError(f"{self.__name__}.at does not take {x.dtype}")
        self._function.at(x._array, _plain(places), _plain(values))  # type: ignore[attr-defined]


_WAITING = ("item", "tolist", "tobytes", "tofile", "dump", "dumps")
_PLAIN = ("shape", "strides", "dtype", "ndim", "size", "itemsize", "nbytes")


def _waits(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise Synchronised(f"{name} of an array on the GPU")

    return method


def _binary(name: str, function: Callable[..., Any], swapped: bool) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        x, y = _operand(self), _operand(other)
        return _wrapped(np.asarray(function(y, x) if swapped else function(x, y), order="C"))

    method.__name__ = name
    return method


def _in_place(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        function(self._array[...], _operand(other))
        return self

    method.__name__ = name
    return method


def _unary(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: _wrapped(function(self._array))


class ndarray:
    """CuPy's array class."""

    __slots__ = ("_array",)

    def __init__(self, array: Any, dtype: Any = float) -> None:
        # CuPy's own constructor takes a shape
        self._array = array if isinstance(array, np.ndarray) else np.zeros(array, dtype)

    def __getattr__(self, name: str) -> Any:
        if f"cupy.ndarray.{name}" not in known():
            raise AttributeError(f"CuPy's arrays have no {name}")
        if name in _WAITING:
            raise Synchronised(f"{name} of an array on the GPU")
        if name == "data":  # before NumPy's own, which bfloat16 has none of
            _addressed.append(byte_bounds(self._array))
            return types.SimpleNamespace(ptr=self._array.ctypes.data)
        value = getattr(self._array, name)
        if name in _PLAIN:
            return value
        if name == "device":
            return types.SimpleNamespace(id=0)
        if name == "flags":
            return types.SimpleNamespace(
                c_contiguous=value.c_contiguous,
                f_contiguous=value.f_contiguous,
                owndata=value.owndata,
            )
        return Function(f"cupy.ndarray.{name}", value) if callable(value) else _wrapped(value)

    def get(self, stream: Any = None, order: str = "C", out: Any = None) -> np.ndarray:
        """The values, as a NumPy array."""
        return np.array(self._array)

    def set(self, values: np.ndarray) -> None:
        """Take the values of a NumPy array."""
        self._array[...] = values

    def scatter_add(self, places: Any, values: Any) -> None:
        """`add.at`."""
        Ufunc("cupy.add", np.add).at(self, places, values)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        if any(_is_mask(item) for item in _items(key)):
            raise Synchronised("a mask has to be counted; use `nonzero` or `where`")
        return ndarray(self._array[_key(key, self.shape)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.size != 1:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        many = isinstance(value, ndarray) and value.size != 1
        if many and any(_is_mask(item) for item in _items(key)):
            raise Synchronised("a mask has to be counted; use `nonzero` or `where`")
        self._array[_key(key, self.shape)] = _plain(value)

    def __repr__(self) -> str:
        return f"standin({self._array!r})"


def _items(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _is_mask(item: Any) -> bool:
    return isinstance(item, ndarray | np.ndarray) and item.dtype == np.bool_


def _key(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The key for NumPy: with `...`, so that one element is a 0-d view, too.

    Indices in arrays wrap around, as CuPy cannot say that one is out of range.
    """
    items = _items(key)
    if not any(x is Ellipsis for x in items):
        items = (*items, Ellipsis)
    wide = [_axes(item) for item in items]
    found, axis = [], 0
    for item, step in zip(items, wide, strict=True):
        if isinstance(item, ndarray):
            item = item._array if _is_mask(item) else _around(item, shape[axis])
        found.append(item)
        axis += len(shape) - sum(wide) if item is Ellipsis else step
    return tuple(found)


def _axes(item: Any) -> int:
    """How many axes an index item takes; those of `...` are the others."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if _is_mask(item) else 1


def _around(index: ndarray, length: int) -> np.ndarray:
    return index._array % max(1, length)


_BINARY = "add sub mul truediv floordiv mod pow and or xor lshift rshift"
_HOST = "float int bool index complex array array_ufunc array_function dlpack"
for _name in _BINARY.split():
    _function = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _binary(_name, _function, False))
    setattr(ndarray, f"__r{_name}__", _binary(_name, _function, True))
    setattr(ndarray, f"__i{_name}__", _in_place(_name, getattr(operator, f"__i{_name}__")))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(_name, getattr(operator, _name), False))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(_name, getattr(operator, _name)))
for _name in _HOST.split():
    setattr(ndarray, f"__{_name}__", _waits(_name))


def _no_product(*_: Any) -> Any:
    raise Synchronised("x @ y calls cuBLAS, which graphs refuse; use the table's matmul")


ndarray.__matmul__ = ndarray.__rmatmul__ = _no_product  # type: ignore[attr-defined]
ndarray.__hash__ = None  # type: ignore[assignment]


def _asnumpy(x: Any, *_: Any, **__: Any) -> np.ndarray:
    return x.get() if isinstance(x, ndarray) else np.asarray(x)


def _array(function: Callable[..., Any]) -> Callable[..., Any]:
    """A constructor, which takes NumPy's arrays, too."""

    def construct(x: Any, *args: Any, **kwargs: Any) -> ndarray:
        _check(f"cupy.{function.__name__}", kwargs)
        x = x.copy() if isinstance(x, np.ndarray) else _plain(x)  # to other memory
        return _wrapped(function(x, *args, **kwargs))

    return construct


def _uninitialised(name: str) -> Callable[..., Any]:
    """A constructor whose arrays hold NaN or -1 in every byte: nobody may read what it left."""

    def construct(*args: Any, **kwargs: Any) -> ndarray:
        _check(f"cupy.{name}", kwargs)
        given = {key: _plain(value) for key, value in kwargs.items()}
        array = getattr(np, name)(*map(_plain, args), **given)
        array.ravel(order="K").view(np.uint8)[...] = 1 if array.dtype == np.bool_ else 0xFF
        return _wrapped(array)

    return construct


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if not isinstance(condition, ndarray):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    if x is None:
        return _wrapped(np.nonzero(condition._array))
    chosen = np.where(condition._array, _operand(x), _operand(y))
    return _wrapped(np.asarray(chosen, order="C"))


def _take(x: ndarray, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    return _wrapped(np.take(x._array, _plain(indices), axis, mode="wrap"))


def _take_along_axis(x: ndarray, index: ndarray, axis: Any) -> ndarray:
    length = x.size if axis is None else x.shape[axis]
    return _wrapped(np.take_along_axis(x._array, _around(index, length), axis))


def _broadcast_arrays(*xs: Any) -> list[ndarray]:
    # NumPy's own warns whoever asks whether its results can be written
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    return [_wrapped(np.broadcast_to(_plain(x), shape)) for x in xs]


def _copyto(target: Any, source: Any, casting: Any = "same_kind", where: Any = None) -> None:
    mask = True if where is None else _plain(where)
    np.copyto(target._array, _operand(source), casting=casting, where=mask)


class Module(types.ModuleType):
    """One of CuPy's modules: its own names here, NumPy's or SciPy's for the others it has."""

    def __init__(self, name: str, source: Any, own: dict[str, Any]) -> None:
        super().__init__(name)
        self._source = source
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        full = f"{self.__name__}.{name}"
        if full not in known():
            raise AttributeError(f"CuPy has no {full}")
        value = getattr(self._source, name)
        if known()[full] == "(ufunc)":
            return Ufunc(full, value)
        return Function(full, value) if _is_function(value) else value


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


class _Device:
    """The one GPU there is."""

    def __init__(self, id: int = 0) -> None:
        self.id = id

    def use(self) -> None:
        """It is in use."""

    def synchronize(self) -> None:
        """All work is done when it is asked for."""


def _one_gpu() -> types.SimpleNamespace:
    """Of `cupy.cuda` what says that there is one GPU, which is the current one."""
    runtime = types.SimpleNamespace(getDevice=lambda: 0, getDeviceCount=lambda: 1)
    stream = types.SimpleNamespace(synchronize=lambda: None)
    return types.SimpleNamespace(
        runtime=runtime, Device=_Device, get_current_stream=lambda index=None: stream
    )


def modules() -> dict[str, types.ModuleType]:
    """`sys.modules` with the stand-in: "cupy" and "cupyx", and what belongs to them."""
    # in place of CuPy's special functions; the extra `test` has it
    import scipy.special

    constructors = (np.array, np.asarray, np.asanyarray, np.ascontiguousarray)
    own = {f.__name__: _array(f) for f in constructors}
    own.update({name: _uninitialised(name) for name in ("empty", "empty_like")})
    own.update(
        ndarray=ndarray,
        asnumpy=_asnumpy,
        where=_where,
        copyto=_copyto,
        take=_take,
        take_along_axis=_take_along_axis,
        broadcast_arrays=_broadcast_arrays,
    )
    cupy = Module("cupy", np, own)
    cupy.__version__ = "14.2.0"  # type: ignore[attr-defined]
    cupy.__spec__ = ModuleSpec("cupy", None)
    cupy.cuda = _one_gpu()  # type: ignore[attr-defined]
    cupy.linalg = Module("cupy.linalg", np.linalg, {})  # type: ignore[attr-defined]
    lib = types.ModuleType("cupy.lib")
    strides = Module("cupy.lib.stride_tricks", np.lib.stride_tricks, {})
    lib.stride_tricks = strides  # type: ignore[attr-defined]
    cupy.lib = lib  # type: ignore[attr-defined]
    rsqrt = Ufunc("cupyx.rsqrt", lambda x, out=None: np.reciprocal(np.sqrt(x), out=out))
    cupyx = Module(
        "cupyx",
        None,
        {
            "errstate": lambda **_: nullcontext(),
            "rsqrt": rsqrt,
            "scatter_add": lambda x, places, values: x.scatter_add(places, values),
        },
    )
    # SciPy's own gives infinity for denormal numbers
    gammaln = Ufunc("cupyx.scipy.special.gammaln", lambda x, out=None: lgamma(x))
    special = Module("cupyx.scipy.special", scipy.special, {"gammaln": gammaln})
    return {
        "cupy": cupy,
        "cupy.linalg": cupy.linalg,
        "cupy.lib": lib,
        "cupy.lib.stride_tricks": strides,
        "cupyx": cupyx,
        "cupyx.scipy": types.ModuleType("cupyx.scipy"),
        "cupyx.scipy.special": special,
    }


@contextmanager
def installed() -> Iterator[Kernels]:
    """Run the block with the stand-in for CuPy and, in this thread, the best table over it."""
    stand = modules()
    before = {name: sys.modules.get(name) for name in stand}
    tables, active = {name: TABLES.get(name) for name in cuda.NAMES}, local.state.cuda
    try:
        sys.modules.update(stand)
        cuda.missing.cache_clear()
        cupy_gpu.forget()
        cuda.build_tables()
        local.state.cuda = TABLES["cuda"]
        yield TABLES["cuda"]
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
        cuda.missing.cache_clear()
        cupy_gpu.forget()
        for name, table in tables.items():
            TABLES.pop(name, None)
            if table is not None:
                TABLES[name] = table
        local.state.cuda = active

"""minidl: an eager deep-learning engine with PyTorch's names, small enough to read."""

import sys as _sys
from importlib import import_module as _import_module
from math import e as e, inf as inf, nan as nan, pi as pi
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from minidl import (
    autograd as autograd,
    backends as backends,
    data as data,
    linalg as linalg,
    nn as nn,
    optim as optim,
    profiler as profiler,
    special as special,
)
from minidl.autograd import (
    enable_grad as enable_grad,
    inference_mode as inference_mode,
    is_grad_enabled as is_grad_enabled,
    is_inference_mode_enabled as is_inference_mode_enabled,
    no_grad as no_grad,
    set_grad_enabled as set_grad_enabled,
)
from minidl.backends import (
    Device as _Device,
    cuda as cuda,
    get_num_threads as get_num_threads,
    set_num_threads as set_num_threads,
)
from minidl.dtypes import (
    DType as _DType,
    bfloat16 as bfloat16,
    bool_ as bool_,
    can_cast as can_cast,
    double as double,
    finfo as finfo,
    float16 as float16,
    float32 as float32,
    float64 as float64,
    get_default_dtype as get_default_dtype,
    half as half,
    iinfo as iinfo,
    int8 as int8,
    int16 as int16,
    int32 as int32,
    int64 as int64,
    long as long,
    promote_types as promote_types,
    result_type as result_type,
    set_default_dtype as set_default_dtype,
    short as short,
    uint8 as uint8,
)
from minidl.errors import (
    ArgumentError as ArgumentError,
    DeviceError as DeviceError,
    DTypeError as DTypeError,
    GradientError as GradientError,
    MinidlError as MinidlError,
    OutOfMemoryError as OutOfMemoryError,
    OutOfRangeError as OutOfRangeError,
    ShapeError as ShapeError,
    UnsupportedError as UnsupportedError,
)
from minidl.ops.activation import *
from minidl.ops.along import *
from minidl.ops.arithmetic import *
from minidl.ops.arrange import *
from minidl.ops.attention import *
from minidl.ops.checkpoint import checkpoint as checkpoint
from minidl.ops.compare import *
from minidl.ops.convert import *
from minidl.ops.creation import *
from minidl.ops.ctc import *
from minidl.ops.cumulative import *
from minidl.ops.distance import *
from minidl.ops.embedding import *
from minidl.ops.index import *
from minidl.ops.likelihood import *
from minidl.ops.linalg import *
from minidl.ops.linear import *
from minidl.ops.loss import *
from minidl.ops.margin import *
from minidl.ops.matmul import *
from minidl.ops.noise import *
from minidl.ops.norm import *
from minidl.ops.random import *
from minidl.ops.reduce import *
from minidl.ops.sampling import *
from minidl.ops.select import *
from minidl.ops.softmax import *
from minidl.ops.sort import *
from minidl.ops.special import *
from minidl.ops.statistics import *
from minidl.ops.transcendental import *
from minidl.ops.views import *
from minidl.tensor import (
    Parameter as Parameter,
    Tensor as Tensor,
    from_dlpack as from_dlpack,
    set_printoptions as set_printoptions,
)

__version__ = "0.1.0"

device, dtype = _Device, _DType
bool = bool_  # noqa: A001 - PyTorch's names of the dtypes
float = float32  # noqa: A001
int = int32  # noqa: A001


# What few programs use is imported at its first use: it would take a sixth of the import.
_LATER = {
    "distributions": "distributions",
    "func": "func",
    "load": "serialization",
    "save": "serialization",
    "serialization": "serialization",
    "vmap": "func",
}
if _TYPE_CHECKING:
    from minidl import distributions as distributions, func as func, serialization as serialization
    from minidl.func import vmap as vmap
    from minidl.serialization import load as load, save as save


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import_module(f"{__name__}.{_LATER[name]}")
    return module if name == _LATER[name] else globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


# `minidl.autograd.functional` is built on operators and modules, which autograd lies below.
_functional = _ModuleType("minidl.autograd.functional", "See `minidl.func.functional`.")
_functional.__getattr__ = lambda name: getattr(_import_module("minidl.func.functional"), name)  # type: ignore[attr-defined]
_sys.modules[_functional.__name__] = autograd.functional = _functional  # type: ignore[attr-defined]

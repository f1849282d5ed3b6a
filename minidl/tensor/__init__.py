"""Tensor, storage and views; how they print and how they are shared with other libraries."""

from minidl.tensor.core import Parameter, Storage, Tensor, View, as_device, replay
from minidl.tensor.interchange import from_dlpack
from minidl.tensor.printing import set_printoptions

__all__ = [
    "Parameter",
    "Storage",
    "Tensor",
    "View",
    "as_device",
    "from_dlpack",
    "replay",
    "set_printoptions",
]

"""Tensor, storage and views."""

from minidl.tensor.core import Parameter, Storage, Tensor, View, as_device, replay

__all__ = ["Parameter", "Storage", "Tensor", "View", "as_device", "replay"]

"""Saving and loading: nested states as safetensors files; PyTorch's by a restricted reader."""

from minidl.serialization.atomic import write_atomic
from minidl.serialization.files import load, save

__all__ = ["load", "save", "write_atomic"]

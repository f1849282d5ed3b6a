"""PyTorch's `nn.modules`: the base class, and the hooks of all modules in `module`."""

from minidl.nn.module import Module
from minidl.nn.modules import module

__all__ = ["Module", "module"]

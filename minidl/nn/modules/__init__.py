"""PyTorch's `nn.modules`: the base class, hooks of all modules in `module`, and `lazy`."""

from minidl.nn.module import Module
from minidl.nn.modules import lazy, module

__all__ = ["Module", "lazy", "module"]

"""minidl: an eager deep-learning engine with PyTorch's names, small enough to read."""

__version__ = "0.1.0"

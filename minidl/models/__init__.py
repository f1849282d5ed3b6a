"""Model families."""

from minidl.models.gpt import GPT
from minidl.models.mlp import MLP, Standardize

__all__ = ["GPT", "MLP", "Standardize"]

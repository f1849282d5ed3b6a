"""Model families and their weights on disk."""

from minidl.models.gpt import GPT
from minidl.models.mlp import MLP, Standardize
from minidl.models.weights import load_weights, weights_bytes

__all__ = ["GPT", "MLP", "Standardize", "load_weights", "weights_bytes"]

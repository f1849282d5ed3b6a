"""Helpers around modules, under PyTorch's names; `prune` is imported by itself, as there."""

from minidl.nn.utils import parametrizations, parametrize, rnn
from minidl.nn.utils.clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from minidl.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from minidl.nn.utils.init import skip_init
from minidl.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
from minidl.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]

"""Multilayer perceptrons, and the scaling of their input as a part of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import minidl.ops as ops
from minidl import nn
from minidl.errors import ArgumentError
from minidl.tensor import Tensor

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class Standardize(nn.Module):
    """Subtract a mean and divide by a scale; both are buffers and travel with the weights.

    x: (..., F) -> same. `mean` and `scale`: (F,), or (1,) for one value for all features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        if not (np.isfinite(scale).all() and (np.asarray(scale) > 0).all()):
            raise ArgumentError("scale must be positive and finite", operator="Standardize")
        self.register_buffer("mean", ops.tensor(np.atleast_1d(mean).astype(np.float32)))
        self.register_buffer("scale", ops.tensor(np.atleast_1d(scale).astype(np.float32)))

    @classmethod
    def fit(cls, x: np.ndarray) -> Standardize:
        """Take mean and deviation of every column of `x`: (N, F); a constant column keeps 1."""
        scale = x.std(0)
        return cls(x.mean(0), np.where(scale > 0, scale, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled input."""
        return (x - self.mean) / self.scale

    def extra_repr(self) -> str:
        """Say how many features there are."""
        return str(self.mean.shape[0])


class MLP(nn.Module):
    """Linear layers with an activation and dropout after each but the last.

    x: (N, sizes[0]) -> (N, sizes[-1]). `scaler` runs before the first layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        scaler: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ArgumentError(
                "sizes must be at least an input and an output size, all positive",
                operator="MLP",
                got=str(tuple(sizes)),
            )
        if activation not in ACTIVATIONS:
            raise ArgumentError(
                f"activation must be one of {', '.join(ACTIVATIONS)}",
                operator="MLP",
                got=repr(activation),
            )
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes[:-2], sizes[1:-1], strict=True):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.scaler = nn.Identity() if scaler is None else scaler
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's values (logits)."""
        return self.layers(self.scaler(x))

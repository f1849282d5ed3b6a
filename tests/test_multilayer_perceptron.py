"""The multilayer perceptron of the classical derivation, with its deltas by hand.

Sigmoid layers and binary cross-entropy (Rumelhart, Hinton and Williams 1986): with a = sigmoid(z),
the delta of the output layer is (a - t) / N, that of a hidden layer (delta_next @ W_next) * a *
(1 - a), and the gradients are dW = delta.T @ a_previous, db = sum of delta over the batch.
"""

from __future__ import annotations

import numpy as np
import pytest

from minidl import nn
from minidl.nn import functional as F  # noqa: N812
from minidl.tensor import Tensor

SIZES = [[5, 1], [5, 7, 1], [4, 6, 5, 3]]


def by_hand(
    weights: list[np.ndarray], biases: list[np.ndarray], x: np.ndarray, t: np.ndarray
) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
    activations = [x]
    for w, b in zip(weights, biases, strict=True):
        activations.append(1 / (1 + np.exp(-(activations[-1] @ w.T + b))))
    a = activations[-1]
    loss = -np.mean(t * np.log(a) + (1 - t) * np.log(1 - a))
    delta = (a - t) / t.size
    dw, db = [], []
    for layer in range(len(weights) - 1, -1, -1):
        dw.insert(0, delta.T @ activations[layer])
        db.insert(0, delta.sum(0))
        a = activations[layer]
        delta = (delta @ weights[layer]) * a * (1 - a)
    return float(loss), dw, db


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("logits", [False, True], ids=["probabilities", "logits"])
def test_gradients_equal_the_deltas(sizes: list[int], logits: bool) -> None:
    rng = np.random.default_rng(0)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.Sigmoid()]
    model = nn.Sequential(*layers[:-1] if logits else layers).double()
    x = rng.standard_normal((11, sizes[0]))
    t = rng.integers(0, 2, (11, sizes[-1])).astype(float)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    loss, dw, db = by_hand(
        [layer.weight.detach().numpy() for layer in linear],
        [layer.bias.detach().numpy() for layer in linear],
        x,
        t,
    )
    loss_function = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy
    ours = loss_function(model(Tensor(x)), Tensor(t))
    ours.backward()
    assert abs(ours.item() - loss) <= 1e-10
    for layer, w, b in zip(linear, dw, db, strict=True):
        np.testing.assert_allclose(layer.weight.grad.numpy(), w, rtol=0, atol=1e-10)
        np.testing.assert_allclose(layer.bias.grad.numpy(), b, rtol=0, atol=1e-10)

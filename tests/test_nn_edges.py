"""Modules and losses at their edges: other dtypes, second derivatives, copies, no targets."""

import collections
import copy
import warnings

import numpy as np
import pytest

import minidl
import minidl.ops as ops
from minidl import nn
from minidl.errors import GradientError
from minidl.nn import functional


def test_second_derivatives_of_ctc_are_refused():
    x = ops.randn(4, 1, 3).double().requires_grad_()
    loss = functional.ctc_loss(x.log_softmax(-1), ops.tensor([[1]]), (4,), (1,))
    (g,) = minidl.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(GradientError, match="ctc_loss"):
        minidl.autograd.grad((g * g).sum(), x)


def test_nan_reaches_the_gradient_of_ctc():
    values = np.zeros((4, 2, 3))
    values[1, 0, 0] = np.nan
    x = ops.tensor(values, requires_grad=True)
    loss = functional.ctc_loss(x, ops.tensor([[1, 2], [1, 2]]), (4, 4), (2, 2), reduction="none")
    loss.sum().backward()
    assert np.isnan(loss.detach().numpy()).tolist() == [True, False]
    assert np.isnan(x.grad.numpy()[:, 0]).any() and np.isfinite(x.grad.numpy()[:, 1]).all()


def test_masks_of_another_dtype_with_dropout():
    q, mask = ops.ones(1, 1, 4, 8).to(minidl.bfloat16), ops.zeros(4, 4)
    for p in (0.0, 0.5):
        out = functional.scaled_dot_product_attention(q, q, q, mask, dropout_p=p)
        assert out.dtype is minidl.bfloat16


def test_copies_of_parameters_have_no_gradient():
    layer = nn.Linear(2, 1)
    layer(ops.ones(1, 2)).sum().backward()
    copied = copy.deepcopy(layer)
    assert copied.weight.grad is None and layer.weight.grad is not None
    leaf = ops.ones(2).requires_grad_()
    leaf.sum().backward()
    assert copy.deepcopy(leaf).grad is not None


def test_axes_of_weight_norm():
    make = nn.utils.parametrizations.weight_norm
    assert make(nn.Linear(2, 3), dim=-2).parametrizations.weight.original0.shape == (3, 1)
    with pytest.raises(IndexError):
        make(nn.Linear(2, 3), dim=5)


def test_named_tuples_pass_backward_hooks():
    pair = collections.namedtuple("pair", "p q")

    class Both(nn.Module):
        def forward(self, x):
            return pair(x * 2, x * 3)

    module = Both()
    module.register_full_backward_hook(lambda module, before, after: None)
    assert module(ops.ones(1, requires_grad=True)).p.item() == 2


def test_targets_that_are_broadcast_are_told():
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        with pytest.warns(UserWarning, match=rf"\[{name}\].*broadcast"):
            getattr(functional, name)(ops.ones(3, 1), ops.ones(3))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            getattr(functional, name)(ops.ones(3, 1), ops.ones(3, 1))
        assert not told


def test_no_target_and_label_smoothing():
    x = ops.ones(2, 4, requires_grad=True)
    loss = functional.cross_entropy(x, ops.tensor([-100, -100]), label_smoothing=0.1)
    (g,) = minidl.autograd.grad(loss, x, create_graph=True)
    assert np.isnan(loss.item()) and not g.any()


def test_margins_of_numbers_are_refused():
    with pytest.raises(ValueError, match="needs"):
        functional.multi_margin_loss(ops.tensor(1.0), ops.tensor(0))

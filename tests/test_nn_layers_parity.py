"""Further layers against PyTorch: outputs, all gradients, state in both directions, repr."""

import numpy as np
import pytest
from test_nn_parity import compare, normal

import minidl.ops as ops
from minidl import nn
from minidl.errors import ArgumentError, ShapeError
from minidl.nn import functional as F  # noqa: N812

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

LAYERS = {
    "prelu": (lambda n: n.PReLU(), (5, 4)),
    "prelu of channels": (lambda n: n.PReLU(4, init=0.1), (5, 4, 3)),
    "prelu of one axis": (lambda n: n.PReLU(), (4,)),
    "threshold": (lambda n: n.Threshold(0.3, -2.0), (5, 4)),
    "hardshrink": (lambda n: n.Hardshrink(0.4), (5, 4)),
    "softshrink": (lambda n: n.Softshrink(0.4), (5, 4)),
    "rrelu": (lambda n: n.RReLU(0.1, 0.3).eval(), (5, 4)),
    "softmax2d": (lambda n: n.Softmax2d(), (2, 3, 4, 5)),
    "softmax2d without batch": (lambda n: n.Softmax2d(), (3, 4, 5)),
    "group norm": (lambda n: n.GroupNorm(2, 4), (3, 4, 5)),
    "group norm of rows": (lambda n: n.GroupNorm(2, 6, eps=1e-3), (5, 6)),
    "group norm, plain": (lambda n: n.GroupNorm(1, 4, affine=False), (3, 4, 2, 2)),
    "group norm, no bias": (lambda n: n.GroupNorm(4, 4, bias=False), (3, 4, 3)),
    "unflatten": (lambda n: n.Unflatten(1, (2, -1)), (3, 6, 2)),
    "dropout1d": (lambda n: n.Dropout1d(0.5).eval(), (2, 3, 4)),
    "dropout2d": (lambda n: n.Dropout2d(0.5).eval(), (2, 3, 4, 4)),
    "dropout3d": (lambda n: n.Dropout3d(0.5).eval(), (2, 3, 4, 2, 2)),
    "alpha dropout": (lambda n: n.AlphaDropout(0.5).eval(), (5, 4)),
    "feature alpha dropout": (lambda n: n.FeatureAlphaDropout(0.3).eval(), (5, 4)),
}
PAIRS = {
    "bilinear": (lambda n: n.Bilinear(3, 4, 2), (5, 3), (5, 4)),
    "bilinear of more axes": (lambda n: n.Bilinear(3, 4, 2, bias=False), (2, 5, 3), (2, 5, 4)),
    "cosine": (lambda n: n.CosineSimilarity(), (5, 4), (5, 4)),
    "cosine of the last axis": (lambda n: n.CosineSimilarity(-1, 1e-3), (2, 5, 4), (5, 4)),
    "distance": (lambda n: n.PairwiseDistance(), (5, 4), (5, 4)),
    "distance 1": (lambda n: n.PairwiseDistance(1.0, 0.1, keepdim=True), (2, 5, 4), (5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, shape = LAYERS[name]
    assert repr(make(nn)) == repr(make(torch.nn))
    compare(make(nn), make(torch.nn), [normal(*shape)])


@pytest.mark.parametrize("name", PAIRS)
def test_layers_of_two_inputs(name):
    make, *shapes = PAIRS[name]
    assert repr(make(nn)) == repr(make(torch.nn))
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    compare(make(nn), make(torch.nn), arrays)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")])
def test_distances_of_all_pairs(p):
    x, y = normal(2, 5, 3), normal(2, 4, 3, seed=1)
    for mine, other in (
        (ops.cdist(ops.tensor(x), ops.tensor(y), p), torch.cdist(*map(torch.tensor, (x, y)), p)),
        (F.pdist(ops.tensor(x[0]), p), torch.nn.functional.pdist(torch.tensor(x[0]), p)),
    ):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-10)


def test_equal_points_have_a_gradient_of_zero():
    x = ops.zeros(3, 2).requires_grad_()
    F.pdist(x).sum().backward()
    assert x.grad.eq(0).all()


CHANNELS = {
    "Dropout1d": [(40, 30, 5), (300, 5)],
    "Dropout2d": [(40, 30, 2, 3), (40, 30, 5)],
    "Dropout3d": [(40, 30, 2, 2, 2), (300, 2, 2, 2)],
    "FeatureAlphaDropout": [(40, 30, 5)],
}


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in CHANNELS for s in CHANNELS[n]])
def test_channels_are_dropped_as_a_whole(name, shape):
    ops.manual_seed(0)
    layer = getattr(nn, name)(0.25)
    x = ops.ones(shape, requires_grad=True)
    y = layer(x)
    spatial = {"Dropout1d": 1, "Dropout2d": 2, "Dropout3d": 3}.get(name, len(shape) - 2)
    if shape == (40, 30, 5):
        spatial = 1
    rows = y.detach().numpy().reshape(-1, int(np.prod(shape[len(shape) - spatial :])))
    assert (rows == rows[:, :1]).all()
    dropped = (rows[:, 0] < 0.5).mean()
    assert abs(dropped - 0.25) < 0.1
    y.sum().backward()
    if name != "FeatureAlphaDropout":
        np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


@pytest.mark.filterwarnings("ignore:dropout2d")  # PyTorch's, of what 3 axes may mean one day
def test_dropout2d_knows_batches_as_pytorch_does():
    shapes = [(6, 5, 4), (6, 5, 4, 3)]
    for shape in shapes:
        torch.manual_seed(0)
        theirs = torch.nn.functional.dropout2d(torch.ones(shape), 0.5).numpy()
        mine = F.dropout2d(ops.ones(shape), 0.5).numpy()
        for y in (mine, theirs):
            whole = y.reshape(30, -1)
            assert (whole == whole[:, :1]).all() and len(np.unique(whole[:, 0])) == 2


def test_alpha_dropout_keeps_mean_and_variance():
    ops.manual_seed(1)
    x = ops.randn(200_000)
    for p in (0.1, 0.5):
        y = F.alpha_dropout(x, p, training=True)
        assert abs(y.mean().item()) < 0.02 and abs(y.std().item() - 1) < 0.02
        values = np.unique(y.numpy()[y.numpy() < y.min().item() + 1e-6])
        assert len(values) < len(x) / 10
    np.testing.assert_array_equal(F.alpha_dropout(x, 0.5).numpy(), x.numpy())


def test_rrelu_draws_slopes_in_its_limits():
    ops.manual_seed(2)
    x = ops.full((1000,), -2.0).requires_grad_()
    y = F.rrelu(x, 0.1, 0.3, training=True)
    slopes = (y / x).detach().numpy()
    assert slopes.min() >= 0.1 and slopes.max() <= 0.3 and slopes.std() > 0.03
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), slopes, rtol=1e-6)
    assert F.rrelu(ops.ones(3), training=True).eq(1).all()


def test_gumbel_softmax_draws_the_categories():
    ops.manual_seed(3)
    share = np.array([0.5, 0.3, 0.2])
    logits = ops.tensor(np.log(np.tile(share, (20_000, 1)))).requires_grad_()
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True)
    assert set(np.unique(hard.detach().numpy().round(12))) == {0.0, 1.0}
    np.testing.assert_allclose(hard.mean(0).detach().numpy(), share, atol=0.02)
    (hard * ops.tensor([1.0, 2.0, 3.0]).double()).sum().backward()
    assert logits.grad.abs().sum() > 0
    soft = F.gumbel_softmax(logits.detach(), tau=2.0)
    np.testing.assert_allclose(soft.sum(-1).numpy(), 1)


def test_in_place_forms_write_their_input():
    for layer in (nn.Threshold(0.0, 5.0, inplace=True), nn.RReLU(inplace=True).eval(),
                  nn.Dropout1d(0.5, inplace=True), nn.AlphaDropout(0.5, inplace=True)):  # fmt: skip
        x = ops.ones(2, 3, 4) * -1
        y = layer(x)
        assert y is x


WRONG = [
    (lambda: nn.GroupNorm(3, 4), ArgumentError, "multiple"),
    (lambda: F.group_norm(ops.zeros(2, 4), 3), ArgumentError, "divide"),
    (lambda: F.group_norm(ops.zeros(4), 2), ShapeError, "2 axes"),
    (lambda: F.group_norm(ops.zeros(2, 4), 2, ops.ones(3)), ShapeError, "weight"),
    (lambda: F.prelu(ops.zeros(2, 4), ops.ones(3)), ShapeError, "channel"),
    (lambda: F.softshrink(ops.zeros(2), -1), ArgumentError, "negative"),
    (lambda: F.dropout1d(ops.zeros(2)), ShapeError, "2 or 3"),
    (lambda: F.alpha_dropout(ops.zeros(2), 1.5), ArgumentError, "probability"),
    (lambda: nn.Dropout3d(-0.1), ArgumentError, "Dropout3d"),
    (lambda: ops.cdist(ops.zeros(2, 3), ops.zeros(2, 4)), ShapeError, "P, D"),
    (lambda: ops.cdist(ops.zeros(2, 3), ops.zeros(2, 3), -1), ArgumentError, "negative"),
    (lambda: F.pdist(ops.zeros(3)), ShapeError, "N, D"),
    (lambda: nn.Softmax2d()(ops.zeros(3)), ShapeError, "C, H, W"),
    (lambda: nn.Unflatten("channels", (2, 3)), NotImplementedError, "named"),
    (lambda: nn.Bilinear(0, 2, 3), ArgumentError, "positive"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()

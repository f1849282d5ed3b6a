"""Modules against PyTorch: outputs, all gradients, state in both directions."""

from collections import OrderedDict

import numpy as np
import pytest

import minidl.ops as ops
from minidl import nn

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")


def transfer(source, target) -> None:
    """Give PyTorch's module the weights of ours, through NumPy."""
    state = {k: torch.tensor(v.numpy()) for k, v in source.state_dict().items()}
    target.load_state_dict(state, strict=True)


def compare(ours, theirs, inputs, options=None, tolerance=1e-10):
    """Run both on float64 copies of `inputs`; compare outputs, input and parameter gradients."""
    options = options or {}
    ours, theirs = ours.double(), theirs.double()
    transfer(ours, theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    floating = [np.issubdtype(a.dtype, np.floating) for a in inputs]
    x = [ops.tensor(a) for a in inputs]
    y = [torch.tensor(a) for a in inputs]
    for a, b, is_float in zip(x, y, floating, strict=True):
        a.requires_grad_(is_float)
        b.requires_grad_(is_float)
    mine = ours(
        *x, **{k: ops.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    )
    other = theirs(
        *y, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    )
    mine = [m for m in (mine if isinstance(mine, tuple) else (mine,)) if m is not None]
    other = [o for o in (other if isinstance(other, tuple) else (other,)) if o is not None]
    assert len(mine) == len(other)
    total, reference = 0, 0
    for m, o in zip(mine, other, strict=True):
        close(m.detach(), o.detach(), tolerance)
        g = np.random.default_rng(9).normal(size=tuple(o.shape))
        total = total + (m * ops.tensor(g)).sum()
        reference = reference + (o * torch.tensor(g)).sum()
    total.backward()
    reference.backward()
    for a, b, is_float in zip(x, y, floating, strict=True):
        if is_float:
            close(a.grad, b.grad, tolerance)
    gradients = dict(theirs.named_parameters())
    for name, param in ours.named_parameters():
        close(param.grad, gradients[name].grad, tolerance)
        param.grad = None


def close(mine, other, tolerance):
    np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=tolerance, atol=tolerance)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


LAYERS = {
    "linear": (lambda n: n.Linear(4, 3), (5, 4)),
    "linear without bias": (lambda n: n.Linear(4, 3, bias=False), (2, 5, 4)),
    "layer norm": (lambda n: n.LayerNorm(4), (2, 5, 4)),
    "layer norm of two axes": (lambda n: n.LayerNorm((5, 4), eps=1e-3), (2, 5, 4)),
    "layer norm without weights": (lambda n: n.LayerNorm(4, elementwise_affine=False), (5, 4)),
    "layer norm without bias": (lambda n: n.LayerNorm(4, bias=False), (5, 4)),
    "rms norm": (lambda n: n.RMSNorm(4), (2, 5, 4)),
    "rms norm eps": (lambda n: n.RMSNorm(4, eps=0.1, elementwise_affine=False), (5, 4)),
    "relu": (lambda n: n.ReLU(), (5, 4)),
    "leaky relu": (lambda n: n.LeakyReLU(0.2), (5, 4)),
    "elu": (lambda n: n.ELU(1.5), (5, 4)),
    "celu": (lambda n: n.CELU(0.7), (5, 4)),
    "selu": (lambda n: n.SELU(), (5, 4)),
    "mish": (lambda n: n.Mish(), (5, 4)),
    "hardswish": (lambda n: n.Hardswish(), (5, 4)),
    "hardsigmoid": (lambda n: n.Hardsigmoid(), (5, 4)),
    "hardtanh": (lambda n: n.Hardtanh(-0.5, 0.25), (5, 4)),
    "relu6": (lambda n: n.ReLU6(), (5, 4)),
    "log sigmoid": (lambda n: n.LogSigmoid(), (5, 4)),
    "softsign": (lambda n: n.Softsign(), (5, 4)),
    "tanhshrink": (lambda n: n.Tanhshrink(), (5, 4)),
    "glu": (lambda n: n.GLU(0), (6, 4)),
    "softmin": (lambda n: n.Softmin(-1), (5, 4)),
    "gelu": (lambda n: n.GELU(), (5, 4)),
    "gelu tanh": (lambda n: n.GELU("tanh"), (5, 4)),
    "silu": (lambda n: n.SiLU(), (5, 4)),
    "sigmoid": (lambda n: n.Sigmoid(), (5, 4)),
    "tanh": (lambda n: n.Tanh(), (5, 4)),
    "softplus": (lambda n: n.Softplus(2.0, 1.0), (5, 4)),
    "softmax": (lambda n: n.Softmax(-1), (5, 4)),
    "log softmax": (lambda n: n.LogSoftmax(0), (5, 4)),
    "flatten": (lambda n: n.Flatten(), (5, 4, 2)),
    "dropout": (lambda n: n.Dropout(0.5).eval(), (5, 4)),
    "sequential": (
        lambda n: n.Sequential(n.Linear(4, 8), n.Tanh(), n.LayerNorm(8), n.Linear(8, 2)),
        (5, 4),
    ),
}


# PyTorch's gradient of these has a constant (1/6, 1/alpha) in float32.
COARSE = {"celu": 1e-7, "hardsigmoid": 1e-7}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    make, shape = LAYERS[name]
    assert repr(make(nn)) == repr(make(torch.nn))
    compare(make(nn), make(torch.nn), [normal(*shape)], tolerance=COARSE.get(name, 1e-10))


def test_embedding():
    index = np.array([[1, 0, 4], [4, 4, 2]])
    compare(nn.Embedding(5, 3), torch.nn.Embedding(5, 3), [index])
    compare(nn.Embedding(5, 3, padding_idx=4), torch.nn.Embedding(5, 3, padding_idx=4), [index])


MASKS = {
    "none": {},
    "bool": {"attn_mask": np.triu(np.ones((4, 6), bool), 3)},
    "float": {"attn_mask": normal(4, 6, seed=3)},
    "per head": {"attn_mask": normal(4, 4, 6, seed=4)},
    "padding": {"key_padding_mask": np.arange(6)[None] >= np.array([[6], [3]])},
    "padding added": {"key_padding_mask": normal(2, 6, seed=5)},
    "both": {
        "attn_mask": np.triu(np.ones((4, 6), bool), 2),
        "key_padding_mask": np.arange(6)[None] >= np.array([[6], [3]]),
    },
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(mask, need_weights, batch_first):
    def make(n):
        return n.MultiheadAttention(8, 2, batch_first=batch_first)

    arrays = [normal(2, 4, 8), normal(2, 6, 8, seed=1), normal(2, 6, 8, seed=2)]
    if not batch_first:
        arrays = [a.swapaxes(0, 1).copy() for a in arrays]
    compare(make(nn), make(torch.nn), arrays, {**MASKS[mask], "need_weights": need_weights})


@pytest.mark.parametrize(
    "options",
    [{"bias": False}, {"kdim": 5, "vdim": 7}, {"kdim": 5, "vdim": 7, "bias": False}],
)
def test_attention_with_other_weights(options):
    arrays = [
        normal(4, 2, 8),
        normal(6, 2, options.get("kdim", 8), seed=1),
        normal(6, 2, options.get("vdim", 8), seed=2),
    ]
    compare(
        nn.MultiheadAttention(8, 4, **options),
        torch.nn.MultiheadAttention(8, 4, **options),
        arrays,
        {"average_attn_weights": False},
    )


def test_unbatched_attention():
    arrays = [normal(4, 8), normal(6, 8, seed=1), normal(6, 8, seed=2)]
    mask = {"key_padding_mask": np.arange(6) >= 4}
    compare(nn.MultiheadAttention(8, 2), torch.nn.MultiheadAttention(8, 2), arrays, mask)


class SelfAttention:
    """One input in the three places, which takes the packed projection."""

    def __new__(cls, n, module):
        class Wrapped(n.Module):
            def __init__(self):
                super().__init__()
                self.attention = module

            def forward(self, x):
                mask = (
                    torch.full((x.shape[1], x.shape[1]), -np.inf, dtype=torch.float64).triu(1)
                    if n is torch.nn
                    else None
                )
                return self.attention(x, x, x, attn_mask=mask, need_weights=False, is_causal=True)[
                    0
                ]

        return Wrapped()


def test_causal_self_attention():
    ours = SelfAttention(nn, nn.MultiheadAttention(8, 2, batch_first=True))
    theirs = SelfAttention(torch.nn, torch.nn.MultiheadAttention(8, 2, batch_first=True))
    compare(ours, theirs, [normal(2, 5, 8)])


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(norm_first, batch_first, activation):
    def make(n):
        return n.TransformerEncoderLayer(
            8, 2, 16, 0.0, activation, norm_first=norm_first, batch_first=batch_first
        )

    padding = np.arange(5)[None] >= np.array([[5], [3], [1]])
    x = normal(3, 5, 8) if batch_first else normal(5, 3, 8)
    compare(make(nn), make(torch.nn), [x], {"src_key_padding_mask": padding})


@pytest.mark.parametrize("bias", [True, False])
def test_encoder(bias):
    def make(n):
        layer = n.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, bias=bias)
        return n.TransformerEncoder(layer, 2, n.LayerNorm(8), enable_nested_tensor=False)

    causal = np.triu(np.full((5, 5), -np.inf), 1)
    compare(make(nn), make(torch.nn), [normal(3, 5, 8)], {"mask": causal})
    assert repr(make(nn)).replace("Linear", "") == repr(make(torch.nn)).replace(
        "NonDynamicallyQuantizableLinear", ""
    ).replace("Linear", "")


def test_state_goes_both_ways():
    def make(n):
        layer = n.TransformerEncoderLayer(8, 2, 16)
        encoder = n.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return n.Sequential(n.Embedding(5, 8), encoder, n.Linear(8, 3))

    theirs, ours = make(torch.nn), make(nn)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    back = make(torch.nn)
    transfer(ours, back)
    for name, value in theirs.state_dict().items():
        assert np.array_equal(ours.state_dict()[name].numpy(), value.numpy()), name
        assert torch.equal(back.state_dict()[name], value), name


PROBABILITIES = 1 / (1 + np.exp(-normal(4, 3)))
CLASSES = np.array([0, 2, -100, 1])
WEIGHTS = np.array([0.5, 2.0, 1.5])

LOSSES = {
    "cross entropy": ("CrossEntropyLoss", {}, normal(4, 3), CLASSES),
    "cross entropy smoothed": (
        "CrossEntropyLoss",
        {"label_smoothing": 0.1, "weight": WEIGHTS},
        normal(4, 3),
        CLASSES,
    ),
    "cross entropy images": (
        "CrossEntropyLoss",
        {"ignore_index": 1},
        normal(2, 3, 2, 2),
        np.array([[[0, 1], [2, 0]], [[1, 1], [2, 2]]]),
    ),
    "cross entropy of probabilities": ("CrossEntropyLoss", {}, normal(4, 3), PROBABILITIES),
    "nll": ("NLLLoss", {"weight": WEIGHTS}, -PROBABILITIES, CLASSES),
    "bce": ("BCELoss", {"weight": WEIGHTS}, PROBABILITIES, PROBABILITIES[::-1].copy()),
    "bce with logits": (
        "BCEWithLogitsLoss",
        {"weight": WEIGHTS, "pos_weight": WEIGHTS[::-1].copy()},
        30 * normal(4, 3),
        PROBABILITIES,
    ),
    "mse": ("MSELoss", {}, normal(4, 3), normal(4, 3, seed=1)),
    "l1": ("L1Loss", {}, normal(4, 3), normal(4, 3, seed=1)),
    "huber": ("HuberLoss", {"delta": 0.7}, normal(4, 3), normal(4, 3, seed=1)),
    "smooth l1": ("SmoothL1Loss", {"beta": 0.7}, normal(4, 3), normal(4, 3, seed=1)),
    "kl": ("KLDivLoss", {}, -PROBABILITIES, PROBABILITIES),
    "kl of logs": ("KLDivLoss", {"log_target": True}, -PROBABILITIES, -PROBABILITIES[::-1].copy()),
}


REDUCED = [(name, reduction) for name in LOSSES for reduction in ("mean", "sum", "none")]
REDUCED += [("kl", "batchmean"), ("kl of logs", "batchmean")]


@pytest.mark.parametrize(("name", "reduction"), REDUCED)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_losses(name, reduction):
    kind, options, x, target = LOSSES[name]

    def make(n, convert):
        converted = {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return getattr(n, kind)(reduction=reduction, **converted)

    ours, theirs = make(nn, ops.tensor), make(torch.nn, torch.tensor)
    if target.dtype == np.float64:
        a, b = ops.tensor(x).requires_grad_(), torch.tensor(x, requires_grad=True)
        mine, other = ours(a, ops.tensor(target)), theirs(b, torch.tensor(target))
        close(mine.detach(), other.detach(), 1e-10)
        mine.sum().backward()
        other.sum().backward()
        close(a.grad, b.grad, 1e-10)
    else:
        compare(ours, theirs, [x, target])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weights_of_distances(name, reduction):
    arrays = [normal(4, 3), normal(4, 3, seed=1), PROBABILITIES]
    ours = [ops.tensor(x).requires_grad_() for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    for module, (x, target, weight) in ((nn, ours), (torch.nn, theirs)):
        loss = getattr(module.functional, name)(x, target, reduction=reduction, weight=weight)
        (loss * loss).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        close(a.grad, b.grad, 1e-10)


def test_sequences_are_joined_repeated_and_cut_alike():
    def run(n):
        net = n.Sequential(OrderedDict(first=n.Linear(2, 2), act=n.Tanh())) + n.Sequential(n.ReLU())
        seen = [repr(net), repr(net * 2), repr(2 * net)]
        net *= 2
        net += n.Sequential(n.Sigmoid())
        seen.append(repr(net))
        named = n.Sequential(OrderedDict(first=n.Linear(2, 2), act=n.Tanh(), last=n.Linear(2, 1)))
        del named[1]
        return [*seen, list(net.state_dict()), list(named.state_dict())]

    assert run(nn) == run(torch.nn)


def test_gains_and_fans():
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain(
        "leaky_relu", 0.3
    )


def test_default_collate():
    from torch.utils.data import default_collate as reference

    from minidl.data import default_collate

    batch = [{"x": np.ones(2, np.float32), "y": (1, 2.5), "z": "a", "w": True}] * 3
    mine, other = default_collate(batch), reference(batch)
    for key in ("x", "w"):
        assert str(mine[key].dtype).split(".")[1] == str(other[key].dtype).split(".")[1]
        assert mine[key].tolist() == other[key].tolist()
    assert [str(v.dtype).split(".")[1] for v in mine["y"]] == ["int64", "float64"]
    assert type(mine["y"]) is type(other["y"]) is list and mine["z"] == other["z"]


def test_full_backward_hooks():
    x = normal(3, 4)

    def run(n, convert):
        seen = []
        net = n.Sequential(n.Linear(4, 4), n.Tanh(), n.Linear(4, 2)).double()
        values = {
            k: convert(normal(*v.shape, seed=i))
            for i, (k, v) in enumerate(net.state_dict().items())
        }
        net.load_state_dict(values)
        net[0].register_full_backward_hook(lambda m, i, o: seen.append(("first", i, o)))
        net[1].register_full_backward_hook(lambda m, i, o: (i[0] * 2,))
        net[2].register_full_backward_pre_hook(lambda m, o: (o[0] * 3,))
        net[2].register_full_backward_hook(lambda m, i, o: seen.append(("last", i, o)))
        net(convert(x).requires_grad_()).sum().backward()
        found = [(name, [g.tolist() for g in (*i, *o)]) for name, i, o in seen]
        return found, [p.grad.tolist() for p in net.parameters()]

    (seen, grads), (other_seen, other_grads) = run(nn, ops.tensor), run(torch.nn, torch.tensor)
    assert [name for name, _ in seen] == [name for name, _ in other_seen] == ["last", "first"]
    for mine, other in zip(
        [*seen[0][1], *seen[1][1], *grads],
        [*other_seen[0][1], *other_seen[1][1], *other_grads],
        strict=True,
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-12)

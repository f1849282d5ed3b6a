"""Losses of margins, likelihoods and alignments against PyTorch."""

import numpy as np
import pytest
from test_nn_parity import normal

import minidl.ops as ops
from minidl import nn
from minidl.autograd import grad
from minidl.errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError
from minidl.nn import functional as F  # noqa: N812

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SIDE = np.where(normal(6) > 0, 1.0, -1.0)
CLASSES = np.array([0, 3, 2, 1, 1, 3])
LABELS = np.array([[0, 2, -1, 1], [3, -1, 0, 0], [1, 0, 2, 3], [-1, 0, 1, 2], [2, -1, -1, -1],
                   [3, 1, -1, 0]])  # fmt: skip
ZEROS = np.zeros((6, 4))

# name: (module, differentiable inputs, other inputs)
LOSSES = {
    "ranking": (
        lambda n, **r: n.MarginRankingLoss(0.3, **r),
        [normal(6), normal(6, seed=1)],
        [SIDE],
    ),
    "ranking, ties": (lambda n, **r: n.MarginRankingLoss(**r), [np.ones(6), np.ones(6)], [SIDE]),
    "hinge": (lambda n, **r: n.HingeEmbeddingLoss(0.7, **r), [abs(normal(6))], [SIDE]),
    "hinge, ties": (lambda n, **r: n.HingeEmbeddingLoss(**r), [np.ones(6)], [SIDE]),
    "soft margin": (lambda n, **r: n.SoftMarginLoss(**r), [20 * normal(6)], [SIDE]),
    "cosine": (
        lambda n, **r: n.CosineEmbeddingLoss(0.1, **r),
        [normal(6, 4), normal(6, 4, seed=1)],
        [SIDE],
    ),
    "cosine of zeros": (lambda n, **r: n.CosineEmbeddingLoss(**r), [ZEROS, normal(6, 4)], [SIDE]),
    "cosine, no batch": (
        lambda n, **r: n.CosineEmbeddingLoss(**r),
        [normal(4), normal(4, seed=1)],
        [np.array(-1.0)],
    ),
    "triplet": (
        lambda n, **r: n.TripletMarginLoss(**r),
        [normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)],
        [],
    ),
    "triplet, swapped": (
        lambda n, **r: n.TripletMarginLoss(0.5, p=1, eps=1e-3, swap=True, **r),
        [normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)],
        [],
    ),
    "triplet, own distance": (
        lambda n, **r: n.TripletMarginWithDistanceLoss(
            distance_function=lambda x, y: (x - y).abs().sum(-1), swap=True, margin=2.0, **r
        ),
        [normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)],
        [],
    ),
    "triplet, default distance": (
        lambda n, **r: n.TripletMarginWithDistanceLoss(**r),
        [normal(6, 4), normal(6, 4, seed=1), normal(6, 4, seed=2)],
        [],
    ),
    "multi margin": (lambda n, **r: n.MultiMarginLoss(**r), [normal(6, 4)], [CLASSES]),
    "multi margin 2": (lambda n, **r: n.MultiMarginLoss(2, 0.5, **r), [normal(6, 4)], [CLASSES]),
    "multi margin, ties": (lambda n, **r: n.MultiMarginLoss(**r), [ZEROS], [CLASSES]),
    "multi margin at the kink": (
        lambda n, **r: n.MultiMarginLoss(**r),
        [np.eye(4)[CLASSES]],
        [CLASSES],
    ),
    "labels": (lambda n, **r: n.MultiLabelMarginLoss(**r), [normal(6, 4)], [LABELS]),
    "labels of one": (lambda n, **r: n.MultiLabelMarginLoss(**r), [normal(4)], [LABELS[0]]),
    "soft labels": (
        lambda n, **r: n.MultiLabelSoftMarginLoss(**r),
        [30 * normal(6, 4)],
        [(normal(6, 4) > 0).astype(float)],
    ),
    "poisson": (lambda n, **r: n.PoissonNLLLoss(**r), [normal(6)], [np.arange(6.0)]),
    "poisson, full": (
        lambda n, **r: n.PoissonNLLLoss(log_input=False, full=True, **r),
        [abs(normal(6))],
        [np.arange(6.0)],
    ),
    "gaussian": (
        lambda n, **r: n.GaussianNLLLoss(**r),
        [normal(6, 4), normal(6, 4, seed=1), abs(normal(6, 4, seed=2))],
        [],
    ),
    "gaussian of one variance a row": (
        lambda n, **r: n.GaussianNLLLoss(full=True, eps=0.5, **r),
        [normal(6, 4), normal(6, 4, seed=1), abs(normal(6, seed=2))],
        [],
    ),
}


def both(arrays, others):
    ours = [ops.tensor(a).requires_grad_() for a in arrays]
    theirs = [torch.tensor(a).requires_grad_() for a in arrays]
    return (ours, [ops.tensor(a) for a in others]), (theirs, [torch.tensor(a) for a in others])


def close(a, b):
    # 1e-8: the epsilon of torch's cosine_embedding_loss is a float32
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, reduction):
    make, arrays, others = LOSSES[name]
    (x, rest), (y, theirs_rest) = both(arrays, others)
    ours, theirs = make(nn, reduction=reduction), make(torch.nn, reduction=reduction)
    assert repr(ours) == repr(theirs)
    mine, other = ours(*x, *rest), theirs(*y, *theirs_rest)
    close(mine, other)
    weights = normal(*other.shape, seed=7)
    (mine * ops.tensor(weights)).sum().backward()
    (other * torch.tensor(weights)).sum().backward()
    for a, b in zip(x, y, strict=True):
        close(a.grad, b.grad)


def test_weights_are_part_of_the_state():
    weight = np.array([0.5, 1.0, 2.0, 3.0])
    for name, target in (
        ("MultiMarginLoss", CLASSES),
        ("MultiLabelSoftMarginLoss", LABELS.clip(0, 1)),
    ):
        ours = getattr(nn, name)(weight=ops.tensor(weight))
        theirs = getattr(torch.nn, name)(weight=torch.tensor(weight))
        assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
        x, y = normal(6, 4), target if name == "MultiMarginLoss" else target.astype(float)
        close(ours(ops.tensor(x), ops.tensor(y)), theirs(torch.tensor(x), torch.tensor(y)))


# ---------------------------------------------------------------- alignments


def alignments(seed=0, steps=12, count=4, classes=5, longest=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(steps, count, classes))
    targets = rng.integers(1, classes, size=(count, longest))
    targets[0, :2] = 2  # a repeated label needs a blank between
    return logits, targets, np.array([12, 9, 12, 11]), np.array([5, 3, 0, 1])


def ctc(api, logits, targets, steps, lengths, **options):
    x = api.tensor(logits).requires_grad_()
    y = api.tensor(targets)
    function = api.nn.functional if api is torch else F
    losses = function.ctc_loss(function.log_softmax(x, -1), y, steps, lengths, **options)
    weights = normal(*losses.shape, seed=3)
    (losses * api.tensor(weights)).sum().backward()
    return losses, x.grad


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("form", ["padded", "joined", "tuples", "blank"])
def test_ctc(form, reduction):
    logits, targets, steps, lengths = alignments()
    options = {"reduction": reduction}
    if form == "joined":
        targets = np.concatenate([t[:n] for t, n in zip(targets, lengths, strict=True)])
    if form == "blank":
        targets, options["blank"] = targets - 1, 4
    found = []
    for api in (ops, torch):
        given = (steps, lengths)
        given = (
            map(tuple, map(np.ndarray.tolist, given))
            if form == "tuples"
            else map(api.tensor, given)
        )
        found.append(ctc(api, logits, targets, *given, **options))
    for a, b in zip(*found, strict=True):
        close(a, b)


def test_ctc_of_one_sequence():
    logits, targets, *_ = alignments()
    found = []
    for api in (ops, torch):
        given = (api.tensor(12), api.tensor(5))
        found.append(ctc(api, logits[:, 1], targets[1], *given))
    for a, b in zip(*found, strict=True):
        close(a, b)


def test_ctc_without_a_way():
    logits, targets, _, _ = alignments()
    steps, lengths = np.array([5, 12, 12, 12]), np.array([5, 5, 5, 5])
    for zero_infinity in (False, True):
        found = []
        for api in (ops, torch):
            given = (api.tensor(steps), api.tensor(lengths))
            options = {"reduction": "none", "zero_infinity": zero_infinity}
            found.append(ctc(api, logits, targets, *given, **options))
        close(found[0][0], found[1][0])
        assert np.isfinite(found[0][0].detach().numpy()[0]) == zero_infinity
        if zero_infinity:
            close(found[0][1], found[1][1])


def test_ctc_learns_to_read():
    ops.manual_seed(0)
    logits = ops.zeros(10, 1, 4).requires_grad_()
    target, loss = ops.tensor([[1, 3, 3]]), nn.CTCLoss()
    for _ in range(60):
        logits.grad = None
        value = loss(F.log_softmax(logits, -1), target, (10,), (3,))
        value.backward()
        logits.data = logits.data - 2 * logits.grad
    best = logits.detach().numpy().argmax(-1)[:, 0]
    read = [int(c) for i, c in enumerate(best) if c and (i == 0 or best[i - 1] != c)]
    assert value.item() < 0.5 and read == [1, 3, 3]


def test_ctc_has_no_second_derivative():
    x = F.log_softmax(ops.tensor(normal(4, 1, 3)).requires_grad_(), -1)
    loss = F.ctc_loss(x, ops.tensor([[1]]), (4,), (1,))
    with pytest.raises(GradientError):
        (g,) = grad(loss, x, create_graph=True)
        grad(g.sum(), x)


T = ops.tensor
WRONG = [
    (lambda: F.margin_ranking_loss(ops.ones(2), ops.ones(2, 1), ops.ones(2)), ShapeError, "axes"),
    (lambda: F.soft_margin_loss(ops.ones(2), ops.ones(3)), ShapeError, "shape"),
    (lambda: F.hinge_embedding_loss(T([1]), T([1])), DTypeError, "floating"),
    (
        lambda: F.cosine_embedding_loss(ops.ones(2, 3), ops.ones(2, 3), ops.ones(3)),
        ShapeError,
        "N, D",
    ),
    (lambda: F.triplet_margin_loss(*[ops.ones(2, 3)] * 3, margin=0), ArgumentError, "positive"),
    (lambda: nn.TripletMarginLoss(margin=-1), ArgumentError, "positive"),
    (lambda: F.multi_margin_loss(ops.ones(2, 3), T([0, 3])), OutOfRangeError, r"\[0, 3\)"),
    (lambda: F.multi_margin_loss(ops.ones(2, 3), T([0, 1]), p=3), ArgumentError, "1 or 2"),
    (lambda: F.multi_margin_loss(ops.ones(2, 3), T([0.0, 1.0])), DTypeError, "integers"),
    (lambda: F.multilabel_margin_loss(ops.ones(1, 2), T([[0, 2]])), OutOfRangeError, r"\[-1, 2\)"),
    (lambda: F.multilabel_margin_loss(ops.ones(2, 3), T([0, 1])), ShapeError, "N, C"),
    (lambda: F.gaussian_nll_loss(ops.ones(2), ops.ones(2), -1.0), ArgumentError, "negative"),
    (lambda: F.gaussian_nll_loss(ops.ones(2, 3), ops.ones(2, 3), ops.ones(3)), ShapeError, "var"),
    (lambda: F.poisson_nll_loss(ops.ones(2), ops.ones(2), reduction="max"), ArgumentError, "mean"),
    (lambda: F.ctc_loss(ops.ones(4, 1, 3), T([[3]]), (4,), (1,)), OutOfRangeError, "targets"),
    (lambda: F.ctc_loss(ops.ones(4, 1, 3), T([[0]]), (4,), (1,)), OutOfRangeError, "blank"),
    (lambda: F.ctc_loss(ops.ones(4, 1, 3), T([[1]]), (5,), (1,)), OutOfRangeError, "input_lengths"),
    (lambda: F.ctc_loss(ops.ones(4, 1, 3), T([[1]]), (4,), (2,)), ShapeError, "targets"),
    (lambda: F.ctc_loss(ops.ones(4, 2, 3), T([[1]]), (4,), (1,)), ShapeError, "2 integers"),
    (
        lambda: F.ctc_loss(ops.ones(4, 1, 3), T([[1]]), (4,), (1,), blank=3),
        OutOfRangeError,
        "blank",
    ),
    (lambda: F.ctc_loss(ops.ones(4), T([1]), (4,), (1,)), ShapeError, "T, N, C"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("logits", [[1, 2], [True, False]])
def test_logits_of_integers_are_refused(rows, logits):
    x, target = T([logits] * 2)[:rows], T([0, 1])[:rows]
    for call in (lambda: F.cross_entropy(x, target), lambda: F.linear_cross_entropy(x, x, target)):
        with pytest.raises(DTypeError, match="input must be floating point"):
            call()

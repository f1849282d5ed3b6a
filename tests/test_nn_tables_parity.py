"""Embeddings, bags of them, and containers of parameters against PyTorch."""

from collections import OrderedDict

import numpy as np
import pytest
from test_nn_parity import close, normal, transfer

import minidl.ops as ops
from minidl import nn
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from minidl.nn import functional as F  # noqa: N812

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

FLAT = np.array([1, 2, 2, 4, 0, 3, 2])
SQUARE = np.array([[1, 2, 2], [4, 0, 3]])
EMBEDDINGS = [
    {},
    {"padding_idx": 2},
    {"max_norm": 0.7},
    {"max_norm": 0.7, "norm_type": 1.0, "padding_idx": -1},
    {"scale_grad_by_freq": True},
    {"scale_grad_by_freq": True, "padding_idx": 2, "max_norm": 1.0},
]
BAGS = [
    {},
    {"mode": "sum"},
    {"mode": "max"},
    {"mode": "mean", "padding_idx": 2},
    {"mode": "max", "padding_idx": 2},
    {"mode": "sum", "max_norm": 0.7},
    {"mode": "mean", "include_last_offset": True},
]


def check(ours, theirs, mine, other):
    """Outputs, gradients by the weight, and the weight itself, which max_norm changes."""
    close(mine.detach(), other.detach(), 1e-12)
    g = normal(*other.shape, seed=5)
    (mine * ops.tensor(g)).sum().backward()
    (other * torch.tensor(g)).sum().backward()
    close(ours.weight.grad, theirs.weight.grad, 1e-12)
    close(ours.weight.detach(), theirs.weight.detach(), 1e-12)


@pytest.mark.parametrize("options", EMBEDDINGS, ids=str)
def test_embedding(options):
    ours, theirs = (
        nn.Embedding(5, 3, **options).double(),
        torch.nn.Embedding(5, 3, **options).double(),
    )
    assert repr(ours) == repr(theirs)
    transfer(ours, theirs)
    check(ours, theirs, ours(ops.tensor(SQUARE)), theirs(torch.tensor(SQUARE)))
    w = normal(5, 3)
    a, b = ops.tensor(w), torch.tensor(w)
    close(F.embedding(ops.tensor(FLAT), a, **options), torch.nn.functional.embedding(
        torch.tensor(FLAT), b, **options), 1e-12)  # fmt: skip
    close(a, b, 1e-12)


@pytest.mark.parametrize("form", ["square", "offsets", "empty bags"])
@pytest.mark.parametrize("options", BAGS, ids=str)
def test_embedding_bag(options, form):
    ours = nn.EmbeddingBag(5, 3, **options).double()
    theirs = torch.nn.EmbeddingBag(5, 3, **options).double()
    assert repr(ours) == repr(theirs)
    transfer(ours, theirs)
    if form == "square":
        given = [SQUARE]
    else:
        cuts = [0, 3, 5] if form == "offsets" else [0, 0, 4, 4]
        given = [FLAT, np.array([*cuts, 7] if options.get("include_last_offset") else cuts)]
    check(ours, theirs, ours(*map(ops.tensor, given)), theirs(*map(torch.tensor, given)))


def test_bags_with_weights():
    ours = nn.EmbeddingBag(5, 3, mode="sum", padding_idx=2).double()
    theirs = torch.nn.EmbeddingBag(5, 3, mode="sum", padding_idx=2).double()
    transfer(ours, theirs)
    a, b = ops.tensor(normal(7)).requires_grad_(), torch.tensor(normal(7)).requires_grad_()
    offsets = np.array([0, 2, 2])
    mine = ours(ops.tensor(FLAT), ops.tensor(offsets), a)
    other = theirs(torch.tensor(FLAT), torch.tensor(offsets), b)
    check(ours, theirs, mine, other)
    close(a.grad, b.grad, 1e-12)


def test_bags_by_frequency():
    """PyTorch divides rows of a bag by the counts of others here; by their own is what it says."""
    plain = nn.EmbeddingBag(5, 3, mode="sum")
    scaled = nn.EmbeddingBag(5, 3, mode="sum", scale_grad_by_freq=True)
    scaled.load_state_dict(plain.state_dict())
    for bag in (plain, scaled):
        bag(ops.tensor(FLAT), ops.tensor([0, 3])).sum().backward()
    counts = np.maximum(np.bincount(FLAT), 1)[:, None]
    close(scaled.weight.grad, plain.weight.grad / ops.tensor(counts), 1e-6)
    assert "scale_grad_by_freq=True" in repr(scaled)


def test_pretrained_bags():
    weight = ops.tensor(normal(4, 2))
    frozen = nn.EmbeddingBag.from_pretrained(weight, mode="max")
    assert not frozen.weight.requires_grad and frozen.mode == "max"
    assert nn.EmbeddingBag.from_pretrained(weight, freeze=False).weight.requires_grad


B, I = ops.ones(5, 3), ops.tensor([0, 1])  # noqa: E741
WRONG = [
    (lambda: F.embedding_bag(I, B), ShapeError, "offsets"),
    (lambda: F.embedding_bag(ops.tensor([[0]]), B, ops.tensor([0])), ArgumentError, "one axis"),
    (lambda: F.embedding_bag(I, B, ops.tensor([1])), ArgumentError, "begin with 0"),
    (lambda: F.embedding_bag(I, B, ops.tensor([0, 3])), ArgumentError, "must hold all"),
    (lambda: F.embedding_bag(I, B, ops.tensor([0]), mode="min"), ArgumentError, "mode"),
    (lambda: F.embedding_bag(I, B, ops.tensor([0]), padding_idx=5), ArgumentError, "padding_idx"),
    (lambda: F.embedding_bag(I + 4, B, ops.tensor([0])), OutOfRangeError, "indices"),
    (
        lambda: F.embedding_bag(I, B, ops.tensor([0]), per_sample_weights=ops.ones(2)),
        ArgumentError,
        "mode 'sum'",
    ),
    (lambda: F.embedding(I, B, sparse=True), NotImplementedError, "sparse"),
    (lambda: nn.EmbeddingBag(3, 2, sparse=True), NotImplementedError, "sparse"),
    (lambda: nn.EmbeddingBag(3, 2, _weight=B), ShapeError, "shape"),
    (lambda: nn.ParameterList(B), DTypeError, "iterable"),
    (lambda: nn.ParameterList()[0], OutOfRangeError, "index"),
    (lambda: nn.ParameterList()(), NotImplementedError, "not called"),
    (lambda: nn.ParameterDict({1: B}), DTypeError, "strings"),
    (lambda: nn.ParameterDict([("a",)]), ArgumentError, "pairs"),
    (lambda: nn.ParameterDict({"forward": B}), KeyError, "attribute"),
    (lambda: nn.ParameterDict(3), DTypeError, "mapping"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def lists(api, t):
    made = api.ParameterList([api.Parameter(t.ones(2, 3)), t.ones(4), 7, "text"])
    made.append(t.zeros(()))
    made.extend([t.ones(1)])
    made += [t.ones(2)]
    made[0] = t.ones(3)
    return made


def dictionaries(api, t):
    made = api.ParameterDict({"b": t.ones(2), "a": api.Parameter(t.ones(3)), "c": 5})
    made["z"] = t.ones(1)
    made.update(OrderedDict(y=t.ones(4), b=t.ones(5)))
    made.setdefault("z", None)
    made.setdefault("q", t.ones(2, 2))
    made.pop("a")
    return made


@pytest.mark.parametrize("make", [lists, dictionaries])
def test_containers_of_parameters(make):
    ours, theirs = make(nn, ops), make(torch.nn, torch)
    assert repr(ours).replace("minidl", "torch") == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert len(ours) == len(theirs)
    transfer(ours, theirs)
    ours.load_state_dict({k: ops.tensor(v.numpy()) for k, v in theirs.state_dict().items()})


def test_lists_are_lists():
    made = lists(nn, ops)
    assert made[-1].shape == (2,) and made[2] == 7 and [type(v) for v in made][3] is str
    part = made[1:4]
    assert type(part) is nn.ParameterList and len(part) == 3 and part[0] is made[1]
    assert len(made[::-1]) == 7 and made[::-1][0] is made[-1]
    with pytest.raises(IndexError):
        made[7]
    assert all(p.is_parameter for p in made.parameters())


def test_dictionaries_are_dictionaries():
    made = dictionaries(nn, ops)
    assert (
        made.keys() == ["b", "c", "z", "y", "q"] and "z" in made and list(reversed(made))[0] == "q"
    )
    assert made.get("none") is None and made.get("none", 3) == 3
    both = made | {"extra": ops.ones(1)}
    assert "extra" in both and "extra" not in made and both["b"] is made["b"]
    assert ({"first": ops.ones(1)} | made).keys()[0] == "first"
    made |= {"extra": ops.ones(1)}
    assert made.popitem()[0] == "extra" and len(made.copy()) == 5
    assert made.fromkeys(["u", "v"], 1).items() == [("u", 1), ("v", 1)]
    del made["b"]
    made.clear()
    assert len(made) == 0 and not list(made.parameters())
    for act in (lambda: made["b"], lambda: made.pop("b"), lambda: made.popitem()):
        with pytest.raises(KeyError):
            act()


def test_bags_without_any_index_keep_their_graph():
    for mode in ("sum", "mean", "max"):
        bag, nothing = nn.EmbeddingBag(7, 3, mode=mode), ops.zeros(0).long()
        for offsets in (nothing, ops.tensor([0, 0])):
            bag.zero_grad()
            out = bag(nothing, offsets)
            assert out.shape == (len(offsets), 3) and not out.any()
            out.sum().backward()
            assert not bag.weight.grad.any()

"""Methods of modules and containers against PyTorch's."""

from collections import OrderedDict

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import UnsupportedError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
LIBRARIES = (minidl, torch)

# What PyTorch's modules have and ours have not: other devices, and its own inside.
LEFT_OUT = {"dump_patches", "ipu", "mtia", "xpu"}


def outcome(function):
    """What a call returns, or that it raises."""
    try:
        return function()
    except Exception:
        return "raises"


def test_names_of_modules_and_containers():
    for name in ("Module", "Sequential", "ModuleList", "ModuleDict"):
        mine, other = getattr(nn, name), getattr(torch.nn, name)
        missing = {n for n in set(dir(other)) - set(dir(mine)) if n[0] != "_"}
        assert missing <= LEFT_OUT, name


def test_set_submodule():
    def run(library):
        n = library.nn
        model = n.Sequential(n.Linear(1, 2), n.Sequential(n.ReLU()))
        model.scale = n.Parameter(library.ones(1))
        calls = [
            lambda: model.set_submodule("1.0", n.Tanh()),
            lambda: model.set_submodule("0", n.Identity(), strict=True),
            lambda: model.set_submodule("1.new", n.Sigmoid()),
            lambda: model.set_submodule("1.newer", n.Sigmoid(), strict=True),
            lambda: model.set_submodule("scale", n.Sigmoid()),
            lambda: model.set_submodule("", n.Sigmoid()),
            lambda: model.set_submodule("none.0", n.Sigmoid()),
            lambda: model.set_submodule("1.0", 3),
        ]
        return [*[outcome(call) for call in calls], repr(model)]

    assert run(minidl) == run(torch)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_to_empty_keeps_shapes_and_parameters(library):
    model = library.nn.Sequential(library.nn.Linear(2, 3), library.nn.LayerNorm(3))
    parameters = list(model.parameters())
    assert model.to_empty(device="cpu") is model
    assert [p is q for p, q in zip(parameters, model.parameters(), strict=True)] == [True] * 4
    assert [tuple(p.shape) for p in model.parameters()] == [(3, 2), (3,), (3,), (3,)]
    assert all(p.requires_grad for p in model.parameters())


def test_call_super_init():
    def run(library):
        class Named:
            def __init__(self, name="none"):
                self.name = name

        class Both(library.nn.Module, Named):
            call_super_init = True

        class One(library.nn.Module, Named):
            pass

        return [
            Both("a").name,
            Both(name="b").name,
            outcome(lambda: One(3)),
            outcome(lambda: One(name=3)),
            hasattr(One(), "name"),
        ]

    assert run(minidl) == run(torch)


def test_what_is_refused_says_what_to_do():
    with pytest.raises(UnsupportedError, match="leave the call out"):
        nn.Linear(1, 1).compile()
    with pytest.raises(UnsupportedError, match="state_dict"):
        nn.Linear(1, 1).share_memory()


# Containers ------------------------------------------------------------------------------------


def modules(n):
    return [n.Linear(1, 1), n.ReLU(), n.Tanh(), n.Linear(1, 2)]


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_lists_of_modules(kind):
    def run(library):
        n = library.nn

        def make():
            return n.Sequential(*modules(n)) if kind == "Sequential" else n.ModuleList(modules(n))

        seen = []

        def note(change):
            container = make()
            result = outcome(lambda: change(container))
            same = result is container
            seen.append((repr(result), same, repr(container), list(container.state_dict())))

        note(lambda c: c.append(n.GELU()))
        note(lambda c: c.extend([n.GELU(), n.SiLU()]))
        note(lambda c: c.extend(make()))
        for index in (0, 2, 4, *([-1] if kind == "Sequential" else [])):  # torch fails there
            note(lambda c, i=index: c.insert(i, n.GELU()))
        for index in (0, -1, 3, 7, -9):
            note(lambda c, i=index: c[i])
            note(lambda c, i=index: c.pop(i))
            note(lambda c, i=index: c.__delitem__(i))
            note(lambda c, i=index: c.__setitem__(i, n.SiLU()))
        for part in (slice(1, 3), slice(None, None, 2), slice(-1, None), slice(3, 1)):
            note(lambda c, s=part: c[s])
            note(lambda c, s=part: c.__delitem__(s))
        note(lambda c: c + make())
        note(lambda c: c.__iadd__(make()))
        note(lambda c: len(c))
        note(lambda c: [repr(m) for m in c])
        note(lambda c: c[1] in c)
        if kind == "Sequential":
            note(lambda c: c * 2)
            note(lambda c: 2 * c)
            note(lambda c: c.__imul__(2))
            note(lambda c: c * 0)
        return seen

    mine, other = run(minidl), run(torch)
    for a, b in zip(mine, other, strict=True):
        assert a == b


def test_dictionaries_of_modules():
    def run(library):
        n = library.nn
        seen = []

        def note(change):
            container = n.ModuleDict({"a": n.ReLU(), "b": n.Linear(1, 1)})
            result = outcome(lambda: change(container))
            seen.append((repr(result), repr(container), list(container.state_dict())))

        note(lambda c: c["a"])
        note(lambda c: c["z"])
        note(lambda c: c.__setitem__("c", n.Tanh()))
        note(lambda c: c.__setitem__("a", n.Tanh()))
        note(lambda c: c.__delitem__("a"))
        note(lambda c: c.pop("b"))
        note(lambda c: c.pop("z"))
        note(lambda c: c.clear())
        note(lambda c: [list(c), list(c.keys()), [repr(v) for v in c.values()]])
        note(lambda c: [(k, repr(v)) for k, v in c.items()])
        note(lambda c: ["a" in c, "z" in c, len(c)])
        note(lambda c: c.update({"z": n.Tanh(), "y": n.SiLU()}))
        note(lambda c: c.update(OrderedDict(z=n.Tanh(), a=n.SiLU())))
        note(lambda c: c.update([("z", n.Tanh()), ("y", n.SiLU())]))
        note(lambda c: c.update(n.ModuleDict({"q": n.Tanh()})))
        note(lambda c: c.update(3))
        return seen

    for a, b in zip(run(minidl), run(torch), strict=True):
        assert a == b


def test_equal_neighbours_are_shown_once():
    def run(n):
        blocks = [n.Sequential(n.Linear(1, 1), n.ReLU()) for _ in range(3)]
        return [
            repr(n.ModuleList([n.Linear(1, 1) for _ in range(3)])),
            repr(n.ModuleList([*blocks, n.Tanh(), n.Tanh(), n.ReLU()])),
            repr(n.ModuleList()),
            repr(n.ModuleDict()),
            repr(n.Sequential()),
        ]

    assert run(nn) == run(torch.nn)


# Parameters that no gradient reached -----------------------------------------------------------


class Branches(nn.Module):
    """Uses one of its two branches; `tied` is a second name of a weight."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.forgotten = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.forgotten.weight
        self.scale = nn.Parameter(minidl.ones(1))

    def forward(self, x, tied=False):
        x = self.used(self.frozen(x))
        return self.tied(x) if tied else x


def test_unused_parameters_are_named():
    model, x = Branches(), minidl.ones(3, 2)
    assert len(model.unused_parameters()) == 5  # nothing was reached so far
    model(x).sum().backward()
    assert model.unused_parameters() == ["scale", "forgotten.weight", "forgotten.bias"]
    assert model.forgotten.unused_parameters() == ["weight", "bias"]
    assert model.frozen.unused_parameters() == []
    model(x, tied=True).sum().backward()  # reached by its other name
    assert model.unused_parameters() == ["scale", "forgotten.bias"]
    model.zero_grad()
    model(x).sum().backward()
    assert model.unused_parameters() == ["scale", "forgotten.weight", "forgotten.bias"]
    model.frozen.requires_grad_(True)
    assert model.unused_parameters()[-2:] == ["frozen.weight", "frozen.bias"]


def test_a_gradient_of_zeros_counts_as_reached():
    model = Branches()
    model(minidl.ones(3, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert model.unused_parameters() == ["scale", "forgotten.weight", "forgotten.bias"]
    (model(minidl.ones(3, 2)) * 0 + model.scale * 0).sum().backward()
    assert model.unused_parameters() == ["forgotten.weight", "forgotten.bias"]
    assert np.all(model.scale.grad.numpy() == 0)

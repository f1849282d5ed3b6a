"""Initialisers against PyTorch: exact where nothing is drawn, by distribution where it is."""

import math

import numpy as np
import pytest

import minidl
from minidl import nn, ops

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")


def test_names():
    public = {n for n in vars(torch.nn.init) if n.endswith("_") and n[0] != "_"}
    assert {n for n in public if n != "__"} <= set(vars(nn.init)) and len(public) > 12


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 4, 2, 5), (6, 2, 3, 3, 3), (6, 3, 4)])
@pytest.mark.parametrize("groups", [1, 3])
def test_dirac(shape, groups):
    def run(library):
        return library.nn.init.dirac_(library.ones(shape), groups)

    if shape[0] % groups:
        for library in (minidl, torch):
            with pytest.raises(ValueError):
                run(library)
    else:
        assert run(minidl).tolist() == run(torch).tolist()


def test_what_dirac_and_sparse_refuse():
    for library in (minidl, torch):
        for shape in ((3, 3), (1, 1, 1, 1, 1, 1)):
            with pytest.raises(ValueError):
                library.nn.init.dirac_(library.ones(shape))
        with pytest.raises(ValueError):
            library.nn.init.sparse_(library.ones(3), 0.1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_sparse(share):
    for library in (minidl, torch):
        filled = library.nn.init.sparse_(library.ones(30, 5), share, std=2.0).numpy()
        assert ((filled == 0).sum(0) == math.ceil(share * 30)).all()
        if share < 0.5:
            assert 1.4 < filled[filled != 0].std() < 2.6


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
def test_fans(shape):
    mine = nn.init._calculate_fan_in_and_fan_out(minidl.ones(shape))
    assert mine == torch.nn.init._calculate_fan_in_and_fan_out(torch.ones(shape))


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0, 1, -2, 2), (1, 2, -1, 6), (0, 1, 3, 5), (0, 1, 6, 7), (0, 1, 9, 40), (2, 0.5, -9, -1)],
)
def test_truncated_normal_numbers(mean, std, a, b):
    """The empirical distribution function against the exact one, in tails, too."""
    minidl.manual_seed(1)
    drawn = nn.init.trunc_normal_(ops.empty(20000, dtype=minidl.float64), mean, std, a, b)
    x = np.sort(drawn.numpy())
    assert a <= x[0] and x[-1] <= b
    places = np.linspace(0.1, 0.9, 9)
    found = np.quantile(x, places)

    def above(value):
        return math.erfc(value / math.sqrt(2)) / 2

    sign = -1 if b < mean else 1  # the tail's side, where erfc keeps its digits
    start, end = sorted(sign * (edge - mean) / std for edge in (a, b))
    whole = above(start) - above(end)
    for place, value in zip(places, found, strict=True):
        share = (above(start) - above(sign * (value - mean) / std)) / whole
        assert abs((share if sign > 0 else 1 - share) - place) < 0.02


def test_initialisers_follow_a_generator():
    def run(seed):
        generator = minidl.Generator().manual_seed(seed)
        made = [nn.init.sparse_(ops.empty(5, 4), 0.3, generator=generator)]
        made.append(nn.init.trunc_normal_(ops.empty(6), a=5, b=6, generator=generator))
        made.append(nn.init.trunc_normal_(ops.empty(6), generator=generator))
        made.append(nn.init.orthogonal_(ops.empty(4, 4), generator=generator))
        return [x.tolist() for x in made]

    assert run(3) == run(3) != run(4)

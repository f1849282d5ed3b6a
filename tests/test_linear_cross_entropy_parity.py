"""`linear_cross_entropy` against PyTorch, and its chunks against the whole."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from test_nn_parity import normal

import minidl
from minidl.autograd import grad, no_grad
from minidl.backends import local
from minidl.errors import (
    ArgumentError,
    DTypeError,
    OutOfRangeError,
    ShapeError,
    UnsupportedError,
)
from minidl.nn import functional as F  # noqa: N812
from minidl.testing.gradcheck import gradcheck, gradgradcheck
from minidl.testing.standin import installed
from minidl.testing.targets import Target, on

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SOURCE = sys.modules["minidl.ops.linear_cross_entropy"]
TARGET = np.array([0, 3, -100, 1, 4, 3, 2])
X, WEIGHT, BIAS = normal(7, 3), normal(5, 3, seed=1), normal(5, seed=2)
CLASSES = np.linspace(0.5, 2, 5)


@pytest.fixture(params=[1 << 22, 10, 1], ids=["whole", "chunks", "rows"], autouse=True)
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCE, "_LOGITS", {"cpu": request.param, "cuda": request.param})


def both(arrays: list[Any], target: np.ndarray, options: dict[str, Any]) -> None:
    """Loss and gradients of input, weight and bias."""
    results = []
    for library in (minidl, torch):
        tensors = [library.tensor(a.tolist(), dtype=library.float64) for a in arrays]
        for t in tensors:
            t.requires_grad_()
        given = dict(options)
        if "weight" in given:
            given["weight"] = library.tensor(given["weight"].tolist(), dtype=library.float64)
        if len(tensors) > 2:
            given["linear_bias"] = tensors[2]
        kind = library.float64 if target.dtype.kind == "f" else library.int64
        function = library.nn.functional.linear_cross_entropy
        aim = library.tensor(target.tolist(), dtype=kind)
        out = function(tensors[0], tensors[1], aim, **given)
        (out * out).sum().backward()
        results.append([out.detach().numpy(), *(t.grad.numpy() for t in tensors)])
    for found, want in zip(*results, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"weight": CLASSES}, {"ignore_index": 3}, {"label_smoothing": 0.2, "weight": CLASSES}],
    ids=str,
)
def test_classes(reduction: str, bias: bool, options: dict[str, Any]):
    target = np.where(TARGET < 0, 3, TARGET) if "ignore_index" in options else TARGET
    both([X, WEIGHT, BIAS][: 2 + bias], target, {"reduction": reduction, **options})


def test_other_shapes():
    both([X[0], WEIGHT, BIAS], np.array(2), {})
    both([X, normal(5, 2, 3), normal(5, 2)], np.arange(14).reshape(7, 2) % 5, {})
    both([X, WEIGHT], abs(normal(7, 5)), {})
    both([X[0], WEIGHT], abs(normal(5)), {"label_smoothing": 0.1})


def test_nothing_counts():
    x, weight = (minidl.tensor(a.tolist(), requires_grad=True) for a in (X, WEIGHT))
    out: Any = F.linear_cross_entropy(x, weight, minidl.tensor([-100] * 7))
    assert np.isnan(out.item())
    assert not any(g.numpy().any() for g in grad(out, [x, weight]))
    assert (
        F.linear_cross_entropy(x[:0], weight, minidl.tensor([1])[:0], reduction="sum").item() == 0
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_derivatives(reduction: str):
    def loss(x: Any, weight: Any, bias: Any) -> Any:
        target = minidl.tensor(TARGET.tolist())
        return F.linear_cross_entropy(x, weight, target, linear_bias=bias, reduction=reduction)

    given = [minidl.tensor(a.tolist(), dtype=minidl.float64, requires_grad=True)
             for a in (X, WEIGHT, BIAS)]  # fmt: skip
    assert gradcheck(loss, given)
    assert gradgradcheck(loss, given)


def test_the_logits_never_exist_as_a_whole(monkeypatch: pytest.MonkeyPatch):
    """Nor are gradients computed that nobody asks for; a second backward gives the same."""
    seen: list[Any] = []
    k = local.state.cpu
    for name in ("linear", "linear_backward", "cross_entropy", "cross_entropy_in_place"):
        entry = getattr(k, name)

        def watched(*args: Any, name: str = name, entry: Any = entry) -> Any:
            seen.append((name, args[0].shape, args[3] if name == "linear_backward" else None))
            return entry(*args)

        monkeypatch.setattr(k, name, watched)
    monkeypatch.setattr(SOURCE, "_LOGITS", {"cpu": 10})
    x, weight = (minidl.tensor(a.tolist()) for a in (X, WEIGHT))
    target = minidl.tensor(TARGET.tolist())
    with no_grad():
        F.linear_cross_entropy(x, weight.requires_grad_(), target)
    assert [name for name, *_ in seen] == ["linear", "cross_entropy"] * 4
    seen.clear()
    out = F.linear_cross_entropy(x, weight, target)
    assert [name for name, *_ in seen] == [
        "linear",
        "cross_entropy_in_place",
        "linear_backward",
    ] * 4
    assert all(shape[0] <= 2 for _, shape, _ in seen)
    assert {needs for *_, needs in seen if needs} == {(False, True, False)}
    seen.clear()
    (first,) = grad(out, [weight], retain_graph=True)
    (second,) = grad(2 * out, [weight])
    np.testing.assert_allclose(2 * first.numpy(), second.numpy())
    assert not seen


def test_on_a_gpu():
    """Over the stand-in, which refuses what would wait; in bfloat16 the sums are in float32."""
    with installed(), on(Target("cuda")):
        for dtype in (minidl.float32, minidl.bfloat16):
            x, weight = (minidl.tensor(a.tolist(), dtype=dtype, device="cuda", requires_grad=True)
                         for a in (X, WEIGHT))  # fmt: skip
            target = minidl.tensor(TARGET.tolist(), device="cuda")
            own = grad(F.linear_cross_entropy(x, weight, target), [x, weight])
            assert all(g.dtype is dtype for g in own)
            plain = F.cross_entropy(F.linear(x, weight), target)
            for found, want in zip(own, grad(plain, [x, weight]), strict=True):
                near = 1e-5 if dtype is minidl.float32 else 0.02
                np.testing.assert_allclose(
                    found.float().cpu().numpy(), want.float().cpu().numpy(), rtol=near, atol=near
                )


def test_what_is_refused():
    x, weight, target = minidl.ones(7, 3), minidl.ones(5, 3), minidl.tensor(TARGET.tolist())
    call: Any = F.linear_cross_entropy
    with pytest.raises(UnsupportedError, match="use options=None"):
        call(x, weight, target, options=1)
    with pytest.raises(NotImplementedError):
        call(x, weight, target, options=1)
    with pytest.raises(ArgumentError, match="ignore_index goes with class indices"):
        call(x, weight, minidl.ones(7, 5), ignore_index=-100)
    with pytest.raises(ArgumentError, match="reduction is one of"):
        call(x, weight, target, reduction="batchmean")
    with pytest.raises(ArgumentError, match="label_smoothing must lie in"):
        call(x, weight, target, label_smoothing=2)
    for bad in (minidl.ones(7, 4), minidl.ones(2, 7, 3)):
        with pytest.raises(ShapeError, match="needs linear_weight"):
            call(bad, weight, target)
    with pytest.raises(ShapeError, match="needs input"):
        call(x[0], minidl.ones(5, 2, 3), minidl.tensor([0, 0]))
    with pytest.raises(ShapeError, match="linear_bias needs"):
        call(x, weight, target, linear_bias=minidl.ones(4))
    with pytest.raises(ShapeError, match="one class for each row"):
        call(x, weight, target[:3])
    with pytest.raises(ShapeError, match="one element for each of 5 classes"):
        call(x, weight, target, weight=minidl.ones(4))
    with pytest.raises(DTypeError, match="target must hold integers"):
        call(x, weight, target > 0)
    with pytest.raises(DTypeError, match="must have the same dtype"):
        call(x, weight.double(), target)
    with pytest.raises(OutOfRangeError, match="targets must lie in"):
        call(x, weight, target + 3)
    with pytest.raises(DTypeError, match="linear_weight must be a Tensor"):
        call(x, np.ones((5, 3)), target)

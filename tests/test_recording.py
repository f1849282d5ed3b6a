"""What is recorded and shown to recorders; hooks and functions that say something impossible."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from minidl.autograd import (
    Function,
    detect_anomaly,
    enable_grad,
    grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    recorded_by,
    set_detect_anomaly,
    set_grad_enabled,
)
from minidl.backends import local
from minidl.errors import GradientError, ShapeError
from minidl.ops import mul, sum
from minidl.ops.checkpoint import checkpoint
from minidl.tensor import Tensor

rng = np.random.default_rng(0)


def leaf(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape)).requires_grad_()


def located() -> bool:
    """Whether anomaly detection is on: it notes where an operator was called."""
    return mul(leaf(2), 2.0).grad_fn.where is not None


def test_anomaly_detection_does_not_switch_recording_on() -> None:
    with no_grad():
        set_detect_anomaly(True)
        assert not is_grad_enabled()
        set_detect_anomaly(False)
        with detect_anomaly(), set_detect_anomaly(True):
            assert not is_grad_enabled() and mul(leaf(2), 2.0).grad_fn is None
    assert is_grad_enabled() and not located()


def test_anomaly_detection_outlives_other_modes() -> None:
    set_detect_anomaly(True)
    try:
        with no_grad(), enable_grad():
            assert located()
        set_grad_enabled(False)
        set_grad_enabled(True)
        assert located()
    finally:
        set_detect_anomaly(False)
    assert not located()


def test_set_detect_anomaly_as_a_block_and_as_a_decorator() -> None:
    with set_detect_anomaly(True):
        assert located()
        with set_detect_anomaly(False):
            assert not located()
        assert located()
    assert not located() and set_detect_anomaly(True)(located)() and not located()


@pytest.mark.parametrize("mode", [detect_anomaly, lambda: recorded_by(lambda node: None)])
def test_state_is_what_it_was(mode: Callable[[], AbstractContextManager[Any]]) -> None:
    before = (local.state.recording, local.state.recorder)
    with pytest.raises(KeyError), no_grad(), mode(), enable_grad(), mode():
        raise KeyError
    assert (local.state.recording, local.state.recorder) == before == (True, True)


def test_a_recorder_does_not_see_what_a_checkpoint_computes_again() -> None:
    x, seen = leaf(3), []
    with recorded_by(seen.append):
        y = sum(checkpoint(lambda v: mul(v.tanh(), v), x))
        count = len(seen)
        y.backward()
        assert len(seen) == count == 3
        (first,) = grad(sum(checkpoint(lambda v: mul(v.tanh(), v), x)), x, create_graph=True)
        assert len(seen) > 2 * count  # the gradient's own operators
    np.testing.assert_allclose(first.array, x.grad.array)


def test_hook_that_changes_the_dtype_is_refused() -> None:
    x = leaf(2)
    x.register_hook(lambda g: g.float())
    with pytest.raises(ShapeError, match=r"shape and dtype, got \(2,\) float32 for \(2,\) float64"):
        sum(x).backward()


def test_retained_gradient_is_what_the_other_hooks_left() -> None:
    x = leaf(2)
    y = mul(x, 1.0)
    y.register_hook(lambda g: mul(g, 2.0))
    y.retain_grad()
    y.register_hook(lambda g: mul(g, 5.0))
    sum(y).backward()
    assert y.grad.tolist() == x.grad.tolist() == [10.0, 10.0]


def test_function_returns_what_it_marks_dirty() -> None:
    class Lost(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            ctx.mark_dirty(x.mul_(2))
            return mul(x, 1.0)

    with pytest.raises(GradientError, match="forward must return what it marks dirty"):
        Lost.apply(mul(leaf(2), 1.0))


def test_modes_decorate_generator_functions() -> None:
    seen: list[Any] = []

    @no_grad()
    def numbers(x: Tensor) -> Generator[bool, int, str]:
        try:
            while True:
                seen.append((yield mul(x, 2.0).requires_grad))
        except KeyError:
            yield is_grad_enabled()
        finally:
            seen.append(is_grad_enabled())
        return "end"

    recorded = numbers(leaf(2))
    assert next(recorded) is False and is_grad_enabled()
    assert recorded.send(5) is False and seen == [5]
    assert recorded.throw(KeyError) is False and is_grad_enabled()
    with pytest.raises(StopIteration, match="end"):
        next(recorded)
    assert seen == [5, False] and is_grad_enabled()


def test_generator_that_is_closed_early_is_freed() -> None:
    @inference_mode()
    def endless(x: Tensor) -> Generator[Tensor, None, None]:
        while True:
            yield x

    x = leaf(2)
    alive = weakref.ref(x)
    gc.disable()
    try:
        for _ in endless(x):
            break
        failing = endless(x)
        next(failing)
        with pytest.raises(ValueError, match="stop"):
            failing.throw(ValueError("stop"))
        del x, failing, _
        assert alive() is None and is_grad_enabled()
    finally:
        gc.enable()


def test_rows_are_iterated_with_one_gradient() -> None:
    x, nodes = leaf(4, 2), []
    with recorded_by(nodes.append):
        rows = list(x)
        first, *others = x
    assert len(nodes) == 2  # not one per row, each with a gradient of the size of x
    sum(mul(rows[1], rows[3])).backward()
    np.testing.assert_array_equal(x.grad.array[[1, 3]], x.array[[3, 1]])
    assert len(others) == 3 and first.tolist() == x[0].tolist()


def test_retained_gradient_of_a_view_follows_a_write_through_its_base() -> None:
    x = leaf(3)
    base = mul(x, 2.0)
    view = base[:2]
    view.retain_grad()
    base.mul_(3)
    sum(mul(view, 5.0)).backward()
    assert view.grad.tolist() == [5.0, 5.0] and x.grad.tolist() == [30.0, 30.0, 0.0]

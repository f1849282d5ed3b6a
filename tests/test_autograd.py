"""Modes, hooks, user-written functions, checkpointing, anomaly detection, threads, memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

from minidl.autograd import (
    Function,
    backward,
    detect_anomaly,
    enable_grad,
    grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    once_differentiable,
    recorded_by,
    set_detect_anomaly,
    set_grad_enabled,
)
from minidl.errors import DTypeError, GradientError, ShapeError, UnsupportedError
from minidl.ops import div, dropout, linear, manual_seed, mul, reshape, softmax, sum, topk
from minidl.ops.checkpoint import checkpoint
from minidl.tensor import Parameter, Tensor
from minidl.testing.gradcheck import gradcheck, gradgradcheck

rng = np.random.default_rng(0)


def leaf(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape)).requires_grad_()


# modes


def test_no_grad_records_nothing() -> None:
    x = leaf(3)
    with no_grad():
        assert not is_grad_enabled() and not mul(x, x).requires_grad
        with enable_grad():
            assert mul(x, x).requires_grad
    assert mul(x, x).requires_grad


def test_modes_as_decorators() -> None:
    @no_grad()
    def square(x: Tensor) -> Tensor:
        return mul(x, x)

    @no_grad
    def cube(x: Tensor) -> Tensor:
        return mul(mul(x, x), x)

    @inference_mode()
    def infer(x: Tensor) -> tuple[Tensor, bool]:
        return mul(x, x), is_inference_mode_enabled()

    x = leaf(2)
    assert not square(x).requires_grad and not cube(x).requires_grad
    out, inside = infer(x)
    assert inside and not out.requires_grad and not is_inference_mode_enabled()
    assert is_grad_enabled()


def test_mode_is_restored_after_an_error() -> None:
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_set_grad_enabled_acts_at_once_or_as_a_block() -> None:
    set_grad_enabled(False)
    assert not is_grad_enabled()
    set_grad_enabled(True)
    with set_grad_enabled(False):
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_grad_mode_is_per_thread() -> None:
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_compute_the_same() -> None:
    x = leaf(64, 64)
    expected = sum(softmax(mul(x, x), 1)).item()
    found: list[float] = []

    def work() -> None:
        for _ in range(50):
            found.append(sum(softmax(mul(x, x), 1)).item())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 200


# hooks


def test_hook_sees_and_replaces_the_gradient() -> None:
    x = leaf(3)
    y = mul(x, 2.0)
    seen = []
    y.register_hook(lambda g: seen.append(g.array.copy()))
    handle = y.register_hook(lambda g: mul(g, 10.0))
    x.register_hook(lambda g: g + 1)
    sum(y).backward(retain_graph=True)
    assert seen[0].tolist() == [1.0] * 3
    assert x.grad.array.tolist() == [21.0] * 3
    handle.remove()
    handle.remove()
    x.grad = None
    sum(y).backward()
    assert x.grad.array.tolist() == [3.0] * 3


def test_leaf_hook_runs_once_with_the_sum() -> None:
    x = leaf(2)
    calls = []
    x.register_hook(lambda g: calls.append(g.array.copy()))
    (mul(x, 2.0) + mul(x, 3.0)).backward(Tensor(np.ones(2)))
    assert [c.tolist() for c in calls] == [[5.0, 5.0]]


def test_hook_of_wrong_shape_is_refused() -> None:
    x = leaf(3)
    y = mul(x, 2.0)
    y.register_hook(lambda g: sum(g))
    with pytest.raises(ShapeError, match="a hook on a result of MulBackward0"):
        sum(y).backward()


def test_hook_needs_a_gradient() -> None:
    with pytest.raises(GradientError, match="requires gradients"):
        Tensor(np.ones(2)).register_hook(print)


def test_retain_grad() -> None:
    x = leaf(3)
    y = mul(x, 2.0)
    y.retain_grad()
    sum(mul(y, y)).backward()
    np.testing.assert_allclose(y.grad.array, 2 * y.array)


# backward and grad


def test_arguments_of_backward_are_checked() -> None:
    x = leaf(3)
    with pytest.raises(GradientError, match="must be given for an output of more than one"):
        mul(x, x).backward()
    with pytest.raises(GradientError, match="does not require gradients"):
        sum(Tensor(np.ones(3))).backward()
    with pytest.raises(ShapeError, match=r"shape of its output, got \(2,\), \(3,\)"):
        mul(x, x).backward(Tensor(np.ones(2)))
    with pytest.raises(DTypeError):
        mul(x, x).backward(np.ones(3))
    with pytest.raises(GradientError, match="one gradient per output, got 2 for 1"):
        backward([sum(x)], [None, None])


def test_backward_into_inputs_only() -> None:
    x, y = leaf(3), leaf(3)
    sum(mul(x, y)).backward(inputs=[x])
    assert y.grad is None
    np.testing.assert_array_equal(x.grad.array, y.array)


def test_grad_leaves_grad_alone_and_reports_unused() -> None:
    x, y = leaf(3), leaf(3)
    (dx,) = grad(sum(mul(x, x)), x)
    np.testing.assert_allclose(dx.array, 2 * x.array)
    assert x.grad is None
    with pytest.raises(GradientError, match="do not depend on input 1"):
        grad(sum(mul(x, x)), [x, y])
    assert grad(sum(mul(x, x)), [x, y], allow_unused=True)[1] is None
    assert grad(sum(x), [y], materialize_grads=True)[0].array.tolist() == [0.0] * 3


def test_gradients_accumulate_into_the_same_buffer() -> None:
    x = leaf(3)
    sum(x).backward()
    buffer = x.grad
    sum(x).backward()
    assert x.grad is buffer and buffer.array.tolist() == [2.0] * 3


def test_float32_leaf_in_a_float64_graph_gets_a_float32_gradient() -> None:
    x = Tensor(np.ones(3, np.float32)).requires_grad_()
    sum(mul(x, Tensor(np.ones((2, 3))))).backward()
    assert x.grad.array.dtype == np.float32 and x.grad.array.tolist() == [2.0] * 3


def test_several_outputs() -> None:
    x = leaf(4)
    values, indices = topk(x, 2)
    assert not indices.requires_grad
    (mul(values[0], 2.0) + values[1]).backward()
    expected = np.zeros(4)
    expected[indices.array[0]], expected[indices.array[1]] = 2, 1
    np.testing.assert_array_equal(x.grad.array, expected)


# user-written functions


class Square(Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        out = mul(x, x)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx, g):  # type: ignore[override]
        x, out = ctx.saved_tensors
        assert out.shape == x.shape
        return mul(g, 2 * x)


class SumAndProduct(Function):
    @staticmethod
    def forward(x, y, factor):  # type: ignore[override]
        return x + y, mul(mul(x, y), factor)

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[override]
        x, y, ctx.factor = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx, g_sum, g_product):  # type: ignore[override]
        x, y = ctx.saved_tensors
        scaled = mul(g_product, ctx.factor)
        return g_sum + mul(scaled, y), g_sum + mul(scaled, x), None


def test_function_has_derivatives_of_both_orders() -> None:
    assert gradcheck(Square.apply, [leaf(3)]) and gradgradcheck(Square.apply, [leaf(3)])

    def both(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return SumAndProduct.apply(x, y, 3.0)

    inputs = [leaf(2, 2), leaf(2, 2)]
    assert gradcheck(both, inputs) and gradgradcheck(both, inputs)


def test_function_output_not_used() -> None:
    x, y = leaf(2), leaf(2)
    sum(SumAndProduct.apply(x, y, 3.0)[0]).backward()
    assert x.grad.array.tolist() == [1.0, 1.0]


def test_function_without_materialized_gradients() -> None:
    seen = []

    class Two(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            ctx.set_materialize_grads(False)
            return mul(x, 1.0), mul(x, 2.0)

        @staticmethod
        def backward(ctx, a, b):  # type: ignore[override]
            seen.append((a is None, b is None))
            return mul(b, 2.0)

    x = leaf(2)
    sum(Two.apply(x)[1]).backward()
    assert seen == [(True, False)] and x.grad.array.tolist() == [2.0, 2.0]


def test_function_marks() -> None:
    class Doubled(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            with no_grad():
                x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):  # type: ignore[override]
            return mul(g, 2.0)

    class WithIndex(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            out, index = mul(x, 1.0), mul(x, 0.0)
            ctx.mark_non_differentiable(index)
            return out, index

        @staticmethod
        def backward(ctx, g, _):  # type: ignore[override]
            return g

    x = leaf(2)
    y = mul(x, 1.0)
    assert Doubled.apply(y) is y
    sum(y).backward()
    assert x.grad.array.tolist() == [2.0, 2.0]
    out, index = WithIndex.apply(x)
    assert out.requires_grad and not index.requires_grad


def test_function_identity_keeps_the_leaf_a_leaf() -> None:
    class Identity(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            return x

        @staticmethod
        def backward(ctx, g):  # type: ignore[override]
            return mul(g, 3.0)

    x = leaf(2)
    y = Identity.apply(x)
    assert x.is_leaf and y is not x
    sum(y).backward()
    assert x.grad.array.tolist() == [3.0, 3.0]


def test_function_errors() -> None:
    class TooFew(Function):
        @staticmethod
        def forward(ctx, x, y):  # type: ignore[override]
            return mul(x, y)

        @staticmethod
        def backward(ctx, g):  # type: ignore[override]
            return g

    class Once(Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[override]
            ctx.save_for_backward(x)
            return mul(x, x)

        @staticmethod
        @once_differentiable
        def backward(ctx, g):  # type: ignore[override]
            return mul(g, 2 * ctx.saved_tensors[0])

    x = leaf(2)
    with pytest.raises(GradientError, match=r"\[TooFew\] backward returned 1 gradients for 2"):
        sum(TooFew.apply(x, leaf(2))).backward()
    (g,) = grad(sum(Once.apply(x)), x, create_graph=True)
    with pytest.raises(GradientError, match="once_differentiable"):
        sum(g).backward()
    y = mul(x, 1.0)
    out = Square.apply(y)
    y.mul_(2)
    with pytest.raises(GradientError, match=r"\[Square\] .*written in place"):
        sum(out).backward()
    with pytest.raises(UnsupportedError, match="must define a static method forward"):
        Function.apply(x)


# checkpointing


def block(x: Tensor, w: Tensor) -> Tensor:
    return dropout(mul(softmax(linear(x, w), -1), x), 0.5)


def test_checkpoint_gives_the_same_bits_and_keeps_less() -> None:
    x, w = leaf(5, 4), leaf(4, 4)
    found = []
    for run in (block, lambda x, w: checkpoint(block, x, w)):
        manual_seed(1)
        sum(mul(run(x, w), x)).backward()
        found.append((x.grad.array, w.grad.array))
        x.grad = w.grad = None
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    out = checkpoint(block, x, w)
    assert not any(type(v) is np.ndarray for n in nodes(out) for v in kept(n))


def kept(node: Any) -> tuple:
    return node.saved if type(node.saved) is tuple else ()


def nodes(out: Tensor) -> list:
    found, stack = [], [out.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.append(node)
            stack += [n for n, _ in node.next_functions]
    return found


def test_checkpoint_has_second_derivatives_and_grad() -> None:
    x, w = leaf(3, 4), leaf(4, 4)

    def run(x: Tensor, w: Tensor) -> Tensor:
        manual_seed(3)
        return checkpoint(lambda x: block(x, w), x)

    assert gradcheck(run, [x, w]) and gradgradcheck(run, [x, w])
    (dw,) = grad(sum(run(x, w)), w)
    assert w.grad is None and dw.shape == w.shape


def test_checkpoint_refuses_what_it_cannot_repeat() -> None:
    x = leaf(3)
    calls: list[int] = []

    def changing(x: Tensor) -> Tensor:
        calls.append(1)
        return mul(x, x) if len(calls) == 1 else mul(mul(x, x), x)

    with pytest.raises(GradientError, match="recorded 1 operators in the forward pass and 2"):
        sum(checkpoint(changing, x)).backward()
    y = mul(x, 1.0)
    out = checkpoint(lambda y: mul(y, y), y)
    y.mul_(2)
    with pytest.raises(GradientError, match=r"\[checkpoint\].*written in place"):
        sum(out).backward()
    with pytest.raises(UnsupportedError, match="use_reentrant"):
        checkpoint(mul, x, x, use_reentrant=True)


# anomalies


def test_anomaly_names_operator_and_line() -> None:
    x = Tensor(np.zeros(2)).requires_grad_()
    with detect_anomaly():
        y = sum(mul(div(x, x), 1.0))  # the line that is named
        with pytest.raises(GradientError, match=r"\[div\].*test_autograd.py:\d+ in .*is named"):
            y.backward()
    set_detect_anomaly(True)
    try:
        with pytest.raises(GradientError, match=r"\[div\]"):
            sum(div(x, x)).backward()
    finally:
        set_detect_anomaly(False)
    sum(div(x, x)).backward()


def test_anomaly_around_the_backward_only() -> None:
    x = Tensor(np.zeros(2)).requires_grad_()
    y = sum(div(x, x))
    with detect_anomaly(), pytest.raises(GradientError, match=r"\[div\].*before detect_anomaly"):
        y.backward()
    z = sum(div(x, x))
    ignored = [recorded_by(lambda node: None) for _ in range(2)]
    with ignored[0], detect_anomaly(), ignored[1], pytest.raises(GradientError, match=r"\[div\]"):
        z.backward()
    sum(div(x, x)).backward()


# memory


def test_training_steps_do_not_grow() -> None:
    w = Parameter(Tensor(rng.standard_normal((16, 16)).astype(np.float32)))
    x = Tensor(rng.standard_normal((8, 16)).astype(np.float32))

    def steps(count: int) -> None:
        for _ in range(count):
            loss = sum(mul(softmax(linear(x, w), -1), x))
            loss.backward()
            with no_grad():
                w.sub_(mul(w.grad, 0.01))
            w.grad = None

    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        steps(2500)  # fills CPython's free lists (up to 2,000 tuples of each length)
        before, _ = tracemalloc.get_traced_memory()
        steps(1000)
        after, _ = tracemalloc.get_traced_memory()
        assert after - before < 20_000
        assert gc.collect() < 50  # nothing waited for the collector
    finally:
        tracemalloc.stop()
        gc.enable()


def test_parameter_is_a_marked_tensor() -> None:
    data = Tensor(np.ones(3))
    p = Parameter(data)
    assert type(p) is Tensor and isinstance(p, Parameter) and not isinstance(data, Parameter)
    assert p.requires_grad and p.storage is data.storage
    with pytest.raises(TypeError, match="Tensor has no subclasses"):
        type("Mine", (Tensor,), {})
    assert reshape(p, (3, 1)).is_parameter is False


# regressions


class Reverse(Function):
    """The identity, whose gradient is multiplied by -1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g  # type: ignore[operator]


def test_gradient_that_a_hook_kept_is_not_added_to() -> None:
    x, kept = leaf(3), []
    x.register_hook(kept.append)  # type: ignore[attr-defined]
    for _ in range(2):
        sum(mul(x, x)).backward()
    np.testing.assert_allclose(kept[0].array, 2 * x.array)


def test_backward_into_inputs_runs_hooks_once_and_counts_an_input_once() -> None:
    x = leaf(3)
    x.register_hook(lambda g: mul(g, 2))  # type: ignore[attr-defined]
    sum(mul(x, x)).backward(inputs=[x, x])
    np.testing.assert_allclose(x.grad.array, 4 * x.array)


def test_retained_gradients_are_counted_once_not_shared_and_follow_writes() -> None:
    x = leaf(3)
    y, z = mul(x, 2), mul(x, 3)
    for t in (y, y, z):
        t.retain_grad()
    (y + z).backward(Tensor(np.ones(3)))
    y.grad.mul_(5)
    np.testing.assert_array_equal(y.grad.array, np.full(3, 5.0))
    np.testing.assert_array_equal(z.grad.array, np.ones(3))
    w = mul(x, 2)
    w.retain_grad()
    w.mul_(3)  # type: ignore[attr-defined]
    sum(w).backward()
    np.testing.assert_array_equal(w.grad.array, np.ones(3))
    with pytest.raises(GradientError, match=r"\[retain_grad\]"):
        Tensor(np.ones(3)).retain_grad()  # type: ignore[attr-defined]


def test_leaf_that_was_switched_off_gets_no_gradient() -> None:
    x, w = leaf(3), leaf(3)
    out = sum(mul(x, w))
    x.requires_grad_(False)
    out.backward()
    assert x.grad is None and w.grad is not None


def test_grad_leaves_the_graph_before_its_inputs_alone() -> None:
    x = leaf(3)
    y = x.exp()  # type: ignore[attr-defined]
    (g,) = grad(sum(mul(y, y)), y)
    y.backward(g)
    np.testing.assert_allclose(x.grad.array, 2 * np.exp(2 * x.array))


def test_function_output_does_not_share_an_inputs_elements() -> None:
    x = leaf(3)
    y = mul(x, 1)
    out = Reverse.apply(y)
    out.mul_(3)
    (sum(y) + sum(out)).backward()
    np.testing.assert_array_equal(x.grad.array, np.full(3, -2.0))
    np.testing.assert_array_equal(y.array, x.array)


def test_function_saved_tensors_survive_a_backward_inside_of_backward() -> None:
    once = [True]

    class Inner(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.save_for_backward(x)
            return mul(x, x), 7

        @staticmethod
        def backward(ctx: Any, g: Tensor, none: Any) -> Any:
            assert none is None
            if once.pop() if once else False:
                backward(out, Tensor(np.ones(3)), retain_graph=True)
            (x,) = ctx.saved_tensors
            return mul(g, x) + mul(g, x)

    x = leaf(3)
    out, seven = Inner.apply(x)
    sum(out).backward(retain_graph=True)
    assert seven == 7
    np.testing.assert_allclose(x.grad.array, 4 * x.array)


@pytest.mark.parametrize("shape", [(3, 2), (6,), (3,), (1, 3), ()])
def test_gradient_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            with pytest.raises(DTypeError, match="save_for_backward takes Tensors"):
                ctx.save_for_backward(3)
            return mul(x, 2)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return Tensor(np.ones(shape))

    with pytest.raises(ShapeError, match=r"\[backward\] a gradient must have the shape"):
        sum(Wrong.apply(leaf(2, 3))).backward()


def test_modes_may_be_entered_again_and_inference_mode_decorates_without_parentheses() -> None:
    mode = set_grad_enabled(False)
    for _ in range(2):
        with mode:
            assert not is_grad_enabled()
    assert is_grad_enabled()
    with inference_mode(), enable_grad():
        assert is_grad_enabled() and is_inference_mode_enabled()
    assert inference_mode(is_inference_mode_enabled)() is True  # type: ignore[arg-type]
    with detect_anomaly(), enable_grad(), pytest.raises(GradientError, match="is NaN"):
        x = Tensor(np.zeros(1)).requires_grad_()
        sum(mul(x.sqrt(), 0.0)).backward()  # type: ignore[attr-defined]


@pytest.mark.parametrize("nested", [False, True])
def test_checkpoint_with_writes_views_and_gradients_inside(nested: bool) -> None:
    x = leaf(2, 2)

    def block(x: Tensor) -> Tensor:
        y = mul(x, x)
        y[0].mul_(y[1].clone())
        (g,) = grad(sum(mul(y, y)), x, create_graph=True)
        y.add_(g)
        return y.tanh()  # type: ignore[attr-defined]

    inner = (lambda x: checkpoint(block, x)) if nested else block
    found = []
    for run in (block, lambda x: checkpoint(inner, x)):
        out = sum(run(x))
        (g,) = grad(out, x, create_graph=True)
        sum(mul(g, g)).backward(retain_graph=True)
        out.backward()
        found.append(x.grad.array)
        x.grad = None
    np.testing.assert_array_equal(*found)


def test_errors_leave_no_cycles() -> None:
    def fail() -> None:
        with pytest.raises(ShapeError):
            mul(leaf(4), leaf(3))
        with pytest.raises(ShapeError):
            linear(leaf(4, 4), leaf(3, 3))

    fail()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            fail()
        found = [type(x) for x in collected()]
        assert Tensor not in found and ShapeError not in found
    finally:
        gc.enable()


def collected() -> list:
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

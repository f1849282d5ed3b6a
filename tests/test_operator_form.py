"""The worked examples of the operator form: gradients of both orders, views and in-place writes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from minidl.autograd import grad, no_grad, op
from minidl.autograd.op import Array
from minidl.backends import local
from minidl.errors import DTypeError, GradientError, MinidlError, ShapeError
from minidl.ops import (
    add,
    argmax,
    cat,
    dropout,
    linear,
    manual_seed,
    mul,
    reshape,
    scaled_dot_product_attention,
    sum,
    topk,
)
from minidl.ops.views import expand
from minidl.tensor import Tensor
from minidl.testing.gradcheck import GradcheckError, gradcheck, gradgradcheck

rng = np.random.default_rng(0)


def leaf(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape)).requires_grad_()


def seeded_dropout(x: Tensor) -> Tensor:
    manual_seed(0)
    return dropout(x, 0.4)


def add_in_place(x: Tensor, y: Tensor) -> Tensor:
    z = x.clone()
    z.add_(y)
    z[0].mul_(y[0])
    return z


def causal_gqa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


EXAMPLES = {
    "add": (add, (3, 4), (4,)),
    "add alpha": (lambda x, y: add(x, y, alpha=2.5), (3, 1), (4,)),
    "sum": (sum, (3, 4)),
    "sum dim": (lambda x: sum(x, 1, True), (3, 4)),
    "getitem view": (lambda x: x[1:, None, ::2], (3, 4)),
    "getitem copy": (lambda x: x[[0, 0, 2]], (3, 4)),
    "cat": (lambda x, y: cat([x, y, x], 1), (2, 3), (2, 1)),
    "topk": (lambda x: topk(x, 2, 0)[0], (4, 3)),
    "linear": (linear, (2, 3, 4), (5, 4), (5,)),
    "linear without bias": (linear, (2, 3, 4), (5, 4)),
    "attention": (scaled_dot_product_attention, (2, 3, 4), (2, 5, 4), (2, 5, 3)),
    "attention causal gqa": (causal_gqa, (1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)),
    "attention of one tensor": (lambda x: scaled_dot_product_attention(x, x, x), (1, 3, 2)),
    "dropout": (seeded_dropout, (4, 5)),
    "add_": (add_in_place, (3, 4), (3, 4)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_first_and_second_derivatives(name: str) -> None:
    function, *shapes = EXAMPLES[name]
    inputs = [leaf(*shape) for shape in shapes]
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_argmax_has_no_gradient() -> None:
    x = leaf(3, 4)
    assert not argmax(x, 1).requires_grad
    assert argmax(x, 1).array.tolist() == x.array.argmax(1).tolist()


def test_gradcheck_finds_a_wrong_gradient() -> None:
    def wrong(x: Tensor) -> Tensor:
        return mul(x, x.detach())

    with pytest.raises(GradcheckError, match=r"wrong: input 0, element \(0,\): analytic"):
        gradcheck(wrong, [leaf(3)])
    assert not gradcheck(wrong, [leaf(3)], raise_exception=False, fast_mode=True)


def test_gradcheck_refuses_float32() -> None:
    x = Tensor(np.ones(2, np.float32)).requires_grad_()
    with pytest.raises(DTypeError, match="must be float64"):
        gradcheck(sum, [x])


def test_gradcheck_leaves_its_inputs_as_they_were() -> None:
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(GradientError, match="read-only"):
        gradcheck(sum, [Tensor(frozen).requires_grad_()])
    x, calls = leaf(3), iter(range(3))
    before = x.array.copy()

    def fails_when_moved(x: Tensor) -> Tensor:
        if next(calls) == 2:
            raise KeyError
        return x.clone()

    with pytest.raises(KeyError):
        gradcheck(fails_when_moved, [x])
    np.testing.assert_array_equal(x.array, before)


# views and in-place writes (architecture, section 2)


def test_write_through_a_view_reaches_the_base() -> None:
    x = leaf(3, 4)
    y = x.clone()
    y[0].mul_(2)
    sum(y).backward()
    assert x.grad.array.tolist() == [[2.0] * 4, [1.0] * 4, [1.0] * 4]


def test_write_through_a_sibling_view_is_seen() -> None:
    x = leaf(3, 4)
    y = x.clone()
    first, again = y[0], y[:2]
    again.mul_(3)
    sum(first).backward()
    assert x.grad.array.tolist() == [[3.0] * 4, [0.0] * 4, [0.0] * 4]


def test_write_through_the_base_after_a_view_was_taken() -> None:
    x = leaf(3, 4)
    y = x.clone()
    view = y[1]
    y.mul_(5)
    sum(view).backward()
    assert x.grad.array.tolist() == [[0.0] * 4, [5.0] * 4, [0.0] * 4]


def test_write_of_a_tracked_value_into_an_untracked_base() -> None:
    w = leaf(4)
    y = Tensor(np.zeros((3, 4)))
    before = y[1]
    y[1].add_(w)
    assert y.requires_grad and before.requires_grad
    sum(mul(before, before)).backward()
    np.testing.assert_allclose(w.grad.array, 2 * w.array)


def test_view_is_derived_again_even_where_nothing_is_recorded() -> None:
    x = leaf(3, 4)
    y = x.clone()
    view = y[1]
    y.mul_(5)
    with no_grad():
        assert view.requires_grad
    sum(view).backward()
    assert x.grad.array.tolist() == [[0.0] * 4, [5.0] * 4, [0.0] * 4]


def test_view_of_a_view() -> None:
    x = leaf(4, 4)
    y = x.clone()
    y[1:].transpose(0, 1)[0].mul_(7)
    sum(y).backward()
    expected = np.ones((4, 4))
    expected[1:, 0] = 7
    np.testing.assert_array_equal(x.grad.array, expected)


def test_saved_tensor_written_in_place_is_refused() -> None:
    x, y = leaf(3), leaf(3).clone()
    z = mul(x, y)
    y.add_(1)
    with pytest.raises(GradientError, match=r"\[mul\] .*written in place.*version 0, now"):
        sum(z).backward()


def test_write_through_a_view_raises_the_version_of_the_base() -> None:
    x, y = leaf(3), leaf(3).clone()
    z = mul(x, y)
    y[0].add_(1)
    with pytest.raises(GradientError, match="written in place"):
        sum(z).backward()


def test_unneeded_values_may_be_written() -> None:
    x, y = leaf(3), leaf(3).clone()
    z = add(x, y)
    y.add_(1)
    sum(z).backward()
    assert x.grad.array.tolist() == [1.0] * 3


def test_write_through_a_view_of_a_transposed_root() -> None:
    x = Tensor(rng.standard_normal((2, 3))).requires_grad_()
    y = mul(x.T, 1.0)  # its elements lie in column order
    v = y.T.view(-1)
    v.mul_(3.0)
    v[0].mul_(2.0)
    (g,) = grad(sum(mul(mul(y, y), y)), x, create_graph=True)
    sum(g).backward()
    factor = np.where(np.arange(6).reshape(2, 3) == 0, 6.0, 3.0)
    np.testing.assert_allclose(g.array, 3 * factor**3 * x.array**2)
    np.testing.assert_allclose(x.grad.array, 6 * factor**3 * x.array)


def test_gradient_of_a_write_may_arrive_expanded() -> None:
    x = Tensor(rng.standard_normal((2, 3))).requires_grad_()
    y = mul(x, 1.0)
    y.view(-1).mul_(2.0)
    sum(mul(y.sum(0), Tensor(np.arange(3.0)))).backward()
    np.testing.assert_array_equal(x.grad.array, np.tile(2 * np.arange(3.0), (2, 1)))


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_overwritten_gets_a_gradient_of_zeros(whole: bool) -> None:
    x, z = leaf(2, 3), leaf(2, 3)
    y = x.clone()
    if whole:
        y.copy_(z)
    else:
        y[0].copy_(z[0])
    (y * 2).sum().backward()
    assert x.grad is not None and z.grad is not None
    kept = np.array([[0.0] * 3, [0.0 if whole else 2.0] * 3])
    np.testing.assert_array_equal(x.grad.numpy(), kept)
    np.testing.assert_array_equal(z.grad.numpy(), 2.0 - kept)


def test_detaching_a_root_in_place_leaves_its_views_alone() -> None:
    x = Tensor(np.ones(3)).requires_grad_()
    y = mul(x, 2.0)
    v = y[0]
    y.detach_()
    v.backward()
    np.testing.assert_array_equal(x.grad.array, [2.0, 0.0, 0.0])


def test_view_that_is_a_leaf_is_not_written() -> None:
    v = Tensor(np.ones(3))[0].requires_grad_()
    with pytest.raises(GradientError, match="a leaf that requires gradients"):
        v.mul_(2.0)


def test_overwritten_value_has_zero_gradient() -> None:
    x = Tensor(np.ones(3)).requires_grad_()
    y = mul(x, 2.0)
    y.fill_(1.0)
    sum(y).backward()
    np.testing.assert_array_equal(x.grad.array, np.zeros(3))


def test_graph_that_keeps_no_arrays_can_be_passed_twice() -> None:
    x = Tensor(np.ones(3)).requires_grad_()
    y = x.clone()
    y[0] = 5.0
    out = sum(y)
    out.backward()
    out.backward()
    np.testing.assert_array_equal(x.grad.array, [0.0, 2.0, 2.0])


def test_leaf_that_requires_grad_is_not_written() -> None:
    x = leaf(3)
    with pytest.raises(GradientError, match=r"\[add_\] a leaf that requires gradients"):
        x.add_(1)
    with pytest.raises(GradientError, match=r"\[mul_\] a view of a leaf"):
        x[0].mul_(2)
    with no_grad():
        x.add_(1)
        x[0].mul_(2)
    assert x.is_leaf and x.storage.version == 2


def test_expanded_tensor_is_read_only() -> None:
    with pytest.raises(MinidlError, match=r"\[add_\] the tensor is read-only"):
        expand(Tensor(np.zeros((1, 3))), (2, 3)).add_(1)


def test_result_of_wider_kind_is_not_written() -> None:
    counts = Tensor(np.zeros(3, np.int64))
    with pytest.raises(DTypeError, match=r"\[add_\] a float32 result .* int64"):
        counts.add_(0.5)
    with pytest.raises(ShapeError, match=r"\[add_\]"):
        Tensor(np.zeros(3)).add_(Tensor(np.zeros((2, 3))))


# the graph


def test_node_keeps_only_what_the_gradient_names() -> None:
    x, y = leaf(3), leaf(3).clone()
    alive = weakref.ref(y)
    out = add(x, y)
    del y
    assert alive() is None
    sum(out).backward()


def test_graph_is_freed_by_reference_count() -> None:
    gc.disable()
    try:
        x = leaf(3)
        out = mul(scaled_dot_product_attention(*[reshape(mul(x, x), (1, 3, 1))] * 3), 2)
        out[0].mul_(2)
        alive = weakref.ref(out.node)
        sum(out).backward()
        del out
        assert alive() is None
    finally:
        gc.enable()


def test_deep_graph() -> None:
    x = h = leaf(2)
    for _ in range(20_000):
        h = add(h, x)
    sum(h).backward()
    assert x.grad.array.tolist() == [20_001.0] * 2
    del h


def test_grad_is_not_shared() -> None:
    x, y = leaf(3), leaf(3)
    g = Tensor(np.ones(3))
    add(x, y).backward(g)
    assert not np.shares_memory(x.grad.array, y.grad.array)
    assert not np.shares_memory(x.grad.array, g.array)
    x.grad.array[:] = 9
    assert y.grad.array.tolist() == g.array.tolist() == [1.0] * 3


def test_second_backward_needs_retain_graph() -> None:
    x = leaf(3)
    out = sum(mul(x, x))
    out.backward(retain_graph=True)
    out.backward()
    np.testing.assert_allclose(x.grad.array, 4 * x.array)
    with pytest.raises(GradientError, match="the graph was freed"):
        out.backward()


def test_grad_of_inner_tensor_and_third_order() -> None:
    x = leaf()
    cube = mul(mul(x, x), x)
    (first,) = grad(cube, x, create_graph=True)
    (second,) = grad(first, x, create_graph=True)
    (third,) = grad(second, x)
    np.testing.assert_allclose(
        [first.item(), second.item(), third.item()],
        [3 * x.item() ** 2, 6 * x.item(), 6.0],
    )


def test_messages_name_operator_rule_and_shapes() -> None:
    with pytest.raises(ShapeError, match=r"^\[mul\] shapes must broadcast, got \(3,\), \(4,\)$"):
        mul(leaf(3), leaf(4))
    with pytest.raises(ShapeError, match=r"^\[linear\] last axis .* got \(8, 5\), \(3, 7\)$"):
        linear(leaf(8, 5), leaf(3, 7))
    with pytest.raises(DTypeError, match=r"wrap it with minidl.tensor"):
        add(leaf(3), np.ones(3))


def test_operators_run_inside_of_a_running_kernel() -> None:
    def interrupt() -> Any:  # as a signal handler or a __del__ does
        x = Tensor(np.ones(3)).requires_grad_()
        y = mul(x, Tensor(np.float32(2) * np.ones(3, np.float16)))
        y[0] = 1.0
        sum(y).backward()
        plain = Tensor(np.ones(3))
        plain.mul_(2.0)
        return x.grad.array.tolist(), plain.array.tolist()

    assert local.state.enter(interrupt) == ([0.0, 2.0, 2.0], [2.0, 2.0, 2.0])


# what others may hold, change or refuse


def test_grad_with_a_graph_is_not_shared() -> None:
    x, y, seed = leaf(3), leaf(3), leaf(3)
    add(x, y).backward(seed, create_graph=True)
    with no_grad():
        x.grad.mul_(0)
    np.testing.assert_array_equal(y.grad.array, seed.array)
    assert y.grad.requires_grad and seed.array.tolist() != [0.0] * 3
    (second,) = grad(sum(mul(y.grad, y.grad)), seed)
    np.testing.assert_array_equal(second.array, 2 * seed.array)


def test_view_of_a_leaf_that_is_a_view_itself() -> None:
    x = Tensor(np.ones(3))
    v = x[:2].requires_grad_()
    with pytest.raises(GradientError, match="a view of a leaf"):
        v[0].mul_(2)
    mul(v[0], 3).backward()
    assert v.is_leaf and v.grad.array.tolist() == [3.0, 0.0] and not x.requires_grad


def test_list_that_the_caller_changes_later() -> None:
    x, dims = leaf(2, 3), [0]
    y = sum(x, dims)
    dims[0] = 1
    y.backward(Tensor(np.arange(3.0)))
    np.testing.assert_array_equal(x.grad.array, [[0, 1, 2]] * 2)


def test_backward_into_no_inputs_is_refused() -> None:
    with pytest.raises(GradientError, match="inputs must not be empty"):
        sum(leaf(3)).backward(inputs=[])


def test_operator_needs_annotations_as_text() -> None:
    def forward(k: Any, x: Any) -> Any:
        return x

    forward.__annotations__["x"] = Any  # what `x: Array` is without the __future__ import
    with pytest.raises(TypeError, match="from __future__ import annotations"):
        op(forward)


def test_gradient_may_be_given_after_the_first_call() -> None:
    @op
    def doubled(k: Any, x: Array) -> Any:
        return k.mul(x, 2.0)

    with pytest.raises(GradientError, match=r"\[doubled\] has no gradient"):
        sum(doubled(leaf(2))).backward()

    @doubled.gradient
    def _(g: Tensor) -> Any:
        return mul(g, 2.0)

    assert gradcheck(doubled, (leaf(2),))


def test_value_with_more_axes_is_not_written() -> None:
    for shape in ((), (3,)):
        x = Tensor(np.zeros(shape))
        with pytest.raises(ShapeError, match=r"\[copy_\] the result must have the shape"):
            x.copy_(leaf(1, *shape))
        assert x.storage.version == 0 and not x.array.any()

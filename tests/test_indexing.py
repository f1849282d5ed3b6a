"""Indexing against NumPy and PyTorch, assignment with history, views and their refusals."""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl.errors import (
    ArgumentError,
    DTypeError,
    GradientError,
    MinidlError,
    OutOfRangeError,
    ShapeError,
    UnsupportedError,
)
from minidl.nn.functional import pad
from minidl.tensor import Tensor
from minidl.testing import gradcheck, gradgradcheck

rng = np.random.default_rng(0)


def leaf(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape)).requires_grad_()


def counted(*shape: int) -> Tensor:
    return minidl.arange(int(np.prod(shape))).reshape(shape)


def index(*values: int) -> Tensor:
    return minidl.tensor(values)


# ---------------------------------------------------------------- what an index selects


@pytest.mark.parametrize(
    "where",
    [
        np.s_[1], np.s_[-1, 0], np.s_[..., 0], np.s_[1:, ::2], np.s_[None, 0, ..., None],
        np.s_[[0, 1]], np.s_[[1], [2], [3]], np.s_[:, [0, 2]], np.s_[[0, 1], :, [1, 2]],
        np.s_[[[0], [1]], [0, 2]], np.s_[True], np.s_[False], np.s_[..., [True, False, True, True]],
        np.s_[:, None, [1, 1]], np.s_[::-1, :, -2:0:-1], np.s_[()], np.s_[...],
        np.s_[np.array([True, False])], np.s_[:0], np.s_[[]], np.s_[5:], np.s_[np.int64(1)],
        np.s_[np.array([[True, False, True], [False, False, True]])],
    ],
    ids=repr,
)  # fmt: skip
def test_the_same_as_numpy(where):
    x = np.arange(24.0).reshape(2, 3, 4)
    found = Tensor(x)[where]
    assert found.shape == x[where].shape
    assert np.array_equal(found.array, x[where])


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        (np.s_[0, :, [0, 1]], (3, 2)),  # NumPy: (2, 3)
        (np.s_[[0, 1], :, 0], (2, 3)),
        (np.s_[1, [0, 1], :], (2, 4)),
        (np.s_[1:, None, [0, 1], 0], (1, 1, 2)),
        (np.s_[..., 1, [0, 1, 1]], (2, 3)),
        (np.s_[0, None, :, [True, False, True, False]], (1, 3, 2)),
        (np.s_[True, 0], (1, 3, 4)),
    ],
    ids=repr,
)
def test_integers_beside_arrays_select_first_as_in_torch(where, shape):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    x = np.arange(24.0).reshape(2, 3, 4)
    want = torch.from_numpy(x)[where]
    found = Tensor(x)[where]
    assert found.shape == tuple(want.shape) == shape
    assert np.array_equal(found.array, want.numpy())


def test_tensors_of_every_kind_are_indices():
    x = counted(3, 4)
    assert x[minidl.tensor(1)].tolist() == [4, 5, 6, 7]
    assert x[minidl.tensor(1), minidl.tensor([0, 3])].tolist() == [4, 7]
    assert x[minidl.tensor([2, 0], dtype=minidl.int8)].tolist() == x[[2, 0]].tolist()
    assert x[x > 9].tolist() == [10, 11]
    mask = minidl.tensor([1, 0, 1], dtype=minidl.uint8)  # a mask in PyTorch too
    assert x[mask].tolist() == x[[0, 2]].tolist()
    assert x[range(2)].shape == (2, 4)
    assert x[(0, 1), (2, 3)].tolist() == [2, 7]
    assert x[minidl.tensor(True)].shape == (1, 3, 4)


def test_a_basic_index_is_a_view_and_others_are_copies():
    x = minidl.zeros(3, 4)
    x[1][2] = 5
    x[:, 0].fill_(7)
    x[..., -1:][0, 0] = 9
    assert x.tolist() == [[7, 0, 0, 9], [7, 0, 5, 0], [7, 0, 0, 0]]
    x[[0]].fill_(1)
    x[x > 0].fill_(1)
    assert x.tolist() == [[7, 0, 0, 9], [7, 0, 5, 0], [7, 0, 0, 0]]


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        (5, OutOfRangeError, "index 5 is out of bounds for axis 0 with size 2"),
        ((0, -4), OutOfRangeError, "index -4 is out of bounds for axis 1 with size 3"),
        ((0, 0, 0), OutOfRangeError, "too many indices"),
        ([0, 7], OutOfRangeError, "index 7 is out of bounds for axis 0 with size 2"),
        ((slice(None), [3]), OutOfRangeError, "index 3 is out of bounds for axis 1 with size 3"),
        (np.array([True, False, True]), OutOfRangeError, "axis 0 is 2 .* 3|axis 0; size of axis"),
        (([0, 1], [0, 1, 2]), OutOfRangeError, "broadcast"),
        (1.0, DTypeError, "float"),
        (np.array([0.5]), DTypeError, "float64"),
        ("a", DTypeError, "str"),
        (slice(0.5, None), DTypeError, "float"),
        ([[0, 1], [1, 0]], UnsupportedError, "list that holds lists"),
        ([minidl.tensor(2), 0], UnsupportedError, "or tensors"),
        ((Ellipsis, Ellipsis), OutOfRangeError, "single ellipsis"),
    ],
)
def test_indices_that_are_refused(where, error, text):
    x = minidl.zeros(2, 3)
    with pytest.raises(error, match=text):
        x[where]
    with pytest.raises(error):
        x[where] = 1.0
    assert not x.any()


def test_iteration_and_unpacking():
    a, b = counted(2, 3)
    assert (a.tolist(), b.tolist()) == ([0, 1, 2], [3, 4, 5])
    assert [int(v) for v in b] == [3, 4, 5]
    with pytest.raises(TypeError, match="0-d"):
        list(minidl.tensor(1.0))


# ---------------------------------------------------------------- assignment


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (0, 5.0), (np.s_[:, 1], np.arange(4.0)), (np.s_[1:], np.ones((1, 3, 4))),
        ([1, 0], np.arange(4.0)), (np.s_[0, :, [0, 2]], np.arange(6.0).reshape(3, 2)),
        (np.s_[:, [0, 2]], np.ones((1, 1, 2, 4))), (np.s_[..., 1:3], -1), (np.s_[:0], 3.0),
        (np.s_[::2, ::-1], np.arange(12.0).reshape(3, 4)), (np.s_[[], 1], 2.0),
        (np.s_[:, np.array([True, False, True])], np.arange(8.0).reshape(2, 4)),
    ],
    ids=repr,
)  # fmt: skip
def test_assignment(where, value):
    x = np.zeros((2, 3, 4))
    t = minidl.zeros(2, 3, 4, dtype=minidl.float64)
    t[where] = Tensor(value) if isinstance(value, np.ndarray) else value
    if where == np.s_[0, :, [0, 2]]:
        x[0][:, [0, 2]] = value  # PyTorch's order of axes
    else:
        x[where] = value
    assert np.array_equal(t.array, x)


def test_assignment_converts_and_broadcasts():
    x = minidl.zeros(3, dtype=minidl.int64)
    x[0] = 2.7
    x[1:] = minidl.tensor([1.5, -1.5])
    assert x.tolist() == [2, 1, -1]
    x[x < 0] = 9.0
    x[np.int64(1)] = np.float32(4)
    assert x.tolist() == [2, 4, 9]


def test_overlapping_assignment_reads_before_it_writes():
    x = counted(6)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("where", "value", "error"),
    [
        (0, [1.0, 2.0], DTypeError),
        (0, "a", DTypeError),
        (0, minidl.ones(4), ShapeError),
        ([0, 1], minidl.ones(4), ShapeError),
        ([0, 1], minidl.ones(2, 3, dtype=minidl.float64), DTypeError),
    ],
)
def test_values_that_are_refused(where, value, error):
    x = minidl.zeros(2, 3)
    with pytest.raises(error, match="setitem"):
        x[where] = value
    assert not x.any()


def test_history_of_basic_assignment():
    x, v = leaf(3, 2), leaf(2)

    def function(x, v):
        y = x * 1
        y[1] = v * v
        y[2, 0] = 3.0
        y[:, 1][0] = y[1, 0]
        return y * y

    assert gradcheck(function, (x, v)) and gradgradcheck(function, (x, v))


def test_history_of_advanced_assignment():
    x, v = leaf(4, 3), leaf(2, 3)

    def function(x, v):
        y = x * 1
        y[[3, 1]] = v * v
        y[:, minidl.tensor([True, False, False])] = v[:1, :1]
        y[2, [0, 2]] = y[0, [1, 1]]
        return y * y

    assert gradcheck(function, (x, v)) and gradgradcheck(function, (x, v))


def test_assignment_of_a_recorded_value_into_a_plain_tensor():
    w = leaf(3)
    y = minidl.zeros(2, 3, dtype=minidl.float64)
    y[0] = w
    y[1] = w * 2
    y[minidl.tensor([0]), minidl.tensor([1])] = 0.0
    y.sum().backward()
    assert w.grad.tolist() == [3, 2, 3]


def test_writes_through_views_and_siblings():
    x = leaf(4)
    y = x.clone()
    first, second = y[:2], y.view(2, 2)
    second[0].mul_(3)  # a view of a view
    assert first.tolist() == (x.detach()[:2] * 3).tolist()
    (first.sum() + y.sum()).backward()
    assert x.grad.tolist() == [6, 6, 1, 1]


def test_leaves_refuse_recorded_writes_and_take_others():
    x = leaf(3)
    for write in (lambda: x.__setitem__(0, 1.0), lambda: x.__setitem__([0], 1.0)):
        with pytest.raises(GradientError, match="leaf"):
            write()
    with minidl.no_grad():
        x[0] = 1.0
        x[[1, 2]] = 2.0
    assert x.tolist() == [1, 2, 2] and x.is_leaf


def test_a_write_after_use_is_noticed():
    x = leaf(3)
    y = x.clone()
    z = y * y
    y[[0]] = 5.0
    with pytest.raises(GradientError, match="written in place"):
        z.sum().backward()


def test_an_index_that_changes_after_use_changes_no_gradient():
    x, where, mask = leaf(3), index(0, 2), minidl.tensor([True, False, False])
    y = x[where].sum() + 10 * x[mask].sum() + 100 * x.take(where).sum()
    z = x.clone()
    z[where] = 0.0
    where.fill_(1)
    mask.fill_(True)
    (y + 1000 * z.sum()).backward()
    assert x.grad.tolist() == [111, 1000, 101]


def test_a_saved_index_of_an_operator_that_changes_is_refused():
    x, where = leaf(3), index(0, 2)
    y = x.gather(0, where).sum()
    where.fill_(1)
    with pytest.raises(GradientError, match=r"\[gather\].*written in place"):
        y.backward()


def test_repeated_places_get_every_gradient():
    x = leaf(3)
    x[[0, 0, 2, 0]].sum().backward()
    assert x.grad.tolist() == [3, 0, 1]


# ---------------------------------------------------------------- views


def test_expanded_tensors_refuse_writes():
    x = minidl.zeros(3, 1)
    for view in (x.expand(3, 4), x.broadcast_to((2, 3, 1)), x.expand(3, 4)[0], x.unfold(0, 2, 1)):
        with pytest.raises(MinidlError, match="read-only.*clone"):
            view.add_(1)
    assert not x.any()
    x.expand(3, 4).clone().add_(1)


def test_views_write_to_their_base():
    x = minidl.zeros(3, 3)
    x.diagonal().fill_(1)
    x.T[0, 2] = 2  # row 2, column 0
    x.unfold(0, 1, 1)[1, 2, 0] = 3
    x.flatten()[1] = 4
    x.movedim(0, 1)[1, 0] += 1
    x.squeeze()[0, 2] = 6
    assert x.tolist() == [[1, 5, 6], [0, 1, 3], [2, 0, 1]]


def test_view_refuses_what_reshape_copies():
    x = counted(2, 3).T
    with pytest.raises(ShapeError, match="use reshape"):
        x.view(6)
    assert x.reshape(6).tolist() == [0, 3, 1, 4, 2, 5]
    assert x.reshape(6).storage is not x.storage
    assert counted(2, 3).view(-1).shape == (6,)
    with pytest.raises(UnsupportedError, match="another dtype"):
        x.view(minidl.float32)


ARRAY = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: minidl.reshape(ARRAY, (6,)),
        lambda x: minidl.squeeze(ARRAY),
        lambda x: minidl.unsqueeze(ARRAY, 0),
        lambda x: minidl.flatten(ARRAY),
        lambda x: minidl.ravel(ARRAY),
        lambda x: minidl.unflatten(ARRAY, 0, (2, 1)),
        lambda x: minidl.broadcast_to(ARRAY, (2, 3)),
        lambda x: x.view_as(ARRAY),
        lambda x: x.reshape_as(ARRAY),
        lambda x: x.expand_as(ARRAY),
        lambda x: minidl.split(ARRAY, 1),
        lambda x: minidl.unbind(ARRAY),
        lambda x: minidl.roll(ARRAY, 1),
        lambda x: minidl.tile(ARRAY, (2,)),
        lambda x: minidl.repeat_interleave(ARRAY, 2),
        lambda x: minidl.meshgrid(ARRAY[0], ARRAY[0]),
        lambda x: minidl.scatter(ARRAY, 0, index(0), x),
        lambda x: minidl.index_fill(ARRAY, 0, index(0), 1),
        lambda x: minidl.take_along_dim(ARRAY, index(0)),
        lambda x: minidl.take_along_dim(x, [0]),
        lambda x: minidl.masked_fill(ARRAY, x > 0, 1),
        lambda x: minidl.masked_scatter(ARRAY, x > 0, x),
        lambda x: minidl.clamp(ARRAY, 0),
        lambda x: minidl.where(ARRAY),
        lambda x: minidl.max(ARRAY),
        lambda x: minidl.equal(x, ARRAY),
        lambda x: minidl.positive(ARRAY),
        lambda x: minidl.dropout(ARRAY, 0.0),
        lambda x: minidl.rand_like(ARRAY),
        lambda x: minidl.nn.functional.mse_loss(x, ARRAY),
        lambda x: minidl.nn.functional.cross_entropy(x, [0, 1]),
        lambda x: minidl.nn.functional.nll_loss(x, 0),
        lambda x: minidl.nn.functional.glu(ARRAY),
        lambda x: minidl.nn.functional.scaled_dot_product_attention(x, ARRAY, x),
    ],
)
def test_what_is_no_tensor_is_refused(call):
    with pytest.raises(DTypeError, match=r"^\[\w+\] [\w\[\]]+ must be a Tensor"):
        call(counted(2, 3))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.reshape(4, -1), ShapeError),
        (lambda x: x.reshape(6, shape=(6,)), ArgumentError),
        (lambda x: x.split(1.0), DTypeError),
        (lambda x: x.chunk(1.0), DTypeError),
        (lambda x: x.byte().clamp(-1, 5), ArgumentError),
        (lambda x: x.take_along_dim(x > 0, 0), DTypeError),
        (lambda x: minidl.tensor(1.0).take_along_dim(index(0), 0), ShapeError),
        (lambda x: x.reshape(-1, -1), ShapeError),
        (lambda x: x.reshape(2.0, 3), DTypeError),
        (lambda x: x.expand(3), ShapeError),
        (lambda x: x.expand(4, 3), ShapeError),
        (lambda x: x.expand(-1, 2, 3), ShapeError),
        (lambda x: x.permute(0, 0), ShapeError),
        (lambda x: x.permute(0), ShapeError),
        (lambda x: x.transpose(0, 2), OutOfRangeError),
        (lambda x: x.unsqueeze(4), OutOfRangeError),
        (lambda x: x.squeeze(2), OutOfRangeError),
        (lambda x: x.flatten(1, 0), ShapeError),
        (lambda x: x.unflatten(1, (2, 2)), ShapeError),
        (lambda x: x.movedim((0, 1), 0), ShapeError),
        (lambda x: x.narrow(1, 2, 2), OutOfRangeError),
        (lambda x: x.select(1, 3), OutOfRangeError),
        (lambda x: x.split(0), ShapeError),
        (lambda x: x.split([1, 1], 1), ShapeError),
        (lambda x: x.chunk(0), ArgumentError),
        (lambda x: x.tensor_split(0), ArgumentError),
        (lambda x: x.unfold(0, 3, 1), ShapeError),
        (lambda x: x.unfold(0, 1, 0), ShapeError),
        (lambda x: x.diagonal(0, 1, 1), ShapeError),
        (lambda x: x[0].mT, ShapeError),
        (lambda x: x[None].t(), ShapeError),
        (lambda x: x.flip(0, 0), OutOfRangeError),
        (lambda x: x.roll((1, 2), 0), ShapeError),
        (lambda x: x.repeat(2), ShapeError),
        (lambda x: x.repeat(2, -1), ShapeError),
        (lambda x: x.repeat_interleave(index(1, 2, 3), 0), ShapeError),
        (lambda x: x[0].tril(), ShapeError),
        (lambda x: x[None].diag(), ShapeError),
        (lambda x: minidl.cat([x, x[0]]), ShapeError),
        (lambda x: minidl.cat([]), DTypeError),
        (lambda x: minidl.cat([x[0, 0], x[0, 1]]), ShapeError),
        (lambda x: minidl.stack([x, x[:1]]), ShapeError),
        (lambda x: minidl.meshgrid(x, x), ShapeError),
        (lambda x: minidl.meshgrid(x[0], indexing="ji"), ArgumentError),
        (lambda x: minidl.broadcast_tensors(x, x.T), ShapeError),
        (lambda x: pad(x, (1,)), ShapeError),
        (lambda x: pad(x, (-2, -2)), ShapeError),
        (lambda x: pad(x, (3, 0), "reflect"), ShapeError),
        (lambda x: pad(x, (4, 0), "circular"), ShapeError),
        (lambda x: pad(x, (1, 0), "mirror"), UnsupportedError),
        (lambda x: pad(x.byte(), (1, 0), value=-1), ArgumentError),
        (lambda x: pad(x, (1, 0), "reflect", 1.0), ArgumentError),
    ],
)
def test_arguments_that_are_refused(call, error):
    with pytest.raises(error, match=r"\[\w+\]"):
        call(minidl.zeros(2, 3))


def test_parts_of_a_recorded_tensor_are_one_node():
    x = leaf(4, 6)
    parts = (x * 1).chunk(3, 1)
    assert parts[0].grad_fn is parts[2].grad_fn
    assert [p.shape for p in parts] == [(4, 2)] * 3
    parts[1].sum().backward()  # nothing arrives at the others
    assert x.grad.tolist() == [[0, 0, 1, 1, 0, 0]] * 4


def test_a_write_through_a_part_reaches_the_whole():
    x = leaf(4)
    y = x * 1
    first, second = y.split(2)
    first.mul_(3)  # as any view; PyTorch refuses it for views of several outputs
    assert np.allclose(y.array[:2], x.array[:2] * 3)
    (y * y).sum().backward()
    assert np.allclose(x.grad.array, x.array * [18, 18, 2, 2])
    assert second.grad_fn is not None and first.grad_fn.name() == "GetitemBackward0"


def test_parts_follow_a_write_to_the_whole():
    x = leaf(4)
    y = x * 1
    parts = y.unbind()
    y.mul_(3)
    (parts[0] + parts[3]).backward()
    assert x.grad.tolist() == [3, 0, 0, 3]


def test_parts_are_views_where_nothing_is_recorded():
    x = minidl.zeros(4)
    x.split([1, 3])[1].fill_(1)
    x.chunk(2)[0].add_(1)
    x.unbind()[3].add_(5)
    assert x.tolist() == [1, 2, 1, 6]


def test_second_derivatives_through_parts():
    def function(x):
        a, b, c = x.chunk(3, -1)
        d, e = (a * b).unbind()
        return d * c[0] + e

    x = leaf(2, 6)
    assert gradcheck(function, x) and gradgradcheck(function, x)


# ---------------------------------------------------------------- along an axis


def test_half_sums_are_rounded_once():
    ones = minidl.ones(4096, dtype=minidl.bfloat16)
    zero = minidl.zeros(1, dtype=minidl.bfloat16)
    where = minidl.zeros(4096, dtype=minidl.int64)
    assert zero.scatter_add(0, where, ones).item() == 4096
    assert zero.index_add(0, where, ones).item() == 4096
    assert zero.index_put((where,), ones, accumulate=True).item() == 4096


@pytest.mark.parametrize("where", [[3], [-1], [0, 5]])
def test_positions_outside_the_axis(where):
    x, i, src = minidl.zeros(3), minidl.tensor(where), minidl.ones(len(where))
    for call in (
        lambda: x.gather(0, i),
        lambda: x.scatter(0, i, src),
        lambda: x.scatter_(0, i, 1.0),
        lambda: x.scatter_add(0, i, src),
        lambda: x.index_select(0, i),
        lambda: x.index_add(0, i, src),
        lambda: x.index_copy_(0, i, src),
    ):
        with pytest.raises(OutOfRangeError, match="out of bounds for axis 0 with size 3"):
            call()
    assert not x.any()


def test_positions_may_count_from_the_end_where_torch_takes_them():
    x = counted(2, 3)
    assert x.take(index(-1, 0)).tolist() == [5, 0]
    assert minidl.take_along_dim(x, minidl.tensor([[-1], [0]]), 1).tolist() == [[2], [3]]
    assert x.index_fill(1, index(-1), 9).tolist() == [[0, 1, 9], [3, 4, 9]]
    assert x.index_put((index(-1),), index(7)).tolist() == [[0, 1, 2], [7, 7, 7]]


def test_a_place_filled_twice_has_one_share():
    x, value = leaf(3), leaf()
    assert gradcheck(lambda x, v: x.index_fill(0, index(1, 1), v * v), (x, value))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.gather(0, index(0)), ShapeError),
        (lambda x: x.gather(0, minidl.zeros(1, 4, dtype=minidl.int64)), ShapeError),
        (lambda x: x.gather(0, minidl.zeros(1, 1)), DTypeError),
        (lambda x: x.gather(2, minidl.zeros(1, 1, dtype=minidl.int64)), OutOfRangeError),
        (lambda x: x.gather(0, [[0]]), DTypeError),
        (lambda x: x.scatter(0, index(0)[None], x.double()), DTypeError),
        (lambda x: x.scatter(0, index(0)[None], 1.0, reduce="multiply"), UnsupportedError),
        (lambda x: x.scatter(0, index(0, 1, 1, 0)[None], x), ShapeError),
        (lambda x: x.scatter_add(0, index(0, 0)[None], minidl.ones(1, 1)), ShapeError),
        (lambda x: x.index_select(0, index(0)[None]), ShapeError),
        (lambda x: x.index_add(0, index(0), x), ShapeError),
        (lambda x: x.index_copy(0, index(0), x), ShapeError),
        (lambda x: x.index_fill(0, index(0), x), ShapeError),
        (lambda x: x.index_put(index(0), x), DTypeError),
        (lambda x: x.index_put((index(0),), x.double()), DTypeError),
        (lambda x: x.masked_scatter(x == 0, minidl.ones(2)), ShapeError),
        (lambda x: x.masked_scatter(x, x), DTypeError),
        (lambda x: minidl.take_along_dim(x, index(0), 0), ShapeError),
    ],
)
def test_arguments_along_an_axis_that_are_refused(call, error):
    with pytest.raises(error, match=r"\[\w+\]"):
        call(minidl.zeros(2, 3))


def test_in_place_forms_keep_the_base_and_its_history():
    x, v = leaf(3, 2), leaf(2, 2)

    def function(x, v):
        y = x * 1
        y[:2].index_copy_(0, index(1, 0), v)
        y.T.index_add_(1, index(2, 2), v, alpha=2)
        y.scatter_(1, minidl.tensor([[1], [0], [1]]), 0.5)
        y[1:].scatter_add_(0, minidl.tensor([[0, 1], [1, 1]]), v * v)
        y.index_put_((index(0, 0), index(0, 1)), v[0], accumulate=True)
        y.masked_scatter_(minidl.tensor([[True, False]] * 3), v)
        return y * y

    assert gradcheck(function, (x, v)) and gradgradcheck(function, (x, v))


# ---------------------------------------------------------------- order


def test_nan_is_the_largest_value():
    x = minidl.tensor([2.0, float("nan"), 1.0, float("inf"), float("nan"), -float("inf")])
    assert x.sort().indices.tolist() == [5, 2, 0, 3, 1, 4]
    assert x.sort(descending=True).indices.tolist() == [1, 4, 3, 0, 2, 5]
    assert x.topk(3).indices.tolist()[2] == 3
    assert x.topk(2, largest=False).indices.tolist() == [5, 2]
    assert x.kthvalue(4).values.item() == float("inf")
    long = minidl.cat([minidl.arange(50.0), x])  # partitioned first
    assert long.topk(3).values.tolist()[2] == float("inf")
    values, counts = x.unique(return_counts=True)
    assert counts.tolist() == [1] * 6 and values.tolist()[:2] == [-float("inf"), 1]


def test_unique_has_no_gradient():
    x = leaf(3)
    with pytest.raises(GradientError, match="unique"):
        x.unique().sum().backward()


def test_long_axes_give_the_same_as_a_full_sort():
    x = Tensor(rng.standard_normal((3, 200)))
    for largest in (True, False):
        values, places = x.topk(7, largest=largest)
        want, order = x.sort(descending=largest)
        assert values.tolist() == want[:, :7].tolist()
        assert places.tolist() == order[:, :7].tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.topk(4),
        lambda x: x.topk(-1),
        lambda x: x.kthvalue(0),
        lambda x: x.kthvalue(4),
        lambda x: x.sort(1),
    ],
)
def test_ranks_outside_the_axis(call):
    with pytest.raises(OutOfRangeError, match="axis"):
        call(minidl.zeros(3))


def test_searchsorted_options():
    sequence = minidl.tensor([5, 1, 3])
    sorter = sequence.argsort()
    found = minidl.searchsorted(sequence, minidl.tensor([3, 4]), sorter=sorter, side="right")
    assert found.tolist() == [2, 2]
    assert minidl.searchsorted(minidl.tensor([1, 2]), 2).item() == 1
    assert minidl.bucketize(1.5, minidl.tensor([1.0, 2.0]), out_int32=True).dtype is minidl.int32
    with pytest.raises(ArgumentError, match="side"):
        minidl.searchsorted(sequence, 1, side="middle")
    with pytest.raises(ShapeError, match="all axes but the last"):
        minidl.searchsorted(minidl.zeros(2, 3), minidl.zeros(3, 1))


@pytest.mark.parametrize("recorded", [False, True])
def test_masks_of_other_shapes_are_refused(recorded):
    """Whether or not the write is recorded."""
    x = minidl.zeros(4, requires_grad=True) * 1 if recorded else minidl.zeros(4)
    wrong = minidl.tensor([True, False, True])
    with pytest.raises(minidl.errors.OutOfRangeError):
        x[wrong] = minidl.tensor([1.0, 2.0])
    with pytest.raises(minidl.errors.OutOfRangeError):
        x.index_put((wrong,), minidl.tensor([1.0, 2.0]))
    with pytest.raises(minidl.errors.OutOfRangeError):
        x.index_put((wrong,), minidl.tensor([1.0, 2.0]), accumulate=True)

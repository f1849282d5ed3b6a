"""Random numbers: streams, states, distributions, arguments, dropout."""

import copy
import itertools
import math
import pickle
import threading

import numpy as np
import pytest

import minidl as ml
from minidl.errors import ArgumentError, DTypeError, GradientError, MinidlError, ShapeError
from minidl.testing import gradcheck, gradgradcheck


def stream(seed):
    return ml.Generator().manual_seed(seed)


def same(x, y):
    assert x.dtype is y.dtype
    assert np.array_equal(x.array, y.array)


# ---------------------------------------------------------------- streams and states

# published words of Philox4x32-10 for the counter 0 and the key 0 (Random123, kat_vectors)
FIRST = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


def test_the_stream_is_philox():
    x = ml.rand(4, generator=stream(0))
    assert x.tolist() == [(word >> 8) / 2**24 for word in FIRST]
    y = ml.rand(2, generator=stream(0), dtype=ml.float64)
    wide = [FIRST[1] << 32 | FIRST[0], FIRST[3] << 32 | FIRST[2]]
    assert y.tolist() == [(word >> 11) / 2**53 for word in wide]


def test_a_seed_gives_the_same_numbers_again():
    for draw in (
        lambda g: ml.rand(3, 5, generator=g),
        lambda g: ml.randn(3, 5, generator=g),
        lambda g: ml.randint(100, (7,), generator=g),
        lambda g: ml.randperm(9, generator=g),
        lambda g: ml.multinomial(ml.ones(6), 4, generator=g),
        lambda g: ml.normal(0.0, 2.0, (4,), generator=g),
    ):
        same(draw(stream(3)), draw(stream(3)))
        assert not np.array_equal(draw(stream(3)).array, draw(stream(4)).array)


def test_the_default_generator_follows_manual_seed():
    ml.manual_seed(11)
    first = [ml.rand(3), ml.randn(3)]
    assert ml.initial_seed() == 11
    ml.manual_seed(11)
    for x, y in zip(first, [ml.rand(3), ml.randn(3)], strict=True):
        same(x, y)
    g = stream(11)
    same(first[0], ml.rand(3, generator=g))


def test_an_unseeded_run_differs_from_the_next():
    assert ml.seed() != ml.seed()
    assert ml.Generator().initial_seed() == ml.Generator().initial_seed()


@pytest.mark.parametrize("seed", [0, -1, 2**32, 2**63, 2**64 - 1])
def test_any_integer_is_a_seed(seed):
    same(ml.rand(3, generator=stream(seed)), ml.rand(3, generator=stream(seed % 2**64)))


def test_states_are_saved_and_restored():
    ml.manual_seed(5)
    ml.rand(10)
    state = ml.get_rng_state()
    x = ml.rand(7)
    ml.set_rng_state(state)
    same(x, ml.rand(7))
    g, other = stream(9), ml.Generator()
    ml.randn(3, generator=g)
    other.set_state(g.get_state())
    same(ml.randn(3, generator=g), ml.randn(3, generator=other))
    assert other.initial_seed() == 9
    assert state.dtype is ml.uint8


def test_a_generator_is_copied_and_pickled():
    g = stream(7)
    ml.rand(5, generator=g)
    for other in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert other.initial_seed() == 7
        same(ml.rand(3, generator=other), ml.rand(3, generator=copy.copy(g)))


@pytest.mark.parametrize("state", [ml.zeros(16), ml.zeros(8, dtype=ml.uint8), None])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ArgumentError, match="uint8 tensor of shape"):
        ml.Generator().set_state(state)


def test_draws_follow_each_other_without_overlap():
    g, whole = stream(1), ml.rand(12, generator=stream(1)).tolist()
    assert ml.rand(4, generator=g).tolist() + ml.rand(8, generator=g).tolist() == whole
    g = stream(1)
    ml.rand(3, generator=g)  # a draw begins with a fresh counter of four words
    assert ml.rand(4, generator=g).tolist() == whole[4:8]


def test_threads_share_a_generator_without_drawing_twice():
    g, found = stream(0), []

    def work():
        found.extend(g.reserve(4)[1] for _ in range(300))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(2400))


def test_numbers_are_the_same_in_another_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(ml.randn(50, generator=stream(2))))
    thread.start()
    thread.join()
    same(results[0], ml.randn(50, generator=stream(2)))


@pytest.mark.parametrize(
    "fill",
    [
        lambda x: x.uniform_(-1, 1, generator=stream(4)),
        lambda x: x.normal_(2, 3, generator=stream(4)),
        lambda x: x.bernoulli_(0.3, generator=stream(4)),
        lambda x: x.random_(0, 50, generator=stream(4)),
        lambda x: x.exponential_(2, generator=stream(4)),
    ],
)
def test_layout_does_not_matter(fill):
    plain = fill(ml.zeros(4, 6))
    for other in (ml.zeros(6, 4).t(), ml.zeros(8, 12)[::2, 1::2], ml.zeros(4, 6).flip(0)):
        assert fill(other) is other
        assert np.array_equal(other.array, plain.array)


# ---------------------------------------------------------------- distributions


def chi_square(counts, expected):
    """Standardised: about normal with mean 0 and variance 1 if `expected` is right."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    free = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / math.sqrt(2 * free)


@pytest.mark.parametrize("dtype", [ml.float64, ml.float32, ml.float16, ml.bfloat16])
def test_uniform(dtype):
    x = ml.rand(40000, generator=stream(1), dtype=dtype).array.astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert abs(chi_square(np.histogram(x, 32, (0, 1))[0], [1250] * 32)) < 4
    y = ml.zeros(40000, dtype=dtype).uniform_(-3, 5, generator=stream(2)).array.astype(float)
    assert y.min() >= -3 and y.max() <= 5 and abs(y.mean() - 1) < 0.05


@pytest.mark.parametrize("dtype", [ml.float64, ml.float32, ml.float16, ml.bfloat16])
def test_normal(dtype):
    x = ml.randn(40001, generator=stream(1), dtype=dtype).array.astype(np.float64)
    assert x.shape == (40001,)
    moments = [x.mean(), (x**2).mean(), (x**3).mean(), (x**4).mean()]
    assert np.abs(np.array(moments) - [0, 1, 0, 3]).max() < 0.1
    assert abs(np.corrcoef(x[:-1:2], x[1::2])[0, 1]) < 0.03  # the two of a pair
    y = ml.normal(3.0, 0.5, (20000,), generator=stream(3), dtype=dtype).array.astype(float)
    assert abs(y.mean() - 3) < 0.02 and abs(y.std() - 0.5) < 0.02


def test_normal_of_tensors():
    mean, std = ml.tensor([[0.0], [10.0]]), ml.tensor([1.0, 0.0, 2.0])
    x = ml.normal(mean, std, generator=stream(0))
    assert x.shape == (2, 3) and x[0, 1] == 0 and x[1, 1] == 10
    z = ml.randn(2, 3, generator=stream(0))
    assert np.allclose(x.array, mean.array + std.array * z.array)
    assert ml.normal(mean, 1.0).shape == (2, 1) and ml.normal(0.0, std).shape == (3,)


def test_integers():
    x = ml.randint(-3, 10, (26000,), generator=stream(5))
    assert x.dtype is ml.int64
    assert abs(chi_square(np.bincount(x.array + 3, minlength=13), [2000] * 13)) < 4
    assert set(ml.randint(0, 2, (99,), dtype=ml.bool).tolist()) == {True, False}
    assert ml.randint(5, (4,), dtype=ml.float32).dtype is ml.float32
    assert ml.randint(high=5, size=(4,)).shape == (4,)
    whole = ml.zeros(1000, dtype=ml.int64).random_(-(2**63), 2**63 - 1)
    assert whole.array.min() < -(2**61) and whole.array.max() > 2**61
    assert ml.zeros(9, dtype=ml.uint8).random_().array.max() > 9


def test_permutations_are_equally_likely():
    g, counts = stream(8), dict.fromkeys(itertools.permutations(range(4)), 0)
    for _ in range(4800):
        counts[tuple(ml.randperm(4, generator=g).tolist())] += 1
    assert abs(chi_square(list(counts.values()), [200] * 24)) < 4
    assert ml.randperm(0).shape == (0,)
    assert sorted(ml.randperm(1000, dtype=ml.int32).tolist()) == list(range(1000))


def test_bernoulli():
    p = ml.tensor([0.0, 0.25, 1.0], dtype=ml.float64)
    x = ml.bernoulli(p.expand(20000, 3), generator=stream(3))
    assert x.dtype is ml.float64 and set(x.unique().tolist()) == {0, 1}
    assert x[:, 0].sum() == 0 and x[:, 2].sum() == 20000 and abs(x[:, 1].mean() - 0.25) < 0.01
    y = ml.zeros(20000, 3).bernoulli_(p.float(), generator=stream(3))
    assert np.array_equal(y.array, x.array)
    assert ml.ones(5, dtype=ml.int64).bernoulli(0.0).tolist() == [0] * 5


def test_multinomial_frequencies():
    weights = ml.tensor([1.0, 0.0, 3.0, 4.0])
    x = ml.multinomial(weights, 16000, replacement=True, generator=stream(6))
    assert abs(chi_square(np.bincount(x.array)[[0, 2, 3]], [2000, 6000, 8000])) < 4
    # without: the first is drawn in proportion, the rest in proportion to what is left
    y = ml.multinomial(weights.expand(8000, 4), 3, generator=stream(6))
    assert (np.sort(y.array) == [0, 2, 3]).all()
    assert abs(chi_square(np.bincount(y.array[:, 0])[[0, 2, 3]], [1000, 3000, 4000])) < 4
    second = y.array[y.array[:, 0] == 3, 1]
    assert abs((second == 2).mean() - 0.75) < 0.03


def test_exponential():
    x = ml.zeros(40000).exponential_(2.0, generator=stream(1)).array
    assert x.min() >= 0 and abs(x.mean() - 0.5) < 0.02 and abs(x.std() - 0.5) < 0.02


# ---------------------------------------------------------------- arguments


def test_sizes_and_options():
    for size in ((2, 3), ((2, 3),), ([2, 3],)):
        assert ml.rand(*size).shape == ml.randn(*size).shape == (2, 3)
    assert ml.rand(()).shape == ml.rand().shape == () and ml.rand(0, 3).shape == (0, 3)
    x = ml.randn(2, dtype=ml.float64, device="cpu", requires_grad=True)
    assert x.requires_grad and x.is_leaf and x.dtype is ml.float64
    like = ml.zeros(2, 3, dtype=ml.bfloat16)
    assert ml.rand_like(like).dtype is ml.randn_like(like).dtype is ml.bfloat16
    assert ml.rand_like(like, dtype=ml.float64).dtype is ml.float64
    assert ml.randint_like(like, 4).shape == (2, 3) and ml.randint_like(like, 2, 4).array.min() >= 2


def test_the_default_dtype_is_used():
    ml.set_default_dtype(ml.float64)
    try:
        assert ml.rand(2).dtype is ml.randn(2).dtype is ml.float64
        assert ml.normal(0.0, 1.0, (2,)).dtype is ml.float64
    finally:
        ml.set_default_dtype(ml.float32)


BAD = {
    "negative size": (lambda: ml.rand(2, -1), ShapeError, "not be negative"),
    "integer dtype": (lambda: ml.rand(2, dtype=ml.int64), DTypeError, "floating point"),
    "integer tensor": (lambda: ml.zeros(2, dtype=ml.int64).normal_(), DTypeError, "floating point"),
    "empty range": (lambda: ml.randint(5, 5, (2,)), ArgumentError, "less than high, got 5, 5"),
    "too large": (lambda: ml.randint(300, (2,), dtype=ml.uint8), ArgumentError, "0 to 255"),
    "too small": (lambda: ml.randint(-1, 3, (2,), dtype=ml.uint8), ArgumentError, "0 to 255"),
    "no size": (lambda: ml.randint(3), ArgumentError, "size must be a tuple"),
    "size is a number": (lambda: ml.randint(3, 4, 5), ArgumentError, "size must be a tuple"),
    "two floats": (lambda: ml.normal(0.0, 1.0), ArgumentError, "need a size"),
    "negative std": (lambda: ml.normal(0.0, -1.0, (2,)), ArgumentError, "negative"),
    "negative stds": (lambda: ml.normal(0.0, -ml.ones(2)), ArgumentError, "negative"),
    "bounds": (lambda: ml.zeros(2).uniform_(2, 1), ArgumentError, "from_ must not exceed"),
    "nan bounds": (lambda: ml.zeros(2).uniform_(math.nan, 1), ArgumentError, "must not exceed"),
    "rate": (lambda: ml.zeros(2).exponential_(0), ArgumentError, "positive"),
    "probability": (lambda: ml.bernoulli(ml.tensor([1.5])), ArgumentError, r"\[0, 1\]"),
    "nan probability": (lambda: ml.bernoulli(ml.tensor([math.nan])), ArgumentError, r"\[0, 1\]"),
    "p": (lambda: ml.zeros(2).bernoulli_(-0.5), ArgumentError, r"\[0, 1\]"),
    "integer p": (lambda: ml.bernoulli(ml.ones(2, dtype=ml.int64)), DTypeError, "floating"),
    "axes": (lambda: ml.multinomial(ml.ones(2, 2, 2), 1), ShapeError, "one or two axes"),
    "none": (lambda: ml.multinomial(ml.ones(2), 0), ArgumentError, "positive"),
    "too many": (lambda: ml.multinomial(ml.ones(2), 3), ArgumentError, "fewer than num_samples=3"),
    "zeros": (lambda: ml.multinomial(ml.tensor([1.0, 0.0]), 2), ArgumentError, "fewer than"),
    "sum": (lambda: ml.multinomial(ml.zeros(2, 2), 1), ArgumentError, "positive sum"),
    "negative weight": (lambda: ml.multinomial(-ml.ones(2), 1), ArgumentError, ">= 0"),
    "nan weight": (lambda: ml.multinomial(ml.tensor([math.nan]), 1), ArgumentError, "finite"),
    "length": (lambda: ml.randperm(-1), ArgumentError, "not be negative"),
    "generator": (lambda: ml.rand(2, generator=3), DTypeError, "minidl.Generator"),
    "device": (lambda: ml.rand(2, device="tpu"), MinidlError, "cpu"),
    "memory": (lambda: ml.rand(10**8, 10**8), MemoryError, "out of memory"),
    "dropout p": (lambda: ml.nn.functional.dropout(ml.ones(2), 1.5), ArgumentError, "probability"),
    "dropout integers": (
        lambda: ml.nn.functional.dropout(ml.ones(2, dtype=ml.int64)), DTypeError, "floating point",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()


def test_a_failed_draw_does_not_move_the_stream():
    g = stream(3)
    for call in (lambda: ml.rand(-1, generator=g), lambda: ml.randint(4, 4, (3,), generator=g)):
        with pytest.raises(MinidlError):
            call()
    same(ml.rand(4, generator=g), ml.rand(4, generator=stream(3)))


# ---------------------------------------------------------------- gradients and in place


def test_filling_a_leaf_needs_no_grad():
    x = ml.ones(3, requires_grad=True)
    with pytest.raises(GradientError, match="leaf"):
        x.uniform_()
    with ml.no_grad():
        x.uniform_(2, 3)
    assert x.requires_grad and x.array.min() >= 2


def test_filling_ends_the_history_of_what_it_overwrites():
    x = ml.ones(2, 3, requires_grad=True)
    y = x * 2
    y[0].normal_()
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0, 0], [2, 2, 2]]


def test_a_saved_tensor_that_is_filled_is_noticed():
    x, y = ml.ones(3, requires_grad=True), ml.ones(3)
    z = x * y
    y.uniform_()
    with pytest.raises(GradientError, match="written in place"):
        z.sum().backward()


def test_a_read_only_tensor_cannot_be_filled():
    with pytest.raises(MinidlError, match="read-only"):
        ml.zeros(1).expand(3).uniform_()


def test_draws_have_no_gradient():
    p = ml.full((3,), 0.5, requires_grad=True)
    assert not ml.bernoulli(p).requires_grad and not ml.normal(p, 1.0).requires_grad


# ---------------------------------------------------------------- dropout

dropout = ml.nn.functional.dropout


def test_dropout_is_the_identity_where_nothing_is_dropped():
    x = ml.ones(3)
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0) is x
    assert dropout(x, 1.0).tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [ml.float64, ml.float32, ml.float16, ml.bfloat16])
def test_dropout_keeps_the_mean(dtype):
    y = dropout(ml.ones(40000, dtype=dtype), 0.2, generator=stream(1))
    assert y.dtype is dtype
    values = y.array.astype(np.float64)
    assert abs((values == 0).mean() - 0.2) < 0.01
    assert abs(values[values != 0] - 1.25).max() < 0.01


def test_dropout_draws_the_same_for_every_layout():
    x = ml.rand(4, 6, generator=stream(0)) + 1
    plain = dropout(x, 0.5, generator=stream(1))
    for other in (x.t().contiguous().t(), ml.cat([x, x])[:4], x.flip(0).flip(0)):
        same(dropout(other, 0.5, generator=stream(1)), plain)


def test_dropout_passes_gradients_through_the_same_mask():
    x = ml.rand(5, 7, dtype=ml.float64, generator=stream(0), requires_grad=True)
    y = dropout(x, 0.3, generator=stream(2))
    (g,) = ml.autograd.grad(y.sum(), x, create_graph=True)
    assert np.allclose((x * g).array, y.array)

    def twice(x):
        return dropout(x, 0.3, generator=stream(2))

    assert gradcheck(twice, (x,)) and gradgradcheck(twice, (x,))


def test_dropout_in_place():
    x = ml.ones(6, requires_grad=True)
    y = x * 3
    out = dropout(y, 0.5, inplace=True, generator=stream(4))
    assert out is y
    plain = dropout(ml.full((6,), 3.0), 0.5, generator=stream(4))
    assert np.array_equal(out.array, plain.array)
    out.sum().backward()
    assert np.array_equal(x.grad.array, plain.array)
    with pytest.raises(GradientError, match="leaf"):
        dropout(x, 0.5, inplace=True)

"""Special functions and linear algebra where drawn inputs seldom come: ends, errors, large ones."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest

import minidl
from minidl import linalg, special


def t(value, **options):
    return minidl.tensor(value, dtype=minidl.float64, **options)


INF, NAN = math.inf, math.nan
ENDS = [
    (special.gammaln, [0.0, -0.0, -1.0, -3.0, INF, -INF, NAN, 1.0, 2.0, 2.6e305, 5e-324, -1e-300],
     [INF, INF, INF, INF, INF, INF, NAN, 0.0, 0.0, INF, 744.4400719213812, 690.7755278982137]),
    (special.digamma, [0.0, -0.0, -1.0, INF, -INF, NAN, 1.0],
     [-INF, INF, NAN, INF, NAN, NAN, -0.5772156649015329]),
    (special.entr, [0.0, 1.0, -1.0, INF, NAN], [0.0, 0.0, -INF, -INF, NAN]),
    (special.logit, [0.0, 0.5, 1.0, -0.1, 1.1], [-INF, 0.0, INF, NAN, NAN]),
    (special.ndtr, [-INF, -40.0, 0.0, INF, NAN], [0.0, 0.0, 0.5, 1.0, NAN]),
    (special.ndtri, [0.0, 0.5, 1.0, -0.1, 1.1], [-INF, 0.0, INF, NAN, NAN]),
    (lambda x: special.zeta(x, 1.0), [1.0, 0.5, 2.0, INF], [INF, NAN, math.pi**2 / 6, 1.0]),
    (lambda x: special.zeta(2.0, x), [0.0, -3.0, -0.5, INF], [INF, INF, 8.934802200544679, 0.0]),
    (lambda x: special.polygamma(1, x), [0.0, -1.0, 1.0], [INF, INF, math.pi**2 / 6]),
    (lambda x: special.xlogy(x, t([0.0, 0.0, NAN, 0.0])), [0.0, 2.0, 0.0, -2.0],
     [0.0, -INF, NAN, INF]),
    (lambda x: special.gammainc(x, t([0.0, 2.0, INF, 2.0, 1.0, -1.0, INF])),
     [1.0, 0.0, 3.0, INF, -1.0, 1.0, INF], [0.0, 1.0, 1.0, 0.0, NAN, NAN, NAN]),
    (lambda x: special.gammaincc(x, t([0.0, 2.0, INF, 2.0, 1.0, -1.0, INF])),
     [1.0, 0.0, 3.0, INF, -1.0, 1.0, INF], [1.0, 0.0, 0.0, 1.0, NAN, NAN, NAN]),
]  # fmt: skip


@pytest.mark.parametrize(("function", "at", "values"), ENDS)
def test_ends(function, at, values):
    np.testing.assert_allclose(function(t(at)).numpy(), values, rtol=2e-15, atol=1e-300)


def upper(a, x):
    """Q(a, x) of a whole number a: a sum of a terms, in 60 digits."""
    getcontext().prec = 60
    x = Decimal(x)
    term = total = Decimal(1)
    for k in range(1, a):
        term = term * x / k
        total += term
    return float((-x).exp() * total)


@pytest.mark.parametrize("a", [1, 2, 5, 20, 100, 1000])
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.8, 0.99, 1.0, 1.01, 1.2, 2.0, 4.0])
def test_incomplete_gamma_of_whole_numbers(a, ratio):
    x = a * ratio
    q = upper(a, x)
    found_q = special.gammaincc(t(float(a)), t(x)).item()
    found_p = special.gammainc(t(float(a)), t(x)).item()
    # the exponent is about a, so its rounding moves the result by a eps
    assert found_q == pytest.approx(q, rel=2e-14 * (10 + a / 10), abs=1e-300)
    assert found_p == pytest.approx(1 - q, abs=1e-13)
    assert found_p + found_q == pytest.approx(1, abs=4e-16)


def test_incomplete_gamma_keeps_small_results():
    # Q(a, x) is about a E1(x) for a small a; P(a, x) about x^a / gamma(a + 1)
    assert special.gammaincc(t(1e-12), t(0.3)).item() == pytest.approx(9.05676651e-13, rel=1e-7)
    assert special.gammainc(t(20.0), t(1e-3)).item() == pytest.approx(
        1e-60 / math.factorial(20), rel=1e-3
    )


def test_a_gradient_by_the_exponent_is_refused():
    s = t([2.0], requires_grad=True)
    with pytest.raises(minidl.GradientError, match="zeta"):
        special.zeta(s, t([1.5])).sum().backward()
    a = t([2.0], requires_grad=True)
    (slope,) = minidl.autograd.grad(
        minidl.igamma(a, t([1.0])).sum(), [a], create_graph=True, retain_graph=True
    )
    with pytest.raises(minidl.GradientError, match="has no gradient"):
        slope.sum().backward()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: special.polygamma(-1, t(1.0)), r"\[polygamma\] n must be an integer from 0"),
        (lambda: special.multigammaln(t(1.0), 0), r"\[mvlgamma\] p must be at least 1"),
        (lambda: linalg.cholesky(-minidl.eye(2)), r"\[cholesky\] the matrix is not positive"),
        (lambda: linalg.cholesky(minidl.ones(2, 3)), r"\[cholesky\] needs square .* \(2, 3\)"),
        (lambda: linalg.inv(minidl.ones(2, 2)), r"\[inverse\] the matrix is singular"),
        (lambda: linalg.solve(minidl.ones(2, 2), minidl.ones(2)), r"\[solve\] the matrix is sing"),
        (lambda: linalg.solve(minidl.eye(2), minidl.ones(3, 1)), r"as many rows as the matrix"),
        (lambda: linalg.eigh(minidl.eye(2), "X"), r"\[eigh\] UPLO must be 'L' or 'U'"),
        (lambda: minidl.poisson(t(-1.0)), r"\[poisson\] rates must not be negative"),
        (lambda: minidl.binomial(t(2.5), t(0.5)), r"\[binomial\] count must be whole"),
        (lambda: minidl.binomial(t(2.0), t(1.5)), r"\[binomial\] prob must lie in"),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_wrong_types():
    for call in (
        lambda: special.xlogy(1.0, 2.0),
        lambda: special.xlogy(t(1.0), "x"),
        lambda: linalg.inv(minidl.eye(2, dtype=minidl.int64)),
        lambda: minidl.poisson(minidl.tensor(3)),
        lambda: linalg.cholesky([[1.0]]),
    ):
        with pytest.raises(TypeError):
            call()


def test_a_zero_on_the_diagonal_of_a_triangle():
    x = linalg.solve_triangular(t([[0.0, 0.0], [1.0, 1.0]]), t([[1.0], [1.0]]), upper=False)
    assert math.isinf(x[0, 0].item())


def test_singular_determinants():
    a = minidl.ones(2, 2, requires_grad=True)
    assert linalg.det(a).item() == 0
    sign, log = linalg.slogdet(a)
    assert sign.item() == 0 and log.item() == -INF
    linalg.det(a).backward()  # the cofactors
    np.testing.assert_allclose(a.grad.numpy(), [[1, -1], [-1, 1]], atol=1e-6)
    with pytest.raises(ValueError, match="singular"):
        linalg.slogdet(minidl.ones(2, 2, requires_grad=True))[1].backward()
    assert math.isnan(minidl.logdet(minidl.tensor([[0.0, 1.0], [1.0, 0.0]])).item())


@pytest.mark.parametrize("dtype", [minidl.float32, minidl.float64])
def test_large_systems(dtype):
    minidl.manual_seed(0)
    a = minidl.randn(120, 120, dtype=dtype)
    spd = a @ a.mT / 120 + minidl.eye(120, dtype=dtype)
    factor = linalg.cholesky(spd)
    b = minidl.randn(120, 7, dtype=dtype)
    eps = minidl.finfo(dtype).eps
    assert (factor @ factor.mT - spd).abs().max().item() < 200 * eps
    assert (spd @ minidl.cholesky_solve(b, factor) - b).abs().max().item() < 2000 * eps
    assert (spd @ linalg.inv(spd) - minidl.eye(120, dtype=dtype)).abs().max().item() < 2000 * eps
    values, vectors = linalg.eigh(spd)
    assert (spd @ vectors - vectors * values).abs().max().item() < 500 * eps


def test_counts_are_drawn_over_their_whole_range():
    minidl.manual_seed(4)
    huge = minidl.poisson(minidl.full((2000,), 1e6, dtype=minidl.float64))
    assert abs(huge.mean().item() - 1e6) < 4 * 1e3 / math.sqrt(2000)
    assert minidl.poisson(t([0.0, INF])).tolist() == [0.0, INF]
    ends = minidl.binomial(t([5.0, 5.0, 0.0]), t([0.0, 1.0, 0.5]))
    assert ends.tolist() == [0.0, 5.0, 0.0]
    assert minidl.poisson(minidl.full((3,), 2.0, dtype=minidl.bfloat16)).dtype is minidl.bfloat16


def test_equal_eigenvalues_have_gradients():
    a = minidl.diag(t([1.0, 1.0, 2.0])).requires_grad_()
    (linalg.eigvalsh(a) * t([0.0, 1.0, 2.0])).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), np.diag([0.0, 1.0, 2.0]))


@pytest.mark.parametrize("place", [(0, 0), (1, 0), (2, 1), (2, 2)])
def test_nan_is_not_positive_definite(place):
    a = np.eye(3)
    a[place] = math.nan
    with pytest.raises(ValueError, match="positive definite"):
        linalg.cholesky(t(a))
    assert linalg.cholesky(t(np.stack([np.eye(3)] * 2))).shape == (2, 3, 3)


def test_tails_of_ndtri():
    p = [1e-300, 1e-100, 1e-30, 1e-17, 1e-10]
    known = [-37.0470963, -21.27345356, -11.46402469, -8.49379322, -6.3613409]  # Cephes
    np.testing.assert_allclose(minidl.special.ndtri(t(p)).numpy(), known, rtol=1e-9)
    around = np.array([0.019999, 0.02, 0.020001])
    back = minidl.special.ndtr(minidl.special.ndtri(t(around)))
    np.testing.assert_allclose(back.numpy(), around, rtol=1e-13)

"""Distributions by themselves: draws by statistics, densities that sum to 1, what is refused."""

import copy
import math
import pickle

import numpy as np
import pytest

import minidl
from minidl import distributions as d
from minidl.ops.sampling import log_standard_gamma, standard_gamma
from minidl.testing.gradcheck import gradcheck, gradgradcheck

COUNT = 20_000


def t(value, **options):
    return minidl.tensor(value, dtype=minidl.float64, **options)


def drawn(distribution, count=COUNT, seed=1):
    minidl.manual_seed(seed)
    return distribution.sample((count,)).numpy()


CONTINUOUS = {
    "Normal": d.Normal(t(0.7), t(2.0)),
    "LogNormal": d.LogNormal(t(0.2), t(0.5)),
    "Laplace": d.Laplace(t(-0.5), t(1.5)),
    "Cauchy": d.Cauchy(t(1.0), t(0.5)),
    "Gumbel": d.Gumbel(t(0.3), t(1.2)),
    "HalfNormal": d.HalfNormal(t(1.5)),
    "Uniform": d.Uniform(t(-1.0), t(3.0)),
    "Exponential": d.Exponential(t(2.0)),
    "Gamma below 1": d.Gamma(t(0.3), t(2.0)),
    "Gamma": d.Gamma(t(4.5), t(0.5)),
    "Chi2": d.Chi2(t(3.0)),
    "HalfCauchy": d.HalfCauchy(t(0.7)),
    "Weibull": d.Weibull(t(1.5), t(0.8)),
    "Pareto": d.Pareto(t(1.5), t(9.0)),
    "GeneralizedPareto": d.GeneralizedPareto(t(0.5), t(2.0), t(0.3)),
    "GeneralizedPareto with an end": d.GeneralizedPareto(t(0.5), t(2.0), t(-0.4)),
    "Kumaraswamy": d.Kumaraswamy(t(2.0), t(0.7)),
    "InverseGamma": d.InverseGamma(t(9.0), t(1.5)),
}
BY_DENSITY = {
    "Beta": (d.Beta(t(2.0), t(3.5)), 0.0, 1.0),
    "FisherSnedecor": (d.FisherSnedecor(t(4.0), t(9.0)), 0.0, 400.0),
    "StudentT": (d.StudentT(t(5.0), t(1.0), t(2.0)), -400.0, 400.0),
    "Mixture": (
        d.MixtureSameFamily(d.Categorical(t([0.3, 0.7])), d.Normal(t([-2.0, 1.0]), t(0.7))),
        -9.0, 9.0),
    "Relaxed Bernoulli": (d.RelaxedBernoulli(t(1.5), t(0.3)), 0.0, 1.0),
    "Tanh of normal": (
        d.TransformedDistribution(d.Normal(t(0.3), t(0.8)), d.TanhTransform()), -1.0, 1.0),
}  # fmt: skip


def kolmogorov(sample, cdf):
    """The largest distance of the sample's distribution function from `cdf`, times sqrt(n)."""
    n = len(sample)
    values = cdf(np.sort(sample))
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max((steps[1:] - values).max(), (values - steps[:-1]).max())


def integral(distribution, low, high, count=200_001):
    """Grid (middles) and the distribution function on it, by the midpoint rule."""
    edges = np.linspace(low, high, count)
    middles = (edges[1:] + edges[:-1]) / 2
    density = distribution.log_prob(t(middles)).exp().numpy()
    return middles, np.cumsum(density) * (edges[1] - edges[0])


# 1.95 is exceeded by one sample of a thousand; the seeds are fixed
@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_follow_the_distribution_function(name):
    distribution = CONTINUOUS[name]
    levels = distribution.cdf(t(drawn(distribution))).numpy()
    assert kolmogorov(levels, lambda x: x) < 1.95
    assert kolmogorov(levels**1.08, lambda x: x) > 1.95  # what is a little off is seen


@pytest.mark.parametrize("name", BY_DENSITY)
def test_draws_follow_the_density(name):
    distribution, low, high = BY_DENSITY[name]
    grid, cumulated = integral(distribution, low, high)
    assert abs(cumulated[-1] - 1) < 1e-4
    assert kolmogorov(drawn(distribution), lambda x: np.interp(x, grid, cumulated)) < 1.95


@pytest.mark.parametrize("name", ["Normal", "Laplace", "Gumbel", "LogNormal", "Gamma", "Chi2",
                                  "Exponential", "HalfNormal"])  # fmt: skip
def test_densities_integrate_to_their_distribution_function(name):
    distribution = CONTINUOUS[name]
    low, high = (1e-9, 120.0) if distribution.support is not d.constraints.real else (-60.0, 60.0)
    grid, cumulated = integral(distribution, low, high)
    assert abs(cumulated[-1] - 1) < 1e-4
    places = slice(50_000, 150_000, 10_000)
    np.testing.assert_allclose(cumulated[places], distribution.cdf(t(grid[places])).numpy(),
                               atol=2e-3)  # fmt: skip


DISCRETE = {
    "Bernoulli": (d.Bernoulli(t(0.3)), 2),
    "Binomial small": (d.Binomial(6, t(0.4)), 7),
    "Binomial large": (d.Binomial(60, t(0.7)), 61),
    "Geometric": (d.Geometric(t(0.25)), 120),
    "Poisson small": (d.Poisson(t(3.5)), 60),
    "Poisson large": (d.Poisson(t(25.0)), 120),
    "NegativeBinomial": (d.NegativeBinomial(t(2.5), t(0.6)), 120),
    "Categorical": (d.Categorical(t([0.1, 0.2, 0.7])), 3),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_draws_have_the_probabilities(name):
    distribution, most = DISCRETE[name]
    values = minidl.arange(most, dtype=minidl.float64)
    p = distribution.log_prob(values).exp().numpy()
    assert abs(p.sum() - 1) < 1e-8
    counts = np.bincount(drawn(distribution).astype(int), minlength=most)
    kept = p * COUNT > 5
    chi2 = ((counts[kept] - COUNT * p[kept]) ** 2 / (COUNT * p[kept])).sum()
    freedom = kept.sum() - 1
    assert chi2 < freedom + 4 * math.sqrt(2 * freedom) + 4  # about one in ten thousand


MOMENTS = {
    "Dirichlet": d.Dirichlet(t([0.5, 1.5, 3.0])),
    "Multinomial": d.Multinomial(7, t([0.2, 0.3, 0.5])),
    "OneHotCategorical": d.OneHotCategorical(t([0.2, 0.3, 0.5])),
    "Multivariate": d.MultivariateNormal(t([1.0, -1.0]), t([[2.0, 0.6], [0.6, 1.0]])),
    "Mixture": BY_DENSITY["Mixture"][0],
    "Batch of mixtures": d.MixtureSameFamily(
        d.Categorical(t([0.2, 0.8])),
        d.Independent(d.Normal(t([[[0.0, 1.0], [2.0, 3.0]]]), t(1.0)), 1),
    ),
    "Independent": d.Independent(d.Gamma(t([1.0, 2.0]), t([1.0, 0.5])), 1),
}


@pytest.mark.parametrize(
    "name", [*CONTINUOUS, *MOMENTS, *(n for n in DISCRETE if n != "Categorical")]
)
def test_moments_of_draws(name):
    distribution = CONTINUOUS.get(name) or MOMENTS.get(name) or DISCRETE[name][0]
    if "Cauchy" in name:
        assert not math.isfinite(distribution.mean.item())
        return
    sample = drawn(distribution)
    mean, deviation = distribution.mean.numpy(), distribution.stddev.numpy()
    np.testing.assert_allclose(sample.mean(0), mean, atol=4 * deviation.max() / math.sqrt(COUNT))
    np.testing.assert_allclose(sample.std(0), deviation, rtol=0.06)


def test_correlations_of_draws():
    matrix = MOMENTS["Multivariate"].covariance_matrix.numpy()
    sample = drawn(MOMENTS["Multivariate"])
    np.testing.assert_allclose(np.cov(sample.T), matrix, atol=0.06)


# ---------------------------------------------------------------- gradients of draws

QUANTILES = {
    "Normal": lambda a, b: d.Normal(a, b),
    "LogNormal": lambda a, b: d.LogNormal(a, b),
    "Laplace": lambda a, b: d.Laplace(a, b),
    "Cauchy": lambda a, b: d.Cauchy(a, b),
    "Gumbel": lambda a, b: d.Gumbel(a, b),
    "Uniform": lambda a, b: d.Uniform(a, b + 2),
    "Exponential": lambda a, b: d.Exponential(a + b),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_gradients_of_draws_are_those_of_the_quantile(name):
    """A draw moves with the parameters as the quantile at its distribution function does."""
    a, b = t([0.5, 1.0], requires_grad=True), t([1.5, 0.7], requires_grad=True)
    minidl.manual_seed(2)
    x = QUANTILES[name](a, b).rsample((50,))
    fixed = QUANTILES[name](a.detach(), b.detach()).cdf(x.detach())
    found = minidl.autograd.grad(x.sum(), [a, b])
    want = minidl.autograd.grad(QUANTILES[name](a, b).icdf(fixed).sum(), [a, b])
    for g, w in zip(found, want, strict=True):
        np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=1e-6)


@pytest.mark.parametrize("concentration", [0.01, 0.3, 1.0, 5.0, 300.0])
def test_gradients_of_gamma_draws(concentration):
    """dx/da = -(dP/da) / (dP/dx), P by the incomplete gamma function on either side of a."""
    a = minidl.full((400,), concentration, dtype=minidl.float64, requires_grad=True)
    minidl.manual_seed(5)
    log = log_standard_gamma(a)
    (slope,) = minidl.autograd.grad(log.sum(), [a])
    y = log.detach()
    step = concentration * 1e-4
    up, down = (minidl.igamma(a.detach() + s, y.exp()) for s in (step, -step))
    density = (a.detach() * y - y.exp() - minidl.lgamma(a.detach())).exp()
    want = -(up - down) / (2 * step) / density
    usable = ((density > 1e-3) & (y > -600)).numpy()
    assert usable.sum() > (10 if concentration < 0.1 else 300)
    np.testing.assert_allclose(slope.numpy()[usable], want.numpy()[usable], rtol=1e-4, atol=1e-5)


def test_gamma_draws_reach_far_below_the_smallest_number():
    minidl.manual_seed(0)
    a = minidl.full((1000,), 1e-3, requires_grad=True)
    logs = log_standard_gamma(a)
    assert bool(minidl.isfinite(logs).all()) and logs.min().item() < -200
    x = d.Gamma(a, 1.0).rsample()
    assert x.min().item() == minidl.finfo(minidl.float32).tiny
    x.sum().backward()
    assert bool(minidl.isfinite(a.grad).all())
    simplex = d.Dirichlet(minidl.full((100, 3), 1e-3)).sample()
    np.testing.assert_allclose(simplex.sum(-1).numpy(), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "mean_square"),
    [
        (lambda a, b: d.Beta(a, b), lambda a, b: a * (a + 1) / ((a + b) * (a + b + 1))),
        (lambda a, b: d.Gamma(a, b), lambda a, b: a * (a + 1) / b**2),
        (lambda a, b: d.StudentT(a + 4, b, b), lambda a, b: b**2 + b**2 * (a + 4) / (a + 2)),
    ],
    ids=["Beta", "Gamma", "StudentT"],
)
def test_gradients_of_draws_are_unbiased(make, mean_square):
    a, b = t(1.6, requires_grad=True), t(2.3, requires_grad=True)
    minidl.manual_seed(11)
    found = minidl.autograd.grad((make(a, b).rsample((60_000,)) ** 2).mean(), [a, b])
    want = minidl.autograd.grad(mean_square(a, b), [a, b])
    for g, w in zip(found, want, strict=True):
        assert g.item() == pytest.approx(w.item(), rel=0.06, abs=2e-3)


def test_draws_depend_on_the_seed_and_element_alone():
    a = minidl.linspace(0.1, 30, 5000, dtype=minidl.float64)
    draws = []
    for _ in range(2):
        minidl.manual_seed(9)
        draws.append(standard_gamma(a).numpy())
    assert np.array_equal(*draws)
    minidl.manual_seed(9)
    # element i depends on its own parameter and its place, not on its neighbours
    part = standard_gamma(minidl.cat([a[:100], a[:100] * 3]))
    assert np.array_equal(part.numpy()[:100], draws[0][:100])
    minidl.manual_seed(9)
    one = d.Normal(0.0, 1.0).sample((4,))
    minidl.manual_seed(9)
    assert np.array_equal(one.numpy(), d.Normal(0.0, 1.0).rsample((4,)).numpy())


def test_sample_records_nothing_and_rsample_does():
    loc = t([0.0, 1.0], requires_grad=True)
    assert not d.Normal(loc, 1.0).sample().requires_grad
    assert d.Normal(loc, 1.0).rsample((2,)).requires_grad
    assert not d.Bernoulli(logits=loc).sample().requires_grad
    with pytest.raises(NotImplementedError, match=r"\[Bernoulli\] has no rsample"):
        d.Bernoulli(logits=loc).rsample()
    straight = d.OneHotCategoricalStraightThrough(logits=loc).rsample()
    (straight * t([1.0, 2.0])).sum().backward()
    assert loc.grad is not None and loc.grad.abs().sum().item() > 0


@pytest.mark.parametrize("make", [d.Normal, d.Gamma, d.Beta, d.Laplace, d.Gumbel, d.StudentT])
def test_second_derivatives_of_log_prob(make):
    a, b = t([0.7, 1.8], requires_grad=True), t([1.2, 0.4], requires_grad=True)

    def log_prob(a, b):
        return make(a, b, validate_args=False).log_prob(t([0.3, 0.6]))

    gradcheck(log_prob, [a, b])
    gradgradcheck(log_prob, [a, b])


def test_relaxed_categories_have_the_probabilities_of_their_largest_element():
    probs = t([0.2, 0.5, 0.3], requires_grad=True)
    relaxed = d.RelaxedOneHotCategorical(t(0.4), probs)
    largest = drawn(relaxed).argmax(-1)
    counts = np.bincount(largest, minlength=3) / COUNT
    np.testing.assert_allclose(counts, [0.2, 0.5, 0.3], atol=0.015)
    relaxed.rsample((10,))[:, 0].sum().backward()
    assert probs.grad is not None and probs.grad.abs().min().item() > 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: d.Normal(0.0, -1.0), r"\[Normal\] parameter scale .* GreaterThan\(lower_bound=0"),
        (lambda: d.Normal(math.nan, 1.0), r"\[Normal\] parameter loc .* Real\(\)"),
        (lambda: d.Bernoulli(1.5), r"\[Bernoulli\] parameter probs .* Interval\(lower_bound=0"),
        (lambda: d.Bernoulli(), r"\[Bernoulli\] either probs or logits"),
        (lambda: d.Bernoulli(0.5, 0.5), r"\[Bernoulli\] either probs or logits"),
        (lambda: d.Categorical(), r"\[Categorical\] either probs or logits"),
        (lambda: d.Categorical(t([-1.0, 2.0])), r"\[Categorical\] parameter probs .* Simplex"),
        (lambda: d.Categorical(t(1.0)), r"\[Categorical\] probs needs one axis"),
        (lambda: d.Uniform(1.0, 0.0), r"\[Uniform\] parameter low must be less than high"),
        (lambda: d.Gamma(0.0, 1.0), r"\[Gamma\] parameter concentration"),
        (lambda: d.Chi2(-1.0), r"\[Chi2\] parameter df"),
        (lambda: d.Dirichlet(t(1.0)), r"\[Dirichlet\] concentration needs one axis"),
        (lambda: d.Multinomial(-1, t([0.5, 0.5])), r"\[Multinomial\] total_count"),
        (lambda: d.Binomial(2.5, t(0.5)), r"\[Binomial\] parameter total_count"),
        (lambda: d.MultivariateNormal(t([0.0, 0.0])), "exactly one of covariance_matrix"),
        (lambda: d.MultivariateNormal(t([0.0, 0.0]), -minidl.eye(2, dtype=minidl.float64)),
         "parameter covariance_matrix .* PositiveDefinite"),
        (lambda: d.Independent(d.Normal(0.0, 1.0), 1), r"\[Independent\] .* must be 0 to 0"),
        (lambda: d.Normal(0.0, 1.0).log_prob(t(math.nan)), r"\[Normal\] value must lie in .* Real"),
        (lambda: d.Exponential(1.0).log_prob(t(-1.0)), "must lie in the support GreaterThanEq"),
        (lambda: d.Poisson(1.0).log_prob(t(0.5)), "must lie in the support NonnegativeInteger"),
        (lambda: d.Categorical(t([0.5, 0.5])).log_prob(t(2)), "must lie in the support Integer"),
        (lambda: d.Normal(t([0.0, 1.0]), 1.0).log_prob(t([1.0, 2.0, 3.0])),
         r"broadcast with the batch \(2,\)"),
        (lambda: d.Dirichlet(t([1.0, 1.0])).log_prob(t([0.2, 0.3, 0.5])), r"event's axes \(2,\)"),
        (lambda: d.MixtureSameFamily(d.Categorical(t([0.5, 0.5])), d.Normal(t([0.0]), t(1.0))),
         "last batch axis of the components must have size 2"),
        (lambda: d.PowerTransform(2.0, cache_size=3), "cache_size must be 0 or 1"),
        (lambda: d.ReshapeTransform((2,), (3,)), "same number of elements"),
        (lambda: d.Distribution.set_default_validate_args("no"), "must be a bool"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: d.Normal(0.0, 1.0).log_prob(1.0), r"\[Normal\] value must be a Tensor"),
        (lambda: d.Normal("0", 1.0), "parameters must be Tensors or numbers"),
        (lambda: d.TransformedDistribution(d.Normal(0.0, 1.0), [math.exp]), "must be a Transform"),
        (lambda: d.register_kl(int, d.Normal), "must be classes of distributions"),
    ],
)
def test_wrong_types_are_refused(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_validation_can_be_switched_off():
    assert d.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    assert d.Exponential(1.0, validate_args=False).log_prob(t(-1.0)).item() == 1
    d.Distribution.set_default_validate_args(False)
    try:
        assert d.Normal(0.0, -1.0).scale.item() == -1
    finally:
        d.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="scale"):
        d.Normal(0.0, -1.0)


def test_what_a_distribution_lacks_is_said():
    for function in (d.Beta(1.0, 1.0).cdf, d.StudentT(2.0).icdf, d.Gamma(1.0, 1.0).icdf):
        with pytest.raises(NotImplementedError, match="has no"):
            function(t(0.5))
    with pytest.raises(NotImplementedError, match="has no enumerate_support"):
        d.Normal(0.0, 1.0).enumerate_support()
    with pytest.raises(NotImplementedError, match="no transform is registered"):
        d.biject_to(d.constraints.boolean)
    with pytest.raises(NotImplementedError, match="has no log_abs_det_jacobian"):
        x = t([0.1, 0.2])
        d.SoftmaxTransform().log_abs_det_jacobian(x, x)


# ---------------------------------------------------------------- the rest


def test_a_distribution_of_ones_own():
    class Shifted(d.Normal):
        """A subclass takes part in divergences as its nearest base does."""

    p, q = Shifted(t(0.0), t(1.0)), d.Normal(t(1.0), t(2.0))
    assert d.kl_divergence(p, q).item() == d.kl_divergence(d.Normal(0.0, 1.0), q).item()

    @d.register_kl(Shifted, d.Normal)
    def _(p, q):
        return p.loc * 0 + 42

    assert d.kl_divergence(p, q).item() == 42
    assert d.kl_divergence(q, p).item() != 42
    assert type(p.expand((3,))) is Shifted

    class Triangle(d.Distribution):
        """Written as for PyTorch: log_prob itself is defined."""

        arg_constraints = {}
        support = d.constraints.unit_interval

        def log_prob(self, value):
            return (2 * value).log()

    assert d.Independent(Triangle(), 0).base_dist.log_prob(t(0.5)).item() == 0


@pytest.mark.parametrize("name", [*CONTINUOUS, *MOMENTS])
def test_copies_draw_the_same(name):
    distribution = CONTINUOUS.get(name) or MOMENTS[name]
    expected = drawn(distribution, 5)
    for other in (copy.deepcopy(distribution), pickle.loads(pickle.dumps(distribution))):
        assert np.array_equal(drawn(other, 5), expected)


def test_logits_and_probs_are_computed_when_they_are_read():
    given = d.Bernoulli(logits=t(0.3))
    assert "probs" not in vars(given)
    assert given.probs.item() == pytest.approx(1 / (1 + math.exp(-0.3)))
    assert "probs" in vars(given)
    assert given.expand((2,)).probs.shape == (2,)
    logits = t([0.1, 0.2], requires_grad=True)
    given = d.Categorical(logits=logits)
    with minidl.no_grad():
        probs = given.probs
    assert probs.requires_grad  # read without recording, wanted with it later


def test_transforms_keep_the_last_pair():
    plain, kept = d.TanhTransform(), d.TanhTransform(cache_size=1)
    x = t([30.0])
    assert math.isinf(plain.inv(plain(x)).item())
    assert kept.inv(kept(x)) is x
    assert kept.with_cache(0) == kept and kept.with_cache() is kept
    whole = d.ComposeTransform([kept, d.ExpTransform()], cache_size=1)
    assert whole.inv(whole(x)) is x
    assert d.identity_transform(x) is x


def test_float32_and_half_parameters():
    for dtype in (minidl.float32, minidl.bfloat16, minidl.float16):
        half = minidl.tensor([0.5, 0.75], dtype=dtype)
        for make in (d.Normal, d.Gamma, d.Beta, d.Laplace):
            x = make(half, half).sample((3,))
            assert x.dtype is dtype and make(half, half).log_prob(x).dtype is dtype
    assert d.Normal(0, 1).loc.dtype is minidl.float32
    assert d.Categorical(minidl.tensor([0.5, 0.5])).sample((2,)).dtype is minidl.int64


def test_empty_batches():
    for make in (d.Normal, d.Gamma, d.Beta):
        empty = make(t([]), t([]))
        assert empty.sample((2,)).shape == (2, 0) and empty.log_prob(t([])).shape == (0,)
    assert d.Categorical(t([0.5, 0.5])).sample((0,)).shape == (0,)


def test_draws_stay_inside():
    minidl.manual_seed(0)
    for b in (0.05, 0.3):
        beta = d.Beta(minidl.tensor(b), minidl.tensor(b))
        x = beta.rsample((20_000,))
        assert x.min().item() > 0 and x.max().item() < 1
        assert np.isfinite(beta.log_prob(x).numpy()).all()
    for kind in (d.Poisson, d.Geometric):
        with pytest.raises(ValueError, match="support"):
            kind(minidl.tensor(0.5)).log_prob(minidl.tensor(float("inf")))

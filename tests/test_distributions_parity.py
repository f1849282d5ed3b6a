"""Distributions against torch.distributions: values, gradients, divergences, transforms, words."""

import inspect
import itertools
import math

import numpy as np
import pytest

import minidl
from minidl import distributions as ours
from minidl.testing import gradcheck

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
theirs = torch.distributions

# torch warns of defaults that it will change
pytestmark = pytest.mark.filterwarnings("ignore")

POSITIVE = np.array([0.3, 1.0, 2.5])
FALLING = POSITIVE[::-1].copy()
REAL = np.array([-1.2, 0.0, 0.7])
PROBS = np.array([0.1, 0.5, 0.85])
ROWS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
LOGITS = np.array([[0.5, -1.0, 2.0], [0.0, 0.3, -0.2]])
SPD = np.array([[2.0, 0.5], [0.5, 1.0]])
SPDS = np.stack([SPD, SPD * 2 + np.eye(2)])
UNIT = np.linspace(0.05, 0.95, 6)[:, None]
LINE = np.linspace(-3, 3, 6)[:, None]
ABOVE = np.linspace(0.1, 5, 6)[:, None]
COUNTS = np.arange(6.0)[:, None]
SIMPLEX = np.array([[[0.2, 0.3, 0.5]], [[0.9, 0.05, 0.05]], [[1 / 3, 1 / 3, 1 / 3]]])

# name -> (class, parameters, values that broadcast with the batch)
GRID = {
    "Normal": ("Normal", {"loc": REAL, "scale": POSITIVE}, LINE),
    "Normal of numbers": ("Normal", {"loc": 0.5, "scale": 2.0}, LINE),
    "LogNormal": ("LogNormal", {"loc": REAL, "scale": POSITIVE}, ABOVE),
    "Laplace": ("Laplace", {"loc": REAL, "scale": POSITIVE}, LINE),
    "Cauchy": ("Cauchy", {"loc": REAL, "scale": POSITIVE}, LINE),
    "Gumbel": ("Gumbel", {"loc": REAL, "scale": POSITIVE}, LINE),
    "HalfNormal": ("HalfNormal", {"scale": POSITIVE}, ABOVE),
    "HalfCauchy": ("HalfCauchy", {"scale": POSITIVE}, ABOVE),
    "Weibull": ("Weibull", {"scale": POSITIVE, "concentration": FALLING}, ABOVE),
    "Pareto": ("Pareto", {"scale": POSITIVE, "alpha": FALLING}, POSITIVE + ABOVE),
    "InverseGamma": ("InverseGamma", {"concentration": POSITIVE + 2, "rate": FALLING}, ABOVE),
    "Kumaraswamy": ("Kumaraswamy", {"concentration1": POSITIVE, "concentration0": FALLING}, UNIT),
    "LogisticNormal": ("LogisticNormal", {"loc": LOGITS[:, :2], "scale": np.array([0.5, 2.0])},
                       SIMPLEX),
    "FisherSnedecor": ("FisherSnedecor", {"df1": POSITIVE * 3, "df2": FALLING * 2 + 4}, ABOVE),
    "NegativeBinomial": ("NegativeBinomial", {"total_count": FALLING, "probs": PROBS}, COUNTS),
    "NegativeBinomial logits": ("NegativeBinomial", {"total_count": 3.0, "logits": REAL}, COUNTS),
    "StudentT": ("StudentT", {"df": POSITIVE, "loc": REAL, "scale": FALLING}, LINE),
    "Uniform": ("Uniform", {"low": REAL, "high": REAL + POSITIVE}, REAL + UNIT * POSITIVE),
    "Exponential": ("Exponential", {"rate": POSITIVE}, ABOVE),
    "Gamma": ("Gamma", {"concentration": POSITIVE, "rate": FALLING}, ABOVE),
    "Chi2": ("Chi2", {"df": POSITIVE}, ABOVE),
    "Beta": ("Beta", {"concentration1": POSITIVE, "concentration0": FALLING}, UNIT),
    "Dirichlet": ("Dirichlet", {"concentration": np.stack([POSITIVE, POSITIVE + 1])}, SIMPLEX),
    "Bernoulli probs": ("Bernoulli", {"probs": PROBS}, np.array([[0.0], [1.0]])),
    "Bernoulli logits": ("Bernoulli", {"logits": REAL}, np.array([[0.0], [1.0]])),
    "Geometric": ("Geometric", {"probs": PROBS}, COUNTS),
    "Geometric logits": ("Geometric", {"logits": REAL}, COUNTS),
    "Binomial": ("Binomial", {"total_count": 5, "probs": PROBS}, COUNTS),
    "Binomial logits": ("Binomial", {"total_count": 7, "logits": REAL}, COUNTS),
    "Poisson": ("Poisson", {"rate": POSITIVE}, COUNTS),
    "Categorical": ("Categorical", {"probs": ROWS * 3}, np.array([[0], [1], [2]])),
    "Categorical logits": ("Categorical", {"logits": LOGITS}, np.array([[0], [1], [2]])),
    "OneHotCategorical": ("OneHotCategorical", {"probs": ROWS}, np.eye(3)[:, None]),
    "Multinomial": ("Multinomial", {"total_count": 4, "probs": ROWS},
                    np.array([[[4.0, 0, 0]], [[1, 2, 1]]])),
    "Multinomial logits": ("Multinomial", {"total_count": 3, "logits": LOGITS},
                           np.array([[[3.0, 0, 0]], [[1, 1, 1]]])),
    "MultivariateNormal": ("MultivariateNormal",
                           {"loc": np.array([0.5, -1.0]), "covariance_matrix": SPD},
                           np.array([[0.0, 0.0], [1.0, -2.0], [0.3, 0.2]])),
    "MultivariateNormal precision": ("MultivariateNormal",
                                     {"loc": np.array([0.5, -1.0]), "precision_matrix": SPDS},
                                     np.array([[[0.0, 0.0]], [[1.0, -2.0]]])),
    "MultivariateNormal factor": ("MultivariateNormal",
                                  {"loc": np.zeros((2, 2)),
                                   "scale_tril": np.linalg.cholesky(SPDS)},
                                  np.array([[[0.0, 0.0]], [[1.0, -2.0]]])),
}  # fmt: skip


def made(module, name, parameters):
    """The distribution with parameters that require gradients, and these."""
    tensors, kwargs = [], {}
    for key, value in parameters.items():
        if isinstance(value, np.ndarray):
            value = torch.tensor(value) if module is theirs else minidl.tensor(value)
            tensors.append(value.requires_grad_())
        kwargs[key] = value
    return getattr(module, name)(**kwargs), tensors


def pair(name):
    kind, parameters, values = GRID[name]
    return made(ours, kind, parameters), made(theirs, kind, parameters), values


def close(mine, other, rtol=1e-9, atol=1e-12):
    assert mine.shape == tuple(other.shape)
    np.testing.assert_allclose(
        mine.detach().numpy(), other.detach().numpy(), rtol, atol, equal_nan=True
    )


def compare(mine, other, leaves, their_leaves, rtol=1e-9):
    """Equal results, and equal gradients of their weighted sum."""
    close(mine, other, rtol)
    assert mine.requires_grad == other.requires_grad
    if not mine.requires_grad or not mine.dtype.is_floating_point:
        return
    weights = np.random.default_rng(0).standard_normal(mine.shape)
    found = minidl.autograd.grad(
        mine, leaves, minidl.tensor(weights), allow_unused=True, retain_graph=True
    )
    want = torch.autograd.grad(
        other, their_leaves, torch.tensor(weights), allow_unused=True, retain_graph=True
    )
    for g, t in zip(found, want, strict=True):
        if g is None or t is None:
            rest = g if t is None else t
            assert rest is None or not np.nan_to_num(rest.numpy()).any()
            continue
        close(g, t, 1e-7, 1e-9)


@pytest.mark.parametrize("name", GRID)
def test_log_prob_cdf_icdf(name):
    (mine, leaves), (other, their_leaves), values = pair(name)
    x, t = minidl.tensor(values), torch.tensor(values)
    if x.is_floating_point():
        x.requires_grad_()
        t.requires_grad_()
        leaves, their_leaves = [*leaves, x], [*their_leaves, t]
    compare(mine.log_prob(x), other.log_prob(t), leaves, their_leaves)
    for function, at in (("cdf", values), ("icdf", UNIT)):
        at_ours, at_theirs = minidl.tensor(at), torch.tensor(at)
        try:
            want = getattr(other, function)(at_theirs)
        except NotImplementedError:
            with pytest.raises(NotImplementedError):
                getattr(mine, function)(at_ours)
            continue
        found = getattr(mine, function)(at_ours)
        if name in ("Gamma", "Chi2", "InverseGamma"):  # torch has no gradient by the concentration
            close(found, want)
        else:
            compare(found, want, leaves, their_leaves)


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("what", ["mean", "mode", "variance", "stddev", "entropy", "perplexity"])
def test_moments(name, what):
    (mine, leaves), (other, their_leaves), _ = pair(name)

    def value(distribution):
        found = getattr(distribution, what)
        return found() if callable(found) else found

    try:
        want = value(other)
    except NotImplementedError:
        return  # ours may know more
    if (name, what) == ("Weibull", "mode"):
        assert value(mine)[2].item() == 0  # torch has NaN below a concentration of 1
        return close(value(mine)[:2], want[:2])
    if (name, what) == ("Kumaraswamy", "mode"):  # torch takes the logarithm of a negative number
        return close(value(mine)[1:2], torch.tensor([math.nan]))
    # torch has the logarithm of Multinomial's factorial in float32
    rtol = 1e-6 if name.startswith("Multinomial") else 1e-9
    compare(value(mine), want, leaves, their_leaves, rtol)


@pytest.mark.parametrize("name", GRID)
def test_shapes_expansion_and_words(name):
    (mine, _), (other, _), values = pair(name)
    assert mine.batch_shape == tuple(other.batch_shape)
    assert mine.event_shape == tuple(other.event_shape)
    assert mine.has_rsample == other.has_rsample
    assert mine.has_enumerate_support == other.has_enumerate_support
    assert mine.support.event_dim == other.support.event_dim
    assert mine.support.is_discrete == other.support.is_discrete
    wanted = repr(other).replace("torch.Size([", "(").replace("])", ",)")
    for tail in (",)", ", 3,)", ", 2,)"):
        wanted = wanted.replace(tail, tail if tail == ",)" else tail[:-2] + ")")
    # torch does not look through properties, and then shows nothing
    assert repr(mine) == wanted if "()" not in wanted else repr(mine).startswith(wanted[:-1])
    assert "(3,)" in repr(mine) or "2" in repr(mine) or "0.5" in repr(mine)
    shape = (2, *mine.batch_shape)
    x, t = minidl.tensor(values), torch.tensor(values)
    large, large_theirs = mine.expand(shape), other.expand(shape)
    assert type(large) is type(mine) and large.batch_shape == shape
    x, t = x.unsqueeze(1), t.unsqueeze(1)
    close(large.log_prob(x), large_theirs.log_prob(t))
    assert large.sample((3,)).shape == (3, *shape, *mine.event_shape)
    if mine.has_enumerate_support:
        for expand in (False, True):
            close(mine.enumerate_support(expand), other.enumerate_support(expand))


def test_generalized_pareto():
    """In float32: torch cannot compare its parameters with a zero in float64."""
    parameters = {
        "loc": REAL,
        "scale": POSITIVE,
        "concentration": np.array([0.4, 0.0, -0.3]),
    }
    narrow = {key: value.astype(np.float32) for key, value in parameters.items()}
    (mine, _), (other, _) = (made(d, "GeneralizedPareto", narrow) for d in (ours, theirs))
    p = np.linspace(0.02, 0.98, 7, dtype=np.float32)[:, None]
    x, t = mine.icdf(minidl.tensor(p)), other.icdf(torch.tensor(p))
    close(x, t, 1e-5, 1e-6)
    for what in ("log_prob", "cdf"):
        close(getattr(mine, what)(x), getattr(other, what)(t), 1e-4, 1e-5)
    for what in ("mean", "variance", "mode", "stddev"):
        close(getattr(mine, what), getattr(other, what), 1e-5)
    close(mine.entropy(), other.entropy(), 1e-5)
    assert bool(mine.support.check(mine.sample((1000,))).all())
    wide, leaves = made(ours, "GeneralizedPareto", parameters)
    back = wide.cdf(wide.icdf(minidl.tensor(p).double())).detach().numpy()
    np.testing.assert_allclose(back, np.broadcast_to(p, (7, 3)), rtol=1e-12)
    assert gradcheck(
        lambda loc, scale, x: ours.GeneralizedPareto(loc, scale, leaves[2]).log_prob(x),
        (leaves[0], leaves[1], wide.icdf(minidl.tensor(p).double()).detach().requires_grad_()),
    )


def test_modes_and_moments_that_are_not_everywhere():
    mode = ours.Kumaraswamy(minidl.tensor([2.0, 1.0, 0.5]), minidl.tensor([3.0, 2.0, 2.0])).mode
    np.testing.assert_allclose(mode.numpy(), [math.sqrt(0.2), 0, math.nan], rtol=1e-6)
    gamma = ours.InverseGamma(minidl.tensor([0.5, 1.5, 3.0]), 2.0)
    assert gamma.mean.tolist() == [math.inf, 4, 1] and gamma.variance.tolist()[:2] == [math.inf] * 2
    f = ours.FisherSnedecor(3.0, minidl.tensor([2.0, 3.0, 6.0]))
    assert np.isnan(f.mean.numpy()).tolist() == [True, False, False]
    assert np.isnan(f.variance.numpy()).tolist() == [True, True, False]
    ends = ours.GeneralizedPareto(1.0, 2.0, minidl.tensor([-2.0, 0.5]))
    assert ends.mode.tolist() == [2, 1]
    with pytest.raises(ValueError, match="support"):
        ends.log_prob(minidl.tensor([2.5, 2.5]))


def test_positive_definite_transform():
    x = minidl.tensor(SPDS - 0.7, requires_grad=True)
    t = torch.tensor(SPDS - 0.7, requires_grad=True)
    y, u = (d.transforms.PositiveDefiniteTransform()(v) for d, v in ((ours, x), (theirs, t)))
    compare(y, u, [x], [t])
    close(ours.PositiveDefiniteTransform().inv(y), torch.tensor(np.tril(SPDS - 0.7)))


def _divergent():
    return [
        ("Normal", {"loc": REAL, "scale": POSITIVE}),
        ("LogNormal", {"loc": REAL, "scale": POSITIVE}),
        ("Laplace", {"loc": REAL, "scale": POSITIVE}),
        ("Cauchy", {"loc": REAL, "scale": POSITIVE}),
        ("Gumbel", {"loc": REAL, "scale": POSITIVE}),
        ("HalfNormal", {"scale": POSITIVE}),
        ("HalfCauchy", {"scale": POSITIVE}),
        ("Pareto", {"scale": np.array([0.6, 1.6, 2.9]), "alpha": np.array([2.5, 3.5, 4.5])}),
        ("Exponential", {"rate": POSITIVE}),
        ("Gamma", {"concentration": POSITIVE, "rate": FALLING}),
        ("Chi2", {"df": POSITIVE}),
        ("Beta", {"concentration1": POSITIVE, "concentration0": FALLING}),
        ("Uniform", {"low": np.array([0.1, 0.0, 0.4]), "high": np.array([0.9, 1.0, 0.5])}),
        ("Bernoulli", {"probs": PROBS}),
        ("Binomial", {"total_count": 5, "probs": PROBS}),
        ("Geometric", {"probs": PROBS}),
        ("Poisson", {"rate": POSITIVE}),
        ("Categorical", {"probs": ROWS}),
        ("OneHotCategorical", {"logits": LOGITS}),
        ("Dirichlet", {"concentration": np.stack([POSITIVE, POSITIVE + 1])}),
        ("MultivariateNormal", {"loc": np.zeros(2), "covariance_matrix": SPDS}),
    ]


def _second(name, parameters):
    """Other parameters of the same class."""
    moved = {}
    for key, value in parameters.items():
        if key in ("covariance_matrix",):
            moved[key] = value * 1.5 + np.eye(2)
        elif key == "probs" and value.ndim == 2:
            moved[key] = value[:, ::-1].copy()
        elif key in ("probs", "low"):
            moved[key] = value * 0.7 if key == "probs" else value - 0.2
        elif name == "Pareto" and key == "scale":
            moved[key] = value - np.array([0.4, -0.1, 0.9])
        else:
            moved[key] = value if isinstance(value, int) else value + 0.4
    return name, moved


@pytest.mark.parametrize(("p", "q"), list(itertools.product(_divergent(), repeat=2)),
                         ids=lambda case: case[0])  # fmt: skip
def test_divergences(p, q):
    q = _second(*q)
    (mine_p, leaves_p), (mine_q, leaves_q) = made(ours, *p), made(ours, *q)
    (other_p, their_p), (other_q, their_q) = made(theirs, *p), made(theirs, *q)
    try:
        want = theirs.kl_divergence(other_p, other_q)
    except NotImplementedError:
        with pytest.raises(NotImplementedError, match="register_kl"):
            ours.kl_divergence(mine_p, mine_q)
        return
    except RuntimeError:  # shapes that do not broadcast
        return
    found = ours.kl_divergence(mine_p, mine_q)
    if bool(torch.isinf(want).all()):
        close(found, want)
        return
    compare(found, want, [*leaves_p, *leaves_q], [*their_p, *their_q])


NORMALS = {d: d.Normal(t([0.5]).double(), t([2.0]).double())
           for d, t in ((ours, minidl.tensor), (theirs, torch.tensor))}  # fmt: skip
TRANSFORMS = {
    "exp": (lambda d, t: d.ExpTransform(), LINE),
    "affine": (lambda d, t: d.AffineTransform(0.5, -2.0), LINE),
    "affine of tensors": (lambda d, t: d.AffineTransform(t(REAL), t(POSITIVE)), LINE + REAL),
    "sigmoid": (lambda d, t: d.SigmoidTransform(), LINE),
    "softplus": (lambda d, t: d.SoftplusTransform(), LINE),
    "tanh": (lambda d, t: d.TanhTransform(), LINE),
    "power": (lambda d, t: d.PowerTransform(t(np.array(1.5))), ABOVE),
    "compose": (lambda d, t: d.ComposeTransform(
        [d.AffineTransform(0.1, 0.5), d.SigmoidTransform()]), LINE),
    "independent": (lambda d, t: d.IndependentTransform(d.ExpTransform(), 1), LINE),
    "reshape": (lambda d, t: d.ReshapeTransform((6, 1), (2, 3)), LINE),
    "stick breaking": (lambda d, t: d.StickBreakingTransform(), LOGITS),
    "stick breaking far out": (lambda d, t: d.StickBreakingTransform(), np.array([30.0, 0.1])),
    "inverse": (lambda d, t: d.ExpTransform().inv, ABOVE),
    "distribution function": (lambda d, t: d.CumulativeDistributionTransform(
        NORMALS[d]), LINE),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name):
    make, values = TRANSFORMS[name]
    mine, other = make(ours, minidl.tensor), make(theirs, torch.tensor)
    x, t = minidl.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, u = mine(x), other(t)
    compare(y, u, [x], [t])
    compare(mine.inv(y), other.inv(u), [x], [t])
    compare(mine.log_abs_det_jacobian(x, y), other.log_abs_det_jacobian(t, u), [x], [t])
    assert mine.domain.event_dim == other.domain.event_dim
    assert mine.codomain.event_dim == other.codomain.event_dim
    assert mine.bijective == other.bijective
    assert mine.forward_shape(x.shape) == tuple(other.forward_shape(t.shape))
    assert mine.inverse_shape(y.shape) == tuple(other.inverse_shape(u.shape))
    assert mine == make(ours, minidl.tensor) and mine.inv.inv == mine


CONSTRAINTS = {
    "real": (lambda c: c.real, LINE),
    "real_vector": (lambda c: c.real_vector, LOGITS),
    "positive": (lambda c: c.positive, LINE),
    "nonnegative": (lambda c: c.nonnegative, LINE),
    "greater_than": (lambda c: c.greater_than(2.0), LINE),
    "less_than": (lambda c: c.less_than(2.0), LINE),
    "unit_interval": (lambda c: c.unit_interval, LINE),
    "interval": (lambda c: c.interval(-1.0, 3.0), LINE),
    "half_open_interval": (lambda c: c.half_open_interval(0.0, 3.0), LINE),
    "independent": (lambda c: c.independent(c.positive, 1), LOGITS),
    "simplex": (lambda c: c.simplex, LOGITS),
    "lower_cholesky": (lambda c: c.lower_cholesky, SPDS),
    "positive_definite": (lambda c: c.positive_definite, SPDS - 0.7),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
def test_transforms_to_constraints(registry, name):
    make, values = CONSTRAINTS[name]
    if registry == "biject_to" and name in ("lower_cholesky", "positive_definite"):
        for d in (ours, theirs):
            with pytest.raises(NotImplementedError):
                d.biject_to(make(d.constraints))
        return
    mine = getattr(ours, registry)(make(ours.constraints))
    other = getattr(theirs, registry)(make(theirs.constraints))
    x, t = minidl.tensor(values), torch.tensor(values)
    y, u = mine(x), other(t)
    close(y, u)
    assert bool(make(ours.constraints).check(y).all())
    close(mine.inv(y), other.inv(u))
    if registry == "biject_to":
        assert mine.bijective
        close(mine.log_abs_det_jacobian(x, y), other.log_abs_det_jacobian(t, u))


TRANSFORMED = {
    "logistic": lambda d, t: d.TransformedDistribution(
        d.Uniform(t(0.0), t(1.0)), [d.SigmoidTransform().inv, d.AffineTransform(0.5, 2.0)]),
    "batch of the transform": lambda d, t: d.TransformedDistribution(
        d.Normal(t(0.0), t(1.0)), d.AffineTransform(t([0.0, 1.0, 2.0]), -2.0)),
    "independent": lambda d, t: d.Independent(d.Normal(t([0.0, 1.0, 2.0]), t(1.0)), 1),
    "independent of two": lambda d, t: d.Independent(
        d.Laplace(t([[0.0, 1.0, 2.0]]), t([[1.0], [2.0]])), 2),
    "transformed independent": lambda d, t: d.TransformedDistribution(
        d.Independent(d.Normal(t([0.0, 1.0, 2.0]), t(1.0)), 1), [d.TanhTransform()]),
    "mixture": lambda d, t: d.MixtureSameFamily(
        d.Categorical(t([0.2, 0.3, 0.5])), d.Normal(t([0.0, 1.0, -2.0]), t(1.0))),
    "batch of mixtures": lambda d, t: d.MixtureSameFamily(
        d.Categorical(logits=t([[0.2, 0.5], [1.0, 0.0]])),
        d.Independent(d.Normal(t([[[0.0, 1.0]], [[1.0, 2.0]]]).expand(2, 2, 2), t(1.0)), 1)),
    "relaxed bernoulli": lambda d, t: d.RelaxedBernoulli(t(0.7), t([0.2, 0.8])),
    "relaxed categories": lambda d, t: d.RelaxedOneHotCategorical(
        t(0.7), logits=t([[0.2, 0.8, 0.1], [1.0, 0.0, 0.5]])),
    "onto the simplex": lambda d, t: d.TransformedDistribution(
        d.Normal(t([0.0, 1.0, 2.0]), t(1.0)), d.StickBreakingTransform()),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed_and_independent(name):
    mine = TRANSFORMED[name](ours, lambda x: minidl.tensor(x, dtype=minidl.float64))
    other = TRANSFORMED[name](theirs, lambda x: torch.tensor(x, dtype=torch.float64))
    assert mine.batch_shape == tuple(other.batch_shape)
    assert mine.event_shape == tuple(other.event_shape)
    minidl.manual_seed(0)
    x = mine.sample((5,))
    t = torch.tensor(x.numpy())
    close(mine.log_prob(x), other.log_prob(t))
    large = mine.expand((2, *mine.batch_shape))
    close(large.log_prob(x[:, None]), other.expand((2, *other.batch_shape)).log_prob(t[:, None]))
    try:
        mean, variance = other.mean, other.variance
    except NotImplementedError:
        pass
    else:
        close(mine.mean, mean)
        close(mine.variance, variance)
    if name == "mixture":
        close(mine.cdf(x), other.cdf(t))
    elif not mine.event_shape and "relaxed" not in name:
        close(mine.cdf(x), other.cdf(t))
        close(mine.icdf(mine.cdf(x)), t)


def test_dirichlet_draws_have_the_mean_gradient_of_torch():
    """Both estimators are unbiased: E[x^2] by the concentrations, over many draws."""
    a = np.array([0.7, 1.5, 3.0])
    minidl.manual_seed(3)
    mine = minidl.tensor(a, requires_grad=True)
    (ours.Dirichlet(mine).rsample((40000,)) ** 2).mean(0).sum().backward()
    total = a.sum()
    # E[x_i^2] = a_i (a_i + 1) / (total (total + 1))
    slope = (2 * a + 1) / (total * (total + 1))
    slope = slope - (a * (a + 1)).sum() * (2 * total + 1) / (total * (total + 1)) ** 2
    np.testing.assert_allclose(mine.grad.numpy(), slope, atol=4e-3)


@pytest.mark.parametrize("concentration", [0.05, 0.4, 1.0, 3.0, 40.0])
def test_gamma_gradient_is_that_of_torch(concentration):
    x = torch.distributions.Gamma(torch.full((500,), concentration, dtype=torch.float64), 1.0)
    torch.manual_seed(0)
    drawn = x.sample().clamp(1e-30)
    want = torch._standard_gamma_grad(x.concentration, drawn)
    log = minidl.tensor(drawn.numpy()).log()
    slope = minidl.ops.special.log_gamma_slope(minidl.full_like(log, concentration), log)
    # torch's rational approximation is right to 5e-4
    np.testing.assert_allclose((slope * log.exp()).numpy(), want.numpy(), rtol=2e-3)


@pytest.mark.parametrize("n", range(5))
def test_polygamma(n):
    x = np.linspace(0.2, 9, 40)
    want = torch.polygamma(n, torch.tensor(x)).numpy()
    np.testing.assert_allclose(minidl.polygamma(n, minidl.tensor(x)).numpy(), want, rtol=1e-8)


NAMES = {n for n in ours.__all__ if hasattr(theirs, n) or hasattr(theirs.transforms, n)}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_arguments_are_those_of_pytorch(name):
    mine, other = getattr(ours, name), getattr(theirs, name, None)
    if not inspect.isclass(mine):
        assert callable(mine)
        return
    found, want = (
        [(p.name, p.default) for p in inspect.signature(c.__init__).parameters.values()]
        for c in (mine, other)
    )
    assert found == want


def test_names_are_all_known_to_torch():
    assert set(ours.__all__) == NAMES and len(NAMES) > 40


def test_every_number_is_finite_where_torch_is():
    """Extreme parameters: no NaN where torch has none."""
    for make in (
        lambda d, t: d.Bernoulli(logits=t([-800.0, 800.0])).log_prob(t([0.0, 1.0])),
        lambda d, t: d.Bernoulli(probs=t([0.0, 1.0])).log_prob(t([0.0, 1.0])),
        lambda d, t: d.Bernoulli(probs=t([0.0, 1.0])).entropy(),
        lambda d, t: d.Normal(t(0.0), t(1e30)).entropy(),
        lambda d, t: d.Categorical(probs=t([0.0, 1.0])).entropy(),
        lambda d, t: d.Categorical(logits=t([-math.inf, 0.0])).entropy(),
        lambda d, t: d.Poisson(t(0.0)).log_prob(t(0.0)),
        lambda d, t: d.Gamma(t(1.0), t(2.0)).log_prob(t(0.0)),
        lambda d, t: d.Beta(t(1.0), t(1.0)).log_prob(t([0.0, 1.0])),
        lambda d, t: d.Multinomial(2, t([0.0, 1.0])).log_prob(t([0.0, 2.0])),
        lambda d, t: d.Uniform(t(0.0), t(1.0)).log_prob(t([0.0, 1.0])),
        lambda d, t: d.kl_divergence(d.Bernoulli(t(0.0)), d.Bernoulli(t(0.5))),
        lambda d, t: d.kl_divergence(d.Bernoulli(t(0.5)), d.Bernoulli(t(0.0))),
        lambda d, t: d.kl_divergence(d.Categorical(t([0.0, 1.0])), d.Categorical(t([0.5, 0.5]))),
        lambda d, t: d.kl_divergence(d.Categorical(t([0.5, 0.5])), d.Categorical(t([0.0, 1.0]))),
    ):
        close(make(ours, minidl.tensor), make(theirs, torch.tensor), 1e-5, 1e-6)

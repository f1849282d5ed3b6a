"""Probability distributions under PyTorch's names: draws with gradients, densities, divergences."""

from minidl.distributions import (
    constraints as constraints,
    transforms as transforms,
    utils as utils,
)
from minidl.distributions.bernoulli import Bernoulli
from minidl.distributions.beta import Beta
from minidl.distributions.binomial import Binomial
from minidl.distributions.categorical import Categorical
from minidl.distributions.cauchy import Cauchy
from minidl.distributions.chi2 import Chi2
from minidl.distributions.constraint_registry import biject_to, transform_to
from minidl.distributions.dirichlet import Dirichlet
from minidl.distributions.distribution import Distribution
from minidl.distributions.exponential import Exponential
from minidl.distributions.fisher_snedecor import FisherSnedecor
from minidl.distributions.gamma import Gamma
from minidl.distributions.generalized_pareto import GeneralizedPareto
from minidl.distributions.geometric import Geometric
from minidl.distributions.gumbel import Gumbel
from minidl.distributions.half_cauchy import HalfCauchy
from minidl.distributions.half_normal import HalfNormal
from minidl.distributions.independent import Independent
from minidl.distributions.inverse_gamma import InverseGamma
from minidl.distributions.kl import kl_divergence, register_kl
from minidl.distributions.kumaraswamy import Kumaraswamy
from minidl.distributions.laplace import Laplace
from minidl.distributions.log_normal import LogNormal
from minidl.distributions.logistic_normal import LogisticNormal
from minidl.distributions.mixture_same_family import MixtureSameFamily
from minidl.distributions.multinomial import Multinomial
from minidl.distributions.multivariate_normal import MultivariateNormal
from minidl.distributions.negative_binomial import NegativeBinomial
from minidl.distributions.normal import Normal
from minidl.distributions.one_hot_categorical import (
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from minidl.distributions.pareto import Pareto
from minidl.distributions.poisson import Poisson
from minidl.distributions.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from minidl.distributions.studentT import StudentT
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from minidl.distributions.uniform import Uniform
from minidl.distributions.weibull import Weibull

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "CumulativeDistributionTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentTransform",
    "InverseGamma",
    "Kumaraswamy",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowerCholeskyTransform",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "Weibull",
    "biject_to",
    "identity_transform",
    "kl_divergence",
    "register_kl",
    "transform_to",
]

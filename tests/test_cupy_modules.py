"""Modules, distributions, optimisers and transforms on the stand-in for CuPy: as on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import minidl
import minidl.nn.utils.prune
from minidl import distributions as D, func, nn, optim  # noqa: N812
from minidl.nn import functional as F  # noqa: N812
from minidl.nn.utils import prune
from minidl.testing import standin


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with standin.installed():
        yield


def floats(*shape: int, low: float = -1, high: float = 1) -> np.ndarray:
    return np.random.default_rng(7).uniform(low, high, shape).astype(np.float32)


def whole(*shape: int, below: int = 4) -> np.ndarray:
    return np.random.default_rng(8).integers(0, below, shape)


def placed(given: Any, device: str) -> Any:
    """Arrays as tensors on a device, those of floats with a gradient."""
    if not isinstance(given, np.ndarray):
        return given
    x = minidl.tensor(given, device=device)
    return x.requires_grad_() if x.is_floating_point() else x


def flat(found: Any) -> list[minidl.Tensor]:
    if isinstance(found, tuple | list):
        return [x for part in found for x in flat(part)]
    return [] if found is None else [found]


def on_both(run: Callable[[str], Any], within: float = 2e-5) -> None:
    """`run(device)` gives tensors there, with the same values on both."""
    minidl.manual_seed(3)
    wants = flat(run("cpu"))
    minidl.manual_seed(3)
    results = flat(run("cuda"))
    assert len(results) == len(wants) > 0
    for result, want in zip(results, wants, strict=True):
        assert result.device.type == "cuda"
        np.testing.assert_allclose(
            result.detach().cpu().numpy(), want.detach().numpy(), within, within
        )


X, IMAGE, TOKENS = floats(4, 6), floats(2, 6, 3, 3), whole(3, 5)
SEQUENCE, LOGITS, CLASSES = floats(3, 5, 8), floats(4, 3), whole(4, below=3)
SIGNS = np.array([1, -1, 1, -1], np.float32)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    name: (make, inputs)
    for inputs, names in [
        ((X,), "Identity Hardshrink PReLU RReLU Softshrink CELU GLU Hardsigmoid Hardswish Hardtanh"
               " LogSigmoid Mish ReLU6 SELU Softsign Tanhshrink ELU GELU LeakyReLU ReLU SiLU"
               " Sigmoid Softplus Tanh Dropout AlphaDropout Flatten"),
        ((IMAGE,), "Softmax2d Dropout2d FeatureAlphaDropout"),
        ((X, floats(4, 6, low=0)), "MSELoss L1Loss SmoothL1Loss HuberLoss KLDivLoss"
                                   " BCEWithLogitsLoss PoissonNLLLoss MultiLabelSoftMarginLoss"
                                   " PairwiseDistance CosineSimilarity"),
        ((LOGITS, CLASSES), "CrossEntropyLoss NLLLoss MultiMarginLoss"),
        ((X[:, 0], SIGNS), "SoftMarginLoss HingeEmbeddingLoss"),
        ((X, X + 1, X - 1), "TripletMarginLoss TripletMarginWithDistanceLoss"),
        ((X[:, 0], X[:, 1], SIGNS), "MarginRankingLoss"),
    ]
    for name in names.split()
    for make in [getattr(nn, name)]
}  # fmt: skip
MODULES |= {
    "Linear": (lambda: nn.Linear(6, 3), (X,)),
    "LazyLinear": (lambda: nn.LazyLinear(3), (X,)),
    "Bilinear": (lambda: nn.Bilinear(6, 6, 2), (X, X + 1)),
    "Softmax": (lambda: nn.Softmax(-1), (X,)),
    "Softmin": (lambda: nn.Softmin(-1), (X,)),
    "LogSoftmax": (lambda: nn.LogSoftmax(-1), (X,)),
    "Threshold": (lambda: nn.Threshold(0.1, 2.0), (X,)),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 3)), (X,)),
    "Dropout1d": (nn.Dropout1d, (SEQUENCE,)),
    "Dropout3d": (nn.Dropout3d, (IMAGE[:, :, None],)),
    "LayerNorm": (lambda: nn.LayerNorm(6), (X,)),
    "RMSNorm": (lambda: nn.RMSNorm(6), (X,)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 6), (IMAGE,)),
    "Embedding": (lambda: nn.Embedding(4, 3, padding_idx=1), (TOKENS,)),
    "Embedding by frequency": (lambda: nn.Embedding(4, 3, scale_grad_by_freq=True), (TOKENS,)),
    "Embedding with a norm": (lambda: nn.Embedding(4, 3, max_norm=0.5), (TOKENS,)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(4, 3), (TOKENS,)),
    "EmbeddingBag sum": (lambda: nn.EmbeddingBag(4, 3, mode="sum", padding_idx=0), (TOKENS,)),
    "EmbeddingBag max": (
        lambda: nn.EmbeddingBag(4, 3, mode="max"), (TOKENS.reshape(-1), np.array([0, 4, 4]))
    ),
    "BCELoss": (nn.BCELoss, (floats(4, 6, low=0.1, high=0.9), floats(4, 6, low=0.1, high=0.9))),
    "CrossEntropyLoss smooth": (
        lambda: nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=1), (LOGITS, CLASSES)
    ),
    "CrossEntropyLoss weighted": (
        lambda: nn.CrossEntropyLoss(weight=minidl.tensor([1.0, 2.0, 0.5])), (LOGITS, CLASSES)
    ),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, (X, X + 1, floats(4, 6, low=0.5))),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, (X, X + 1, SIGNS)),
    "MultiLabelMarginLoss": (
        nn.MultiLabelMarginLoss, (LOGITS, np.array([[0, 2, -1], [1, -1, 0], [-1, 0, 0], [2, 1, 0]]))
    ),
    "CTCLoss": (
        nn.CTCLoss,
        (floats(6, 2, 4, high=0), 1 + whole(2, 2, below=3), np.array([6, 5]), np.array([2, 1])),
    ),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (SEQUENCE,) * 3),
    "MultiheadAttention with biases": (
        lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True), (SEQUENCE,) * 3
    ),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True), (SEQUENCE,)
    ),
    "Transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (SEQUENCE, SEQUENCE[:, :2])
    ),
    "Orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)), (X,)),
    "Householder": (
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map="householder"),
        (X,),
    ),
    "Cayley": (
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map="cayley"), (X,)
    ),
    "WeightNorm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), (X,)),
    "SpectralNorm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)), (X,)),
    "Pruned": (lambda: prune.l1_unstructured(nn.Linear(6, 3), "weight", 0.5), (X,)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_module(name: str):
    make, inputs = MODULES[name]

    def run(device: str) -> list[Any]:
        module = make().to(device)
        given = [placed(x, device) for x in inputs]
        found = [x for x in flat(module(*given)) if x.requires_grad] or flat(module(*given))
        leaves = [x for x in [*given, *module.parameters()] if getattr(x, "requires_grad", False)]
        if found[0].requires_grad:
            total = sum((x * x).sum() for x in found)
            total.backward()  # type: ignore[union-attr]
        return [*found, *(x.grad for x in leaves)]

    on_both(run)


P, Q = floats(3, low=0.2, high=0.8), floats(3, low=1, high=3)
DISTRIBUTIONS: dict[str, tuple[Any, ...]] = {
    "Bernoulli": (P,), "Beta": (Q, Q), "Binomial": (5, P), "Categorical": (P,),
    "Cauchy": (P, Q), "Chi2": (Q,), "Dirichlet": (Q,), "Exponential": (Q,),
    "FisherSnedecor": (Q, Q), "Gamma": (Q, Q), "GeneralizedPareto": (P, Q, P), "Geometric": (P,),
    "Gumbel": (P, Q), "HalfCauchy": (Q,), "HalfNormal": (Q,), "InverseGamma": (Q, Q),
    "Kumaraswamy": (Q, Q), "Laplace": (P, Q), "LogNormal": (P, Q), "LogisticNormal": (P, Q),
    "Multinomial": (4, P), "MultivariateNormal": (P, np.eye(3, dtype=np.float32) * 2),
    "NegativeBinomial": (Q, P), "Normal": (P, Q), "OneHotCategorical": (P,), "Pareto": (Q, Q),
    "Poisson": (Q,), "RelaxedBernoulli": (0.5, P), "RelaxedOneHotCategorical": (0.5, P),
    "StudentT": (Q + 3, P, Q), "Uniform": (P, Q), "Weibull": (Q, Q),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name: str):
    def run(device: str) -> list[Any]:
        made = getattr(D, name)(*(placed(x, device) for x in DISTRIBUTIONS[name]))
        drawn = made.sample((2,))
        found = [drawn, made.log_prob(drawn)]
        for part in ("mean", "variance", "mode", "stddev"):
            with suppress(NotImplementedError):
                found.append(getattr(made, part))
        for function in (made.entropy, lambda: made.cdf(drawn), made.enumerate_support):
            with suppress(NotImplementedError):
                found.append(function())
        found[1].sum().backward()
        return found

    on_both(run, 2e-4)


def test_divergence():
    def run(device: str) -> Any:
        normal = [D.Normal(placed(P + i, device), placed(Q, device)) for i in range(2)]
        return D.kl_divergence(*normal)

    on_both(run)


OPTIMISERS: dict[str, dict[str, Any]] = {
    "ASGD": {}, "Adadelta": {}, "Adafactor": {}, "Adagrad": {}, "Adam": {"amsgrad": True},
    "AdamW": {}, "Adamax": {}, "LBFGS": {"line_search_fn": "strong_wolfe"}, "Lion": {},
    "Muon": {}, "NAdam": {}, "RAdam": {}, "RMSprop": {"momentum": 0.9, "centered": True},
    "Rprop": {}, "SGD": {"lr": 0.1, "momentum": 0.9},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser(name: str):
    def run(device: str) -> list[Any]:
        model = nn.Linear(6, 3, bias=False).to(device)
        optimiser = getattr(optim, name)(model.parameters(), **OPTIMISERS[name])
        x = minidl.tensor(X, device=device)

        def closure() -> Any:
            optimiser.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            return loss

        for _ in range(3):
            optimiser.step(closure)
        optimiser.load_state_dict(optimiser.state_dict())
        optimiser.step(closure)
        return [model.weight]

    on_both(run, 1e-4)


def test_norms_of_gradients():
    def run(device: str) -> list[Any]:
        model = nn.Linear(6, 3).to(device)
        model(minidl.tensor(X, device=device)).square().sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        nn.utils.clip_grad_value_(model.parameters(), 0.1)
        assert nn.utils.get_total_norm([model.weight.grad]).device.type == device
        return [norm, model.weight.grad, model.bias.grad]

    on_both(run)


def test_initialisers():
    def run(device: str) -> list[Any]:
        names = ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "kaiming_normal_",
                 "orthogonal_", "eye_", "zeros_")  # fmt: skip
        return [getattr(nn.init, n)(minidl.empty(4, 3, device=device)) for n in names]

    on_both(run)


def test_transforms():
    def run(device: str) -> list[Any]:
        x = minidl.tensor(X, device=device)
        weight = minidl.tensor(floats(6, 6), device=device)

        def f(row: Any) -> Any:
            return (row @ weight).tanh().sum()

        return [
            func.vmap(f)(x),
            func.vmap(func.grad(f))(x),
            func.jacrev(lambda row: (row @ weight).sin())(x[0]),
            func.hessian(f)(x[0]),
            func.jvp(f, (x[0],), (x[1],))[1],
        ]

    on_both(run)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "getitem": (lambda x: x[:, index(7)], "axis 1 with size 6"),
    "gather": (lambda x: x.gather(0, index(5).reshape(1, 1)), "axis 0 with size 4"),
    "embedding": (lambda x: F.embedding(index(9), x), "must lie in [0, 4)"),
    "cross_entropy": (lambda x: F.cross_entropy(x, index(0, 1, 2, 6)), "ignore_index=-100"),
    "nll_loss": (lambda x: F.nll_loss(x, index(0, 1, 2, -7)), "must lie in [0, 6)"),
    "binary_cross_entropy": (lambda x: F.binary_cross_entropy(x * 9, x), "must lie in [0, 1]"),
    "multi_margin_loss": (lambda x: F.multi_margin_loss(x, index(0, 1, 2, 6)), "in [0, 6)"),
    "one_hot": (lambda x: F.one_hot(index(0, 3), 3), "num_classes=3"),
    "poisson": (lambda x: minidl.poisson(x - 9), "rates must not be negative"),
    "quantile": (lambda x: x.quantile(x[0] + 2), "q must be numbers in [0, 1]"),
    "floor_divide": (lambda x: index(3) // index(0), "integer division by zero"),
    "gaussian_nll_loss": (lambda x: F.gaussian_nll_loss(x, x, x - 9), "var must not be negative"),
}


def index(*numbers: int) -> minidl.Tensor:
    return minidl.tensor(numbers, device="cuda")


@pytest.mark.parametrize("name", REFUSED)
def test_values_are_checked(name: str):
    """Nothing need wait for the check of a value: the next read raises at the latest."""
    function, text = REFUSED[name]
    with pytest.raises(minidl.errors.MinidlError, match=re.escape(text)):
        function(minidl.tensor(X, device="cuda")).tolist()
    assert minidl.zeros(1, device="cuda").item() == 0

"""The operator table against torch: values, dtypes, shapes and first derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import minidl
import minidl.nn.functional
from minidl.autograd import backward
from minidl.dtypes import FLOAT, HALVES, DType, bfloat16, dtype_of, finfo, float16
from minidl.errors import ArgumentError, DTypeError, MinidlError
from minidl.tensor import Tensor
from minidl.testing.case import Case, Sample
from minidl.testing.cases import CASES
from minidl.testing.oracles import (
    arrays_of,
    described,
    expected,
    flat,
    in_float64,
    is_float,
    sensitivity,
    worst,
)
from minidl.testing.runner import called, leaves_of
from minidl.testing.strategies import Constant, samples

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

# torch warns of layouts and of broadcasting losses; what it warns of is compared all the same
pytestmark = pytest.mark.filterwarnings("ignore")
# torch gives the losses the dtype of their first input and then fails in the backward pass, and
# takes a 0-d weight of lerp in any dtype; minidl promotes the former and refuses the latter. The
# gradient of clamp compares in the dtype of two of three tensors in torch, of all in minidl
ONE_DTYPE = {"huber_loss", "smooth_l1_loss", "lerp", "clamp_tensors"}
ROWS = [case for case in CASES if case.torch is not None]
HOMES = (torch, torch.nn.functional, torch.Tensor, torch.special, torch.linalg)


def resolved(case: Case) -> Any:
    """torch's function of a row: `torch` of the row, or what torch has under its names."""
    if callable(case.torch):
        return lambda *args, **kwargs: case.torch(torch, *args, **kwargs)
    if case.torch != "same":
        found = torch
        for part in case.torch.split(".")[1:]:
            found = getattr(found, part)
        return found
    for name in (case.name, case.function.__name__, *case.operators):
        for home in HOMES:
            if hasattr(home, name):
                return getattr(home, name)
    raise LookupError(f"torch has no {case.name}: say in the row what it is called there, or None")


def torch_dtype(dtype: DType) -> Any:
    return getattr(torch, dtype.name)


def as_torch(array: np.ndarray) -> Any:
    """A torch tensor with a copy of the elements."""
    copy = np.array(array, order="C")
    if dtype_of(copy.dtype) is bfloat16:
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(copy)


def as_numpy(tensor: Any) -> np.ndarray:
    """float64 for floating point ones."""
    tensor = tensor.detach().resolve_neg().resolve_conj()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


class TorchCall:
    """The same call on torch tensors; `leaves` are its differentiable inputs."""

    def __init__(self, sample: Sample) -> None:
        self.leaves: list[Any] = []
        self.args = [self._given(value) for value in sample.args]
        self.kwargs = {name: self._given(value) for name, value in sample.kwargs.items()}

    def _given(self, value: Any) -> Any:
        if isinstance(value, DType):
            return torch_dtype(value)
        if isinstance(value, list | tuple):
            return type(value)(self._given(item) for item in value)
        if not isinstance(value, np.ndarray):
            return value
        tensor = as_torch(value)
        if type(value) is not Constant and is_float(value):
            self.leaves.append(tensor.requires_grad_())
        return tensor

    def results(self, function: Any) -> list[Any]:
        return flat_torch(function(*self.args, **self.kwargs))


def flat_torch(result: Any) -> list[Any]:
    return flat(tuple(result)) if isinstance(result, list | tuple) else [result]


def compare(
    case: Case, ours: Tensor, theirs: Any, coarsest: float, what: str, change: Any = 0.0
) -> None:
    """Equal dtype, shape and values.

    coarsest: the largest eps that took part; change: how much the value moves when the inputs do
    by that much. torch rounds too, to half dtypes perhaps several times: the oracles are the
    strict judges.
    """
    assert torch_dtype(ours.dtype) is theirs.dtype, f"{what}: {ours.dtype}, torch {theirs.dtype}"
    assert ours.shape == tuple(theirs.shape), f"{what}: {ours.shape}, torch {theirs.shape}"
    if ours.dtype.kind != FLOAT:
        assert np.array_equal(ours.array, as_numpy(theirs)), f"{what}: {ours}, torch {theirs}"
        return
    want = as_numpy(theirs)
    top = max(1.0, np.abs(want[np.isfinite(want)]).max(initial=0))
    factor = (8 if coarsest >= finfo(float16).eps else 64) * case.scale
    with np.errstate(all="ignore"):
        allowed = factor * (coarsest * (np.abs(want) + top) + np.minimum(change, 1e4 * coarsest))
    error = worst(in_float64(ours.array), want, allowed, ours.dtype)
    assert error is None, f"{what}: torch differs: {error}"


def coarsest_of(sample: Sample, ys: list[Any]) -> float:
    dtypes = [dtype_of(a.dtype) for a in arrays_of(sample)]
    dtypes += [y.dtype for y in ys if type(y) is Tensor]
    return max((finfo(d).eps for d in dtypes if d.kind == FLOAT), default=0.0)


def check_values(case: Case, sample: Sample, may_refuse: bool) -> tuple[Any, Any] | None:
    """Compare the results; give (our call, torch's call), or None where there are none."""
    call, leaves = TorchCall(sample), leaves_of(sample)
    try:
        theirs = call.results(resolved(case))
    except (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError) as error:
        if "not implemented for" in str(error):  # a dtype that torch lacks on this device
            return None
        if not may_refuse:
            raise
        with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)):
            called(case, sample, leaves)
        return None
    try:
        ours = called(case, sample, leaves)
    except (ArgumentError, DTypeError) as error:
        # torch does not look at the dtypes of empty matrices, and cuts off the fractions of
        # alpha and beta for integers
        empty = any(a.size == 0 for a in arrays_of(sample))
        if may_refuse and (empty or "must be integers for integer tensors" in str(error)):
            return None
        raise
    assert len(ours) == len(theirs)
    coarsest = coarsest_of(sample, ours)
    changes = [0.0] * len(ours)
    if coarsest:
        changes = sensitivity(case, sample, expected(case, sample), coarsest)
    for i, (y, t) in enumerate(zip(ours, theirs, strict=True)):
        if type(y) is not Tensor:
            assert y == t
            continue
        compare(case, y, t, coarsest, f"result {i}", changes[i])
        if case.grad:
            assert y.requires_grad == t.requires_grad, f"result {i}: requires_grad"
    return (ours, leaves), (theirs, call.leaves)


def check_gradients(case: Case, sample: Sample, ours: Any, theirs: Any) -> None:
    ys = [(y, t) for y, t in zip(ours[0], theirs[0], strict=True) if _differentiable(y)]
    if not ys:
        return
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(y.shape).astype(y.array.dtype) for y, _ in ys]
    weights = [np.asarray(w, y.array.dtype) for w, (y, _) in zip(weights, ys, strict=True)]
    backward([y for y, _ in ys], [Tensor(w) for w in weights])
    torch.autograd.backward([t for _, t in ys], [as_torch(w) for w in weights])
    coarsest = coarsest_of(sample, [y for y, _ in ys])
    for i, (ours_leaf, leaf) in enumerate(zip(ours[1], theirs[1], strict=True)):
        if leaf.grad is None or ours_leaf.grad is None:
            both = [g for g in (leaf.grad, ours_leaf.grad) if g is not None]
            assert not any(np.any(in_float64(np.asarray(g.tolist()))) for g in both)
            continue
        top = np.abs(as_numpy(leaf.grad)).max(initial=0)
        if not top <= finfo(bfloat16).max / 8 or (
            any(y.dtype in HALVES for y, _ in ys) and not top <= 1e4
        ):
            continue  # infinite, or so large that a half dtype overflows on the way
        compare(case, ours_leaf.grad, leaf.grad, coarsest, f"gradient of input {i}")


def _differentiable(y: Any) -> bool:
    return type(y) is Tensor and y.requires_grad


def examples(share: float) -> dict[str, Any]:
    return {
        "max_examples": max(5, round(settings().max_examples * share)),
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
    }


def judged(case: Case, sample: Sample, may_refuse: bool) -> None:
    """Values and gradients of one call against torch's; a failure says which call it was."""
    try:
        found = check_values(case, sample, may_refuse)
        values = [in_float64(a) for a in arrays_of(sample) if is_float(a)]
        if found and case.grad and all(np.isfinite(a).all() for a in values):
            check_gradients(case, sample, *found)
    except AssertionError as error:
        raise AssertionError(f"{error}, in {described(case, sample)}") from error


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_same_as_torch(case):
    @settings(**examples(0.6))
    @given(samples(case, *case.dtypes))
    def example(sample: Sample) -> None:
        judged(case, sample, may_refuse=False)

    example()


@pytest.mark.parametrize(
    "case",
    [case for case in ROWS if len(case.dtypes) > 1 and case.name not in ONE_DTYPE],
    ids=lambda case: case.name,
)
def test_mixed_dtypes_same_as_torch(case):
    """Every input has a dtype of its own: both promote alike, or both refuse."""

    @settings(**examples(0.4))
    @given(samples(case, *case.dtypes, mixed=True))
    def example(sample: Sample) -> None:
        judged(case, sample, may_refuse=True)

    example()


def test_the_comparison_sees_a_difference():
    case = Case("neg", None, None, None)
    ours = Tensor(np.array([1.0, 2.0], np.float32))
    compare(case, ours, torch.tensor([1.0, 2.0]), 1e-7, "value")
    for other in (torch.tensor([1.0, 2.001]), torch.tensor([1.0, 2.0]).double(), torch.ones(2, 1)):
        with pytest.raises(AssertionError, match="value"):
            compare(case, ours, other, 1e-7, "value")
    nan = torch.tensor([1.0, float("nan")])
    with pytest.raises(AssertionError, match="torch differs"):
        compare(case, ours, nan, 1e-7, "value")
    assert "neg(<float32 (2,) C" in described(case, Sample((ours.array,), {}))


def test_every_row_names_a_function_of_torch():
    assert len([callable(resolved(case)) for case in ROWS]) == len(ROWS)


# ---------------------------------------------------------------- special points

INF, NAN = float("inf"), float("nan")
# calls as functions of (torch or minidl, x), and x: places that drawn inputs hardly meet
CORNERS: dict[str, tuple[Any, Any]] = {
    "atan2 at the origin": (lambda m, x: m.atan2(x, x * 2), [0.0, 1.0]),
    "max with NaN": (lambda m, x: m.max(x), [1.0, NAN, 3.0, NAN]),
    "min with NaN": (lambda m, x: m.min(x), [1.0, NAN, 3.0]),
    "median with NaN": (lambda m, x: m.median(x), [1.0, NAN, 3.0]),
    "clamp of NaN": (lambda m, x: m.clamp(x, 0, 2), [1.0, NAN, 3.0, 2.0, 0.0]),
    "clamp crossed": (lambda m, x: m.clamp(x, x * 2, x * 3), [-1.0, 0.0, 1.0]),
    "gather by a number": (lambda m, x: m.gather(x, 0, m.tensor(1)), [1.0, 2.0, 3.0]),
    "gather from a number": (lambda m, x: m.gather(x, 0, m.tensor([0, 0])), 2.0),
    "pad a crop": (
        lambda m, x: m.nn.functional.pad(x, (-1, 2), mode="circular"),
        [[[0.0, 1.0, 2.0, 3.0]]],
    ),
    "all targets ignored": (
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor([2, 2]), ignore_index=2),
        [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    ),
    "integers in hardtanh": (lambda m, x: m.nn.functional.hardtanh(x), [-3, 0, 3]),
    "integers in relu6": (lambda m, x: m.nn.functional.relu6(x), [-3, 5, 9]),
    "set to what overflows": (lambda m, x: _set(x.half(), 1e6), [1.0, 2.0]),
    "negative numbers wrap": (lambda m, x: x.byte().fill_(-1), [1, 2]),
    "in place and": (lambda m, x: _and(x), [5, 6]),
    "upper triangle in place": (lambda m, x: (x * 1).triu_(1), [[1.0, 2.0], [3.0, 4.0]]),
    "long running sum": (lambda m, x: m.cumsum(x.expand(10**6), 0)[-1], 0.1),
    "long running product": (lambda m, x: m.cumprod(x.expand(10**5), 0)[-1], 1 + 2**-23),
    "long column sum": (lambda m, x: m.sum(x.expand(10**6, 2).contiguous(), 0), 0.1),
    "long middle sum": (lambda m, x: m.sum(x.expand(2, 10**6, 2).contiguous(), 1), 0.1),
    "long row sum": (lambda m, x: m.sum(x.expand(2, 10**6).contiguous(), 1), 0.1),
    "axes by name": (lambda m, x: m.permute(x, dims=(1, 0)), [[1.0, 2.0]]),
    "flip by name": (lambda m, x: x.flip(dims=[0, 1]), [[1.0, 2.0]]),
    "shape by name": (lambda m, x: m.reshape(x, shape=(2, 1)), [[1.0, 2.0]]),
    "tile by name": (lambda m, x: m.tile(x, dims=(2,)), [[1.0, 2.0]]),
    "range by name": (lambda m, x: m.arange(end=3) * x, 2.0),
    "cpu": (lambda m, x: x.cpu(), 2.0),
    "second derivative of elu": (
        lambda m, x: m.autograd.grad(m.nn.functional.elu(x).sum(), x, create_graph=True)[0],
        [-1.0, 0.0, 1.0],
    ),
}


def _set(x: Any, value: float) -> Any:
    x[0] = value
    return x


def _and(x: Any) -> Any:
    seen = x
    x &= 4
    return seen


@pytest.mark.parametrize("name", CORNERS)
def test_special_points_same_as_torch(name):
    function, values = CORNERS[name]
    array = np.array(values, np.float32 if np.array(values).dtype.kind == "f" else None)
    ours, theirs = minidl.tensor(array), torch.from_numpy(array.copy())
    if array.dtype.kind == "f":
        ours.requires_grad_()
        theirs.requires_grad_()
    y, t = function(minidl, ours), function(torch, theirs)
    # up to 100 roundings are left of a million
    eps = finfo(float16 if y.dtype in HALVES else y.dtype).eps if y.dtype.kind == FLOAT else 0.0
    compare(Case(name, None, None, None), y, t, eps, "value")
    if y.requires_grad:
        y.sum().backward()
        t.sum().backward()
        compare(Case(name, None, None, None), ours.grad, theirs.grad, eps, "gradient")


@pytest.mark.parametrize("count", [3, 7, 100, 1000])
def test_equal_elements_have_no_deviation(count):
    """Whatever their mean is rounded to: torch, too, gives 0, though not for every count."""
    x = minidl.full((count,), 1.7, requires_grad=True)
    y = minidl.std(x)
    y.backward()
    assert y.item() == 0 and not x.grad.numpy().any()
    assert minidl.var(x.detach() + 10_000).item() == 0


REFUSED: dict[str, Any] = {
    "index of tensors in a list": lambda m: m.zeros(3)[[m.tensor(0), m.tensor(1)]],
    "axis of a bool": lambda m: m.zeros(2, 3).sum(True),
    "product over two axes": lambda m: m.zeros(2, 3).prod((0, 1)),
    "axis of a number": lambda m: m.tensor(1.0).argmax(1),
    "flip of a number": lambda m: m.tensor(1.0).flip(1),
    "fill": lambda m: m.zeros(2, dtype=m.float16).fill_(1e6),
    "full": lambda m: m.full((2,), 1e40),
    "masked fill": lambda m: m.zeros(2).half().masked_fill(m.zeros(2) == 0, -1e9),
    "scatter": lambda m: m.zeros(2).byte().scatter(0, m.tensor([0]), 300),
    "setitem": lambda m: _set(m.zeros(2).byte(), 300),
    "clamp": lambda m: m.zeros(2).byte().clamp(0, 300),
    "hardtanh": lambda m: m.nn.functional.hardtanh(m.zeros(2).byte()),
    "hardswish": lambda m: m.nn.functional.hardswish(m.tensor([100], dtype=m.int8)),
    "hardsigmoid": lambda m: m.nn.functional.hardsigmoid(m.tensor([True])),
    "target": lambda m: m.nn.functional.binary_cross_entropy(m.zeros(1), m.ones(1) * 2),
    "weight": lambda m: m.nn.functional.binary_cross_entropy(m.zeros(2), m.zeros(2), m.ones(3)),
    "take along": lambda m: m.take_along_dim(m.zeros(2), m.tensor([True]), 0),
    "split": lambda m: m.zeros(4).split(2.0),
    "randint": lambda m: m.randint(5.0, (2,)),
    "randperm": lambda m: m.randperm(5.0),
    "sizes": lambda m: m.rand(2.5),
    "boundaries": lambda m: m.bucketize(m.zeros(2), m.zeros(2, 2)),
    "normalized shape": lambda m: m.nn.functional.layer_norm(m.zeros(2, 3), 3.0),
    "tensordot": lambda m: m.tensordot(m.zeros(2), m.zeros(2), ([5], [0])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_by_torch(name):
    try:
        REFUSED[name](torch)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        pass
    else:
        raise AssertionError("torch does not refuse it")
    with pytest.raises(MinidlError, match=r"^\[\w+\] \w"):
        REFUSED[name](minidl)


def test_labels_of_einsum_as_numbers():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    for labels in (
        [[0, 1, 2], [0, 3, 2], [0, 3, 1]],
        [[0, 1, 2], [0, 3, 2]],
        [[30, 1, 2], [30, 3, 2]],
        [[..., 4], [..., 4], [...]],
        [[..., 1, 0], [..., 2, 0], [..., 2, 1]],
    ):
        mine, other = (
            n.einsum(n.tensor(x), labels[0], n.tensor(y), *labels[1:]) for n in (minidl, torch)
        )
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-12, atol=1e-12)

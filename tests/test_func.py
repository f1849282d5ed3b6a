"""Transforms of functions: every operator under vmap, and what they refuse."""

import functools
import gc
import sys

import minidl.autograd.functional as functional
import numpy as np
import pytest
from hypothesis import given, settings

import minidl
from minidl import func, nn
from minidl.autograd.op import Operator
from minidl.errors import ArgumentError, DTypeError, GradientError, MinidlError, ShapeError
from minidl.func import batched as batched_module, vmap as vmap_function
from minidl.func.rules import RULES
from minidl.testing.cases import CASES
from minidl.testing.strategies import Constant, samples

vmap_module = sys.modules["minidl.func.vmap"]
DRAWN = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "dropout"}
DRAWN |= {"exponential", "standard_gamma", "log_standard_gamma", "standard_dirichlet", "poisson"}
DRAWN |= {"binomial"}


def rolled(array):
    return np.roll(array.reshape(-1), 1).reshape(array.shape) if array.size else array.copy()


def is_array(x):
    return isinstance(x, np.ndarray)


def as_tensor(x):
    if is_array(x):
        return minidl.from_numpy(np.array(x))
    if isinstance(x, list | tuple) and x and all(map(is_array, x)):
        return [minidl.from_numpy(np.array(item)) for item in x]
    return x


def results(out):
    out = out if isinstance(out, tuple | list) else (out,)
    return [x for x in out if isinstance(x, minidl.Tensor)]


ROWS = [case for case in CASES if not DRAWN & {case.name, *case.operators}]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_every_operator_under_vmap(case):
    """The batch gives what the samples give, one after the other; so do its gradients."""
    dtype = next((d for d in case.dtypes if d.name == "float64"), case.dtypes[0])

    @settings(max_examples=6)
    @given(samples(case, dtype, purpose="gradients" if case.grad else "values"))
    def check(sample):
        names = [*range(len(sample.args)), *sample.kwargs]
        values = [*sample.args, *sample.kwargs.values()]
        places = [i for i, v in enumerate(values) if is_array(v)]
        if not places:
            return
        chosen = places[:1] if len(places) > 1 and values[places[0]].size % 2 else places
        pairs = {
            i: minidl.from_numpy(np.stack([np.array(values[i]), rolled(np.array(values[i]))]))
            for i in chosen
        }
        if case.grad:
            pairs = {
                i: t.requires_grad_()
                if t.dtype.is_floating_point and not isinstance(values[i], Constant)
                else t
                for i, t in pairs.items()
            }

        def call(*given):
            full = [as_tensor(v) for v in values]
            for i, x in zip(chosen, given, strict=True):
                full[i] = x
            args = [x for n, x in zip(names, full, strict=True) if isinstance(n, int)]
            kwargs = {n: x for n, x in zip(names, full, strict=True) if isinstance(n, str)}
            return tuple(results(case.function(*args, **kwargs)))

        given_tensors = list(pairs.values())
        try:
            expected = [call(*(t[i] for t in given_tensors)) for i in range(2)]
        except MinidlError:
            return  # the rolled sample is outside of the domain
        if any(len({tuple(p.shape) for p in parts}) > 1 for parts in zip(*expected, strict=True)):
            return
        stacked = [minidl.stack(list(parts)) for parts in zip(*expected, strict=True)]
        found = func.vmap(call)(*given_tensors)
        tolerance = 1e-9 if dtype.name == "float64" else 1e-5
        for mine, other in zip(found, stacked, strict=True):
            assert mine.dtype is other.dtype and mine.shape == other.shape
            close(mine, other, tolerance)
        wanted = [t for t in given_tensors if t.requires_grad]
        if wanted and all(
            a.requires_grad == b.requires_grad for a, b in zip(found, stacked, strict=True)
        ):
            sums = [
                sum(((o * 1.0).sum() for o in out if o.requires_grad), minidl.zeros(()).double())
                for out in (found, stacked)
            ]
            if sums[1].requires_grad:
                grads = [minidl.autograd.grad(s, wanted, allow_unused=True) for s in sums]
                for mine, other in zip(*grads, strict=True):
                    if mine is None or other is None:
                        zero = other if mine is None else mine
                        assert zero is None or not np.any(np.nan_to_num(zero.numpy()))
                        continue
                    close(mine, other, 1e-7 if dtype.name == "float64" else 1e-4)

    check()


def close(mine, other, tolerance):
    a, b = (x.detach().double().numpy() for x in (mine, other))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_rules_name_operators():

    names = {o.name for o in gc.get_objects() if type(o) is Operator}
    assert set(RULES) <= names, set(RULES) - names


@pytest.fixture
def no_loops(monkeypatch):
    """Everything goes by rules: neither the function nor an operator runs once per sample."""

    def refuse(*args, **kwargs):
        raise AssertionError("it ran once per sample")

    monkeypatch.setattr(vmap_module, "_looped", refuse)
    monkeypatch.setattr("minidl.func.rules._Call.looped", refuse)


def model_loss(model):
    def loss(params, x, target):
        out = func.functional_call(model, params, (x.unsqueeze(0),))
        return nn.functional.cross_entropy(out, target.unsqueeze(0))

    return loss


def parameters(model):
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("norm", [False, True])
def test_gradients_of_each_sample(no_loops, norm):
    minidl.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.GELU(), *[nn.LayerNorm(6)] * norm, nn.Linear(6, 3)]
    model = nn.Sequential(*layers)
    x, target = minidl.randn(5, 4), minidl.tensor([0, 2, 1, 1, 0])
    found = func.vmap(func.grad(model_loss(model)), (None, 0, 0))(parameters(model), x, target)
    for i in range(5):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[i : i + 1]), target[i : i + 1]).backward()
        for name, p in model.named_parameters():
            np.testing.assert_allclose(found[name][i].numpy(), p.grad.numpy(), atol=1e-6)
    assert not any(g.requires_grad for g in found.values())


def test_a_transformer_block_under_vmap(no_loops):
    minidl.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = minidl.randn(3, 2, 5, 8)
    np.testing.assert_allclose(
        func.vmap(layer)(x).detach().numpy(),
        minidl.stack([layer(part) for part in x]).detach().numpy(),
        atol=1e-5,
    )


def test_ensembles(no_loops):
    minidl.manual_seed(0)
    models = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(3)]
    params, buffers = func.stack_module_state(models)
    x = minidl.randn(5, 3)

    def call(p, b, x):
        return func.functional_call(models[0], (p, b), (x,))

    found = func.vmap(call, (0, 0, None))(params, buffers, x)
    expected = minidl.stack([model(x) for model in models])
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=1e-6)
    found.sum().backward()
    assert params["0.weight"].grad.shape == (3, 4, 3)
    with pytest.raises(ArgumentError, match="one class"):
        func.stack_module_state([nn.Linear(1, 1), nn.Tanh()])


def test_nesting(no_loops):
    x, y = minidl.randn(3).double(), minidl.randn(4).double()
    outer = func.vmap(lambda a: func.vmap(lambda b: (a * b).sin() + a)(y))(x)
    expected = (x[:, None] * y).sin() + x[:, None]
    np.testing.assert_allclose(outer.numpy(), expected.numpy())
    second = func.vmap(func.grad(func.grad(lambda a: (a**3).sin())))(x)
    a = x.numpy()
    np.testing.assert_allclose(second.numpy(), 6 * a * np.cos(a**3) - 9 * a**4 * np.sin(a**3))
    total = func.grad(lambda x: func.vmap(lambda a: a**2 * y.sum())(x).sum())(x)
    np.testing.assert_allclose(total.numpy(), (2 * x * y.sum()).numpy())
    hessians = func.vmap(func.hessian(lambda v: (v**3).sum() * v[0]))(minidl.randn(2, 3).double())
    assert hessians.shape == (2, 3, 3)
    both = func.vmap(func.vmap(func.grad(lambda a, b: a * b), (None, 0)), (0, None))(x, y)
    np.testing.assert_allclose(both.numpy(), np.broadcast_to(y.numpy(), (3, 4)))


def test_axes_and_trees():
    x = minidl.arange(24.0).view(2, 3, 4)
    out = func.vmap(
        lambda d: {"s": d["a"].sum(), "p": (d["a"], d["b"])},
        in_dims=({"a": 1, "b": None},),
        out_dims={"s": 0, "p": (1, 2)},
    )({"a": x, "b": minidl.ones(2, 2)})
    np.testing.assert_array_equal(out["s"].numpy(), x.numpy().sum((0, 2)))
    np.testing.assert_array_equal(out["p"][0].numpy(), x.numpy())
    assert out["p"][1].shape == (2, 2, 3)
    assert func.vmap(lambda a, *, b: a + b)(x, b=x[0]).shape == x.shape
    np.testing.assert_array_equal(
        func.vmap(lambda a: a * 2, chunk_size=2)(x[:, :, 0].t()).numpy(), 2 * x[:, :, 0].t().numpy()
    )
    assert func.vmap(lambda a: a.sin())(minidl.zeros(0, 3)).shape == (0, 3)
    assert minidl.vmap is func.vmap is vmap_function


def test_what_looks_at_values_runs_once_per_sample():
    x = minidl.tensor([[1.0, -2.0], [-3.0, 1.0]])

    def choose(v):
        if v.sum() > -1.5:
            return v * 2
        return v - v.max().item()

    assert func.vmap(choose)(x).tolist() == [[2, -4], [-4, 0]]

    def write(v):
        w = v.clone()
        w[0] = 7
        return w.add_(1)

    assert func.vmap(write)(x).tolist() == [[8, -1], [8, 2]]
    index = minidl.tensor([1, 0])
    assert func.vmap(lambda v, i: v[i])(x, index).tolist() == [-2, -3]
    assert func.vmap(lambda i: x[i])(index).tolist() == x.flip(0).tolist()
    with pytest.raises(ValueError, match="torn"):
        func.vmap(lambda v: (_ for _ in ()).throw(ValueError("torn")))(x)


def test_batches_of_cotangents():
    x = minidl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    eye, want = minidl.eye(3), np.diag([2.0, 4.0, 6.0])
    _, vjp_fn = func.vjp(lambda x: x**2, x.detach())
    np.testing.assert_array_equal(func.vmap(vjp_fn)(eye)[0].numpy(), want)
    y = x**2

    def row(v):
        return minidl.autograd.grad(y, x, v, retain_graph=True)[0]

    np.testing.assert_array_equal(func.vmap(row)(eye).numpy(), want)
    tangents = func.vmap(lambda t: func.jvp(lambda x: x**2, (x.detach(),), (t,))[1])(eye)
    np.testing.assert_array_equal(tangents.numpy(), want)
    inner = func.vmap(lambda x: func.vmap(func.vjp(lambda x: x**2, x)[1])(eye)[0])
    rows = inner(minidl.stack([x.detach(), x.detach() * 2]))
    np.testing.assert_array_equal(rows.numpy(), [want, 2 * want])


@pytest.mark.parametrize("argnums", [(), (0, 0), (0, -2)])
def test_argnums_are_different(argnums):
    with pytest.raises(ArgumentError, match="argnums"):
        func.grad(lambda x, y: (x * y).sum(), argnums)(minidl.ones(2), minidl.ones(2))


def test_half_types_are_widened_where_a_gradient_is_recorded():
    F = nn.functional  # noqa: N806
    x = minidl.tensor([300.0, 400.0, 500.0]).half()
    for norm in (F.rms_norm, F.layer_norm):
        plain = x.clone().requires_grad_()
        (norm(plain, (3,)) * x).sum().backward()
        recorded = func.grad(lambda v, norm=norm: (norm(v, (3,)) * x).sum())(x)
        assert np.isfinite(recorded.numpy()).all()
        np.testing.assert_allclose(recorded.numpy(), plain.grad.numpy(), rtol=0.01, atol=0.01)
        weights = minidl.ones(2, 3).half()
        out = func.vmap(lambda w, norm=norm: norm(x, (3,), w))(weights)
        np.testing.assert_allclose(out.numpy()[1], norm(x, (3,)).numpy(), rtol=2e-3)
    many, classes = minidl.zeros(70_000, 2).half(), minidl.zeros(70_000).long()
    loss = functools.partial(F.cross_entropy, target=classes, label_smoothing=0.1)
    each = func.grad(loss)(many)[0].numpy()  # 70,000 is beyond float16
    np.testing.assert_allclose(each, [-0.45 / 70_000, 0.45 / 70_000], rtol=0.02)
    q = minidl.full((1, 2, 4), 200.0).half()
    gradient = func.grad(lambda q: F.scaled_dot_product_attention(q, q, q, scale=1.0).sum())(q)
    assert np.isfinite(gradient.numpy()).all()


def test_a_sample_is_a_tensor_and_a_number_no_axis():
    x, limits = minidl.tensor([[1, 5], [7, 2]]), minidl.tensor([3, 4])
    for name in ("max", "min"):
        out = func.vmap(lambda v, b, name=name: getattr(v, name)(b))(x, limits)
        want = getattr(np, f"{name}imum")(x.numpy(), limits.numpy()[:, None])
        np.testing.assert_array_equal(out.numpy(), want)
    assert func.vmap(lambda v: v * (2 if minidl.is_tensor(v) else 3))(x).tolist() == [
        [2, 10],
        [14, 4],
    ]


def test_results_that_all_samples_share(no_loops):
    x, y = minidl.arange(6.0).view(2, 3), minidl.ones(2)
    out = func.vmap(lambda x, y: (x * 2, y, "text"), (0, None), out_dims=(0, None, None))(x, y)
    assert out[0].tolist() == (x * 2).tolist() and out[1] is y and out[2] == "text"
    product = func.vmap(lambda x, *, y: (x * y).sum())(x, y=minidl.ones(2, 3) * 2)
    assert product.tolist() == [12, 48]


def test_shared_results_must_be_shared():
    x = minidl.arange(6.0).view(2, 3)
    for f in (lambda x: x * 2, lambda x: x.max().item()):
        with pytest.raises(ArgumentError, match="same for all"):
            func.vmap(f, out_dims=None)(x)
    assert func.vmap(lambda x: int(x.max().item() > -1), out_dims=None)(x) == 1
    with pytest.raises(DTypeError, match="results must be Tensors, got int"):
        func.vmap(lambda x: 3)(x)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", minidl.zeros(1))

    def forward(self, x):
        self.count += 1
        return x * self.count


def test_writes_to_tensors_from_outside():
    x, module = minidl.arange(6.0).view(2, 3), Counting()
    assert func.vmap(module)(x).tolist() == x.tolist()  # the whole batch at once: one write
    assert module.count.item() == 1
    w, held = minidl.ones(3), {"w": minidl.ones(3)}
    empty = []

    def looped(x, write):
        write()
        empty.append(0)
        return x.clone().add_(1)

    shared = [
        lambda x: looped(x, lambda: w.mul_(2)),
        lambda x: looped(x, lambda: held["w"].mul_(2)),
        functools.partial(lambda m, x: looped(m(x), lambda: None), module),
        lambda x: w.add_(x),
    ]
    for f in shared:
        with pytest.raises(MinidlError, match="from outside"):
            func.vmap(f)(x)
    # each was written once, not once per sample
    assert w.tolist() == [2, 2, 2] and held["w"].tolist() == [2, 2, 2]
    with pytest.raises(MinidlError, match="from outside"):
        func.vmap(lambda x, w: looped(x, lambda: w.mul_(2)), (0, None))(x, w)
    assert func.vmap(lambda x: looped(x, lambda: w * 2))(x).tolist() == (x + 1).tolist()


def test_random_numbers():
    x = minidl.zeros(3, 2)

    def noisy(v):
        return v + minidl.rand(2)

    with pytest.raises(MinidlError, match="randomness"):
        func.vmap(noisy)(x)
    minidl.manual_seed(0)
    same = func.vmap(noisy, randomness="same")(x)
    assert same[0].tolist() == same[1].tolist()
    chunks = func.vmap(noisy, randomness="same", chunk_size=2)(x)
    assert chunks[0].tolist() == chunks[2].tolist()
    different = func.vmap(noisy, randomness="different")(x)
    assert different[0].tolist() != different[1].tolist()
    drop = nn.Dropout(0.5)
    assert func.vmap(drop, randomness="different")(minidl.ones(4, 50)).std() > 0
    minidl.rand(1)  # nothing of it stays


X = minidl.ones(2, 3)
WRONG = [
    (lambda: func.vmap(lambda a: a, in_dims=(0, 0))(X), ArgumentError, "in_dims"),
    (lambda: func.vmap(lambda a: a, in_dims=2)(X), ArgumentError, "no axis"),
    (lambda: func.vmap(lambda a: a, in_dims=None)(X), ArgumentError, "at least one"),
    (lambda: func.vmap(lambda a, b: a)(X, X.t()), ShapeError, "one size"),
    (lambda: func.vmap(lambda a, b: a)(X, 3), DTypeError, "no Tensor"),
    (lambda: func.vmap(lambda a: 3)(X), DTypeError, "results must be Tensors"),
    (lambda: func.vmap(lambda a: a, out_dims=(0, 0))(X), ArgumentError, "out_dims"),
    (lambda: func.vmap(lambda a: a, randomness="some"), ArgumentError, "randomness"),
    (lambda: func.vmap(lambda a: a, chunk_size=0), ArgumentError, "chunk_size"),
    (lambda: func.grad(lambda a: a)(X), ShapeError, "one number"),
    (lambda: func.grad(lambda a: 1.0)(X), ShapeError, "one number"),
    (lambda: func.grad(lambda a: a.sum(), argnums=1)(X), ArgumentError, "argnums"),
    (lambda: func.grad(lambda a: a.sum())(X.long()), DTypeError, "floating"),
    (lambda: func.grad(lambda a: a.sum(), has_aux=True)(X), ArgumentError, "pair"),
    (lambda: func.vjp(lambda a: a, X)[1](X[0]), ShapeError, "cotangents"),
    (lambda: func.jvp(lambda a: a, (X,), (X[0],)), ShapeError, "tangents"),
    (lambda: func.jvp(lambda a: a, X, X), ArgumentError, "tuples"),
    (lambda: functional.jacobian(lambda a: 1, X), DTypeError, "must return"),
    (lambda: functional.hessian(lambda a: a, X), ShapeError, "one element"),
    (lambda: functional.vjp(lambda a: a, X), ArgumentError, "left out"),
    (lambda: functional.vjp(lambda a: a, X, X[0]), ShapeError, "v must"),
    (lambda: functional.jacobian(lambda a, b: a, (X, X), strict=True), GradientError, "depend"),
    (lambda: functional.jacobian(lambda a: a.detach(), X, strict=True), GradientError, "depend"),
    (lambda: functional.jacobian(lambda a: a, X, strategy="none"), ArgumentError, "strategy"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_wrong_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
    assert not batched_module.levels.sizes


def test_functional_call_leaves_the_module_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    model[2].weight = model[0].weight
    before = dict(model.named_parameters())
    x, new = minidl.ones(1, 2), minidl.zeros(2, 2).requires_grad_()
    out = func.functional_call(model, {"0.weight": new}, x)
    assert out.tolist() == model[2].bias.unsqueeze(0).tolist()  # the tied weight was given too
    out.sum().backward()
    assert new.grad is not None
    both = {"0.weight": new, "2.weight": new.clone()}
    with pytest.raises(ArgumentError, match="one parameter"):
        func.functional_call(model, both, (x,))
    func.functional_call(model, both, (x,), tie_weights=False)
    other = func.functional_call(model, {"0.weight": new}, (x,), tie_weights=False)
    assert other.tolist() != out.tolist()
    with pytest.raises(ShapeError):
        func.functional_call(model, {"0.weight": minidl.zeros(3, 3)}, (x,))
    for name, p in model.named_parameters():
        assert before[name] is p
    with pytest.raises(ArgumentError, match="unknown names"):
        func.functional_call(model, {"9.weight": new}, (x,), strict=True)
    with pytest.raises(ArgumentError, match="more than one"):
        func.functional_call(model, [{"0.bias": new}, {"0.bias": new}], (x,))
    with pytest.raises(DTypeError, match="must be a Tensor"):
        func.functional_call(model, {"0.weight": 3}, (x,))
    seen = []
    model[0].register_forward_hook(lambda m, args, out: seen.append(m.weight is new))
    func.functional_call(model, {"0.weight": new}, (x,))
    assert seen == [True]


def test_history_leads_out_where_it_is_asked_for():
    w = minidl.tensor(2.0, requires_grad=True)
    x = minidl.tensor(3.0)
    assert not func.grad(lambda a: a**2)(x).requires_grad
    inner = func.grad(lambda a: a**2 * w)(x)  # w is outside
    inner.backward()
    assert inner.item() == 12 and w.grad.item() == 6
    with minidl.no_grad():
        assert func.grad(lambda a: a**2 * w)(x).item() == 12
    leaf = minidl.tensor(3.0, requires_grad=True)
    func.grad(lambda a: a**3)(leaf).backward()
    assert leaf.grad.item() == 18

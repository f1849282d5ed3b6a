"""nn.utils against PyTorch: values, gradients, names of states and loading in both directions."""

import copy
import pickle

import numpy as np
import pytest

import minidl
from minidl import nn, ops

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(mine, other, tolerance=1e-10):
    np.testing.assert_allclose(
        mine.detach().numpy(), other.detach().numpy(), rtol=tolerance, atol=tolerance
    )


def transfer(source, target, convert):
    """Load the state of one library's module into the other's."""
    state = {k: convert(np.array(v.detach().numpy())) for k, v in source.state_dict().items()}
    assert list(state) == list(target.state_dict())
    target.load_state_dict(state)


def same_module(build, shape=(5, 4), tolerance=1e-10, steps=1):
    """Build in both libraries, load ours there and back, compare outputs and all gradients."""
    ours, theirs = build(minidl).double(), build(torch).double()
    assert repr(ours) == repr(theirs)
    transfer(ours, theirs, torch.tensor)
    transfer(theirs, ours, ops.tensor)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for step in range(steps):
        x = ops.tensor(normal(*shape, seed=step)).requires_grad_()
        y = torch.tensor(normal(*shape, seed=step)).requires_grad_()
        mine, other = ours(x), theirs(y)
        close(mine, other, tolerance)
        (mine * mine.detach().cos()).sum().backward()
        (other * other.detach().cos()).sum().backward()
        close(x.grad, y.grad, tolerance)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad, tolerance)
        for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
            close(p, q, tolerance)
    return ours, theirs


# Gradients and vectors -------------------------------------------------------------------------


def gradients(library, seed=0):
    made = []
    for i, shape in enumerate([(3, 2), (4,), ()]):
        p = library.tensor(normal(*shape, seed=seed + i)).requires_grad_()
        p.grad = library.tensor(np.array(normal(*shape, seed=9 + i)))
        made.append(p)
    return [*made, library.tensor([1.0]).requires_grad_()]


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_norms_of_gradients(order, bound):
    def run(library):
        utils, params = library.nn.utils, gradients(library)
        grads = [p.grad for p in params if p.grad is not None]
        total = utils.get_total_norm(grads, order)
        utils.clip_grads_with_norm_(params, bound, total)
        again = gradients(library)
        total_again = utils.clip_grad_norm_(again, bound, order)
        parts = [p.grad for p in (*params, *again) if p.grad is not None]
        return [total, total_again, utils.get_total_norm([]), *parts]

    for mine, other in zip(run(minidl), run(torch), strict=True):
        close(mine, other)


def test_a_norm_that_is_not_finite():
    for library in (minidl, torch):
        bad = [library.tensor([float("nan")])]
        with pytest.raises(RuntimeError):
            library.nn.utils.get_total_norm(bad, error_if_nonfinite=True)


def test_parameters_as_a_vector():
    def run(library):
        utils = library.nn.utils
        params = gradients(library)
        vector = utils.parameters_to_vector(params)
        (vector * vector).sum().backward()
        utils.vector_to_parameters(vector.detach() * 2, params)
        return [vector, *params, params[0].grad]

    for mine, other in zip(run(minidl), run(torch), strict=True):
        close(mine, other)
    for library in (minidl, torch):
        with pytest.raises(TypeError):
            library.nn.utils.vector_to_parameters([1.0], gradients(library))
        params = gradients(library)
        with pytest.raises(RuntimeError):
            library.nn.utils.vector_to_parameters(library.ones(3), params)
    close(gradients(minidl)[0], gradients(torch)[0])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(batch_first, side):
    def run(library):
        rnn = library.nn.utils.rnn
        made = [library.tensor(normal(n, 2, seed=n)).requires_grad_() for n in (3, 1, 4, 0)]
        padded = rnn.pad_sequence(made, batch_first, 1.5, side)
        (padded * padded).sum().backward()
        parts = []
        if side == "right":
            parts = rnn.unpad_sequence(padded.clone(), library.tensor([3, 1, 4, 0]), batch_first)
        return [padded, *parts, *(x.grad for x in made)]

    for mine, other in zip(run(minidl), run(torch), strict=True):
        close(mine, other)


def test_skip_init_draws_nothing():
    minidl.manual_seed(3)
    layer = nn.utils.skip_init(nn.Linear, 4, 3, bias=False)
    after = ops.rand(2)
    minidl.manual_seed(3)
    assert after.tolist() == ops.rand(2).tolist()
    assert tuple(layer.weight.shape) == (3, 4) and layer.bias is None
    for library in (minidl, torch):
        with pytest.raises(RuntimeError):
            library.nn.utils.skip_init(library.nn.ReLU)


# Hooks that compute a weight -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_by_a_hook(dim):
    def build(library):
        return library.nn.utils.weight_norm(library.nn.Linear(4, 3), dim=dim)

    ours, theirs = same_module(build)
    minidl.nn.utils.remove_weight_norm(ours)
    torch.nn.utils.remove_weight_norm(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["bias", "weight"]
    close(ours.weight, theirs.weight)
    close(ours(ops.tensor(normal(2, 4))), theirs(torch.tensor(normal(2, 4))))
    for library, module in ((minidl, ours), (torch, theirs)):
        with pytest.raises(ValueError):
            library.nn.utils.remove_weight_norm(module)
        module = build(library)
        with pytest.raises(RuntimeError):
            library.nn.utils.weight_norm(module)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [None, 1])
def test_spectral_norm_by_a_hook(dim):
    def build(library):
        return library.nn.utils.spectral_norm(
            library.nn.Linear(4, 3), n_power_iterations=2, dim=dim
        )

    ours, theirs = same_module(build, steps=3)
    ours.eval(), theirs.eval()
    close(ours(ops.tensor(normal(2, 4))), theirs(torch.tensor(normal(2, 4))))
    minidl.nn.utils.remove_spectral_norm(ours)
    torch.nn.utils.remove_spectral_norm(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["bias", "weight"]
    close(ours.weight, theirs.weight)
    for library, module in ((minidl, ours), (torch, theirs)):
        with pytest.raises(ValueError):
            library.nn.utils.remove_spectral_norm(module)
        with pytest.raises(ValueError):
            library.nn.utils.spectral_norm(module, n_power_iterations=0)


# Parametrisations ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm(dim):
    def build(library):
        place = library.nn.utils.parametrizations
        return place.weight_norm(library.nn.Linear(4, 3), dim=dim)

    same_module(build)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_reads_states_of_old():
    old = nn.utils.weight_norm(nn.Linear(4, 3))
    for library, convert in ((minidl, ops.tensor), (torch, torch.tensor)):
        new = library.nn.utils.parametrizations.weight_norm(library.nn.Linear(4, 3))
        new.load_state_dict({k: convert(v.numpy()) for k, v in old.state_dict().items()})
        close(new.weight, old.weight, 1e-6)


@pytest.mark.parametrize("options", [{}, {"n_power_iterations": 3}, {"dim": 1}, {"dim": -1}])
def test_spectral_norm(options):
    def build(library):
        place = library.nn.utils.parametrizations
        return place.spectral_norm(library.nn.Linear(4, 3), **options)

    ours, theirs = same_module(build, steps=3)
    ours.eval(), theirs.eval()
    close(ours.weight, theirs.weight)
    if not options:
        for name in ("bias",):  # a vector is divided by its length
            for library, module in ((minidl, ours), (torch, theirs)):
                library.nn.utils.parametrizations.spectral_norm(module, name)
            close(ours.bias, theirs.bias)


@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder", None])
def test_orthogonal(kind, sizes, trivial):
    def build(library):
        place = library.nn.utils.parametrizations
        layer = library.nn.Linear(*sizes).double()
        values = normal(sizes[1], sizes[0])
        with library.no_grad():
            layer.weight.copy_(library.tensor(values))
        return place.orthogonal(layer, orthogonal_map=kind, use_trivialization=trivial)

    ours, theirs = build(minidl), build(torch)
    if trivial and sizes[0] == sizes[1] or (not trivial and kind == "householder"):
        close(ours.weight, theirs.weight, 1e-8)  # no random numbers are in it
    weight = ours.weight
    gram = weight @ weight.mT if sizes[0] >= sizes[1] else weight.mT @ weight
    np.testing.assert_allclose(gram.detach().numpy(), np.eye(min(sizes)), atol=1e-10)
    with minidl.no_grad():  # away from where the map started
        ours.parametrizations.weight.original.add_(ops.tensor(normal(sizes[1], sizes[0]) / 3))
        if kind == "householder" or (kind is None and sizes[0] != sizes[1]):
            ours.parametrizations.weight.original.diagonal().fill_(-1)
    transfer(ours, theirs, torch.tensor)
    close(ours.weight, theirs.weight)
    ours.weight.sin().sum().backward()
    theirs.weight.sin().sum().backward()
    mine = ours.parametrizations.weight.original.grad
    close(mine, theirs.parametrizations.weight.original.grad, 1e-9)
    target = np.linalg.qr(normal(max(sizes), min(sizes), seed=5))[0]
    target = target if sizes[1] >= sizes[0] else target.T
    for library, module in ((minidl, ours), (torch, theirs)):
        value = library.tensor(np.array(target))
        if trivial or kind == "householder" or (kind is None and sizes[0] != sizes[1]):
            module.weight = value
            close(module.weight, value, 1e-8)
        else:
            with pytest.raises(NotImplementedError):
                module.weight = value


def test_what_orthogonal_refuses():
    for library in (minidl, torch):
        place = library.nn.utils.parametrizations
        with pytest.raises(ValueError):
            place.orthogonal(library.nn.Linear(2, 2), orthogonal_map="none")
        with pytest.raises(ValueError):
            place.orthogonal(library.nn.Linear(2, 2), "bias")
        with pytest.raises(ValueError):
            place.orthogonal(library.nn.Linear(2, 2), "none")


def pieces(library):
    """Parametrisations of every kind, made from the library's modules."""
    module = library.nn.Module

    class Symmetric(module):
        def forward(self, x):
            return x.triu() + x.triu(1).mT

        def right_inverse(self, x):
            return x.triu()

    class Scaled(module):
        def __init__(self, factor=2.0):
            super().__init__()
            self.factor = library.nn.Parameter(library.tensor(factor, dtype=library.float64))

        def forward(self, x):
            return x * self.factor

        def right_inverse(self, x):
            return x / self.factor

    class Sum(module):
        def forward(self, a, b):
            return a + b

        def right_inverse(self, x):
            return x / 4, x * 0.75

    class Sine(module):
        def forward(self, x):
            return x.sin()

    class Row(module):
        def forward(self, x):
            return x[0]

    return Symmetric, Scaled, Sum, Sine, Row


@pytest.mark.parametrize("names", ["0", "1", "2", "3", "01", "13", "21", "231"])
def test_parametrisations_of_ones_own(names):
    def build(library):
        layer = library.nn.Linear(4, 4).double()
        for name in names:
            kind = pieces(library)[int(name)]
            library.nn.utils.parametrize.register_parametrization(layer, "weight", kind())
        return layer

    ours, theirs = same_module(build)
    start = nn.Linear(4, 4).double()
    if names in ("1", "2"):  # the tensor is kept where a right inverse says how
        before = start.weight.detach().clone()
        for name in names:
            kind = pieces(minidl)[int(name)]
            nn.utils.parametrize.register_parametrization(start, "weight", kind())
        close(start.weight, before, 1e-12)
    results = []
    for library, module in ((minidl, ours), (torch, theirs)):
        place = library.nn.utils.parametrize
        kind, before = type(module), module.weight.detach().clone()
        assert place.is_parametrized(module) and place.is_parametrized(module, "weight")
        assert not place.is_parametrized(module, "bias")
        assert place.type_before_parametrizations(module) is library.nn.Linear
        assert kind.__name__ == "ParametrizedLinear"
        twin = build(library)  # torch's copies share a class: removing from one harms the other
        twin.load_state_dict(module.state_dict())
        place.remove_parametrizations(twin, "weight")
        assert type(twin) is library.nn.Linear and type(module) is kind
        close(twin.weight, before)
        results.append((list(twin.state_dict()), repr(twin), twin.weight.requires_grad))
        if "3" not in names:
            value = library.tensor(np.eye(4) * 3)
            module.weight = value
            close(module.weight, value, 1e-12)
        else:
            with pytest.raises(RuntimeError):
                module.weight = library.tensor(np.eye(4))
        with pytest.raises(RuntimeError):
            pickle.dumps(module)
    assert results[0] == results[1]
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(p, q, 1e-12)


def test_a_copy_stays_parametrised():
    layer = nn.Linear(2, 2)
    place = nn.utils.parametrize
    place.register_parametrization(layer, "weight", pieces(minidl)[3]())
    twin = copy.deepcopy(layer)
    place.remove_parametrizations(twin, "weight", leave_parametrized=False)
    assert place.is_parametrized(layer, "weight")
    close(layer.weight, twin.weight.sin(), 1e-6)
    with pytest.raises(ValueError):
        place.remove_parametrizations(twin, "weight")


def test_one_tensor_keeps_its_parameter():
    """An optimiser that holds the parameter goes on training it."""
    for library in (minidl, torch):
        layer, place = library.nn.Linear(2, 2), library.nn.utils.parametrize
        weight = layer.weight
        place.register_parametrization(layer, "weight", pieces(library)[3]())
        assert layer.parametrizations.weight.original is weight
        place.remove_parametrizations(layer, "weight", leave_parametrized=False)
        assert layer.weight is weight


def test_buffers_are_parametrised_too():
    def build(library):
        layer = library.nn.Linear(2, 2)
        layer.register_buffer("extra", library.tensor(normal(2, 2)))
        library.nn.utils.parametrize.register_parametrization(layer, "extra", pieces(library)[3]())
        return layer

    ours, theirs = build(minidl), build(torch)
    close(ours.extra, theirs.extra)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for library, module in ((minidl, ours), (torch, theirs)):
        library.nn.utils.parametrize.remove_parametrizations(module, "extra")
    close(ours.extra, theirs.extra)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_unfit_parametrisations_change_nothing():
    for library in (minidl, torch):
        place, n = library.nn.utils.parametrize, library.nn
        layer = n.Linear(4, 4)
        before = layer.weight.detach().clone()
        for kind, name in ((pieces(library)[4], "weight"), (n.Identity, "none")):
            with pytest.raises(ValueError):
                place.register_parametrization(layer, name, kind())
        assert type(layer) is n.Linear and list(layer.state_dict()) == ["weight", "bias"]
        close(layer.weight, before)
        place.register_parametrization(layer, "weight", pieces(library)[4](), unsafe=True)
        assert tuple(layer.weight.shape) == (4,)


def test_cached_tensors_are_computed_once():
    for library in (minidl, torch):
        calls = []

        class Counted(library.nn.Module):
            def forward(self, x):
                calls.append(1)  # noqa: B023 - read before the next turn
                return x * 1

        layer, place = library.nn.Linear(2, 2), library.nn.utils.parametrize
        place.register_parametrization(layer, "weight", Counted())
        calls.clear()
        with place.cached():
            with place.cached():
                first = layer.weight
            assert layer.weight is first
        assert len(calls) == 1
        assert layer.weight is not first and len(calls) == 2


def test_transfer():
    def run(library):
        place, n = library.nn.utils.parametrize, library.nn
        first, second = n.Linear(4, 4).double(), n.Linear(4, 4).double()
        state = {"weight": normal(4, 4), "bias": normal(4)}
        first.load_state_dict({k: library.tensor(v) for k, v in state.items()})
        place.register_parametrization(first, "weight", pieces(library)[1]())
        place.transfer_parametrizations_and_params(first, second, "weight")
        for p, q in zip(*(m.parametrizations.parameters() for m in (first, second)), strict=True):
            assert p is q
        return [second.weight, *second.parametrizations.parameters()], repr(second)

    (mine, text), (other, other_text) = run(minidl), run(torch)
    assert text == other_text
    for a, b in zip(mine, other, strict=True):
        close(a, b)

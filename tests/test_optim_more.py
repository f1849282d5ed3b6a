"""L-BFGS and Muon against PyTorch, Lion against NumPy, and what all optimisers have in common."""

import numpy as np
import pytest

import minidl.ops as ops
from minidl import nn, optim
from minidl.errors import ArgumentError, MinidlError

ALL = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {"betas": (0.7, 0.9)},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "ASGD": {"t0": 3},
    "Rprop": {},
    "Adafactor": {},
    "Lion": {"weight_decay": 0.1},
    "Muon": {},
}
SHAPES = [(4, 3), (3, 5), (2, 2)]


def parameters(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(ops.tensor(rng.normal(size=s).astype(dtype))) for s in SHAPES]


def give_gradients(params, seed, sign=1):
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = ops.tensor(sign * rng.normal(size=tuple(p.shape)).astype(p.detach().numpy().dtype))


def values(params):
    return [p.detach().numpy().copy() for p in params]


@pytest.mark.parametrize("name", ALL)
def test_a_resumed_optimiser_continues_bit_for_bit(name):
    straight, resumed = parameters(), parameters()
    one = getattr(optim, name)(straight, lr=0.01, **ALL[name])
    two = getattr(optim, name)(resumed, lr=0.01, **ALL[name])
    for seed in range(12):
        for params, optimizer in ((straight, one), (resumed, two)):
            give_gradients(params, seed)
            optimizer.step()
        if seed == 5:
            resumed = [nn.Parameter(p.detach().clone()) for p in resumed]
            state = two.state_dict()
            two = getattr(optim, name)(resumed, lr=0.5)
            two.load_state_dict(state)
    for a, b in zip(values(straight), values(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [n for n in ALL if n != "Muon"])
def test_maximize_is_the_negated_gradient(name):
    up, down = parameters(), parameters()
    one = getattr(optim, name)(up, lr=0.01, maximize=True)
    two = getattr(optim, name)(down, lr=0.01)
    for seed in range(4):
        give_gradients(up, seed)
        give_gradients(down, seed, sign=-1)
        one.step()
        two.step()
    for a, b in zip(values(up), values(down), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_parameters_without_gradient_and_strided_gradients(name):
    params, twins = parameters(), parameters()
    one, two = (getattr(optim, name)(p, lr=0.01, **ALL[name]) for p in (params, twins))
    give_gradients(params, 0)
    for p, q in zip(params, twins, strict=True):
        q.grad = ops.tensor(p.grad.numpy().T.copy()).t()
    params[1].grad = twins[1].grad = None
    before = values(params)[1]
    one.step()
    two.step()
    np.testing.assert_array_equal(values(params)[1], before)
    for a, b in zip(values(params), values(twins), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_parameters_keep_their_dtype(name, dtype):
    params = [
        nn.Parameter(p.detach().half() if dtype == "float16" else p.detach().bfloat16())
        for p in parameters()
    ]
    optimizer = getattr(optim, name)(params, lr=0.5, **ALL[name])
    for p in params:
        p.grad = ops.full_like(p, 10)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    for p, q in zip(params, before, strict=True):
        assert p.dtype is q.dtype and p.isfinite().all() and not ops.equal(p.detach(), q)


@pytest.mark.parametrize("name", [n for n in ALL if n != "Muon"])
def test_empty_and_scalar_parameters(name):
    params = [nn.Parameter(ops.ones(())), nn.Parameter(ops.ones(0)), nn.Parameter(ops.ones(0, 3))]
    optimizer = getattr(optim, name)(params, lr=0.01, **ALL[name])
    for p in params:
        p.grad = ops.ones_like(p)
    optimizer.step()
    assert params[0].item() < 1


WRONG = [
    ("RMSprop", {"alpha": -1}),
    ("RMSprop", {"momentum": -0.1}),
    ("Adagrad", {"lr_decay": -1}),
    ("Adadelta", {"rho": 1.5}),
    ("Adamax", {"betas": (1.0, 0.9)}),
    ("NAdam", {"momentum_decay": -1}),
    ("RAdam", {"betas": (0.9,)}),
    ("ASGD", {"weight_decay": -1}),
    ("Rprop", {"etas": (1.1, 1.2)}),
    ("Adafactor", {"d": 0.5}),
    ("Adafactor", {"beta2_decay": 0.8}),
    ("Adafactor", {"eps": (-1, 1e-3)}),
    ("Lion", {"betas": (0.9, -0.1)}),
    ("Muon", {"adjust_lr_fn": "best"}),
    ("Muon", {"ns_steps": 100}),
    ("LBFGS", {"line_search_fn": "armijo"}),
    ("LBFGS", {"lr": -1}),
]


@pytest.mark.parametrize(("name", "options"), WRONG)
def test_wrong_options_are_refused(name, options):
    with pytest.raises(ArgumentError, match=name):
        getattr(optim, name)(parameters(), **options)


@pytest.mark.parametrize("name", [n for n in ALL if n != "SGD"])
def test_the_state_of_another_optimiser_is_refused(name):
    params = parameters()
    optimizer = getattr(optim, name)(params, **ALL[name])
    give_gradients(params, 0)
    optimizer.step()
    kept = optimizer.state_dict()
    other = {"state": {0: {"other": ops.ones(4, 3)}}, "param_groups": kept["param_groups"]}
    if name == "Adafactor":
        return  # its state depends on the shape
    with pytest.raises(MinidlError, match="must have"):
        optimizer.load_state_dict(other)
    assert optimizer.state_dict()["state"][0].keys() == kept["state"][0].keys()


def test_muon_takes_matrices_only():
    with pytest.raises(ArgumentError, match="matrix"):
        optim.Muon([nn.Parameter(ops.ones(3))])
    optimizer = optim.Muon(parameters())
    with pytest.raises(ArgumentError, match="matrix"):
        optimizer.add_param_group({"params": [nn.Parameter(ops.ones(3))]})
    assert len(optimizer.param_groups) == 1


def test_lion_is_that_of_the_paper():
    params = parameters(dtype=np.float64)
    optimizer = optim.Lion(params, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    expected, momenta = values(params), [np.zeros(s) for s in SHAPES]
    for seed in range(20):
        give_gradients(params, seed)
        for i, p in enumerate(params):
            g = p.grad.numpy()
            update = np.sign(0.8 * momenta[i] + 0.2 * g)
            expected[i] = expected[i] - 0.01 * (update + 0.1 * expected[i])
            momenta[i] = 0.95 * momenta[i] + 0.05 * g
        optimizer.step()
    for a, b in zip(values(params), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def rosenbrock(p):
    x = p.reshape(-1)
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def closure_of(optimizer, param):
    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(param)
        loss.backward()
        return loss

    return closure


def test_lbfgs_finds_the_minimum():
    param = nn.Parameter(ops.tensor([-1.2, 1.0, 0.7], dtype=ops.zeros(1).double().dtype))
    optimizer = optim.LBFGS([param], max_iter=100, line_search_fn="strong_wolfe")
    optimizer.step(closure_of(optimizer, param))
    np.testing.assert_allclose(param.detach().numpy(), 1, atol=1e-5)
    with pytest.raises(ArgumentError, match="one parameter group"):
        optimizer.add_param_group({"params": [nn.Parameter(ops.ones(1))]})
    with pytest.raises(MinidlError, match="closure"):
        optimizer.step(None)


@pytest.mark.parametrize("options", [
    {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "history_size": 2, "max_iter": 7, "lr": 0.5},
    {"lr": 0.001, "max_iter": 5},
    {"lr": 0.002, "history_size": 1, "tolerance_change": 1e-3},
])  # fmt: skip
def test_lbfgs_against_pytorch(options):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    start = np.array([[-1.2, 1.0], [0.5, 2.0]])
    mine, other = nn.Parameter(ops.tensor(start)), torch.nn.Parameter(torch.tensor(start))
    one, two = optim.LBFGS([mine], **options), torch.optim.LBFGS([other], **options)
    assert one.defaults == two.defaults and repr(one) == repr(two)
    for count in range(6):
        a, b = one.step(closure_of(one, mine)).item(), two.step(closure_of(two, other)).item()
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-6)
        if count == 2:  # each goes on from the other's state
            ours, theirs = one.state_dict(), two.state_dict()
            one = optim.LBFGS([mine], **options)
            one.load_state_dict(converted(theirs, torch.Tensor, lambda t: ops.tensor(t.numpy())))
            two = torch.optim.LBFGS([other], **options)
            kind = type(mine)
            two.load_state_dict(converted(ours, kind, lambda t: torch.tensor(t.numpy().copy())))
    assert one.state[mine]["func_evals"] == two.state[other]["func_evals"]


def converted(value, kind, make):
    if isinstance(value, kind):
        return make(value)
    if isinstance(value, dict):
        return {key: converted(item, kind, make) for key, item in value.items()}
    if isinstance(value, list):
        return [converted(item, kind, make) for item in value]
    return value


@pytest.mark.parametrize("options", [{}, {"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}])
def test_muon_against_pytorch(options):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    mine = parameters()
    other = [torch.nn.Parameter(torch.tensor(v)) for v in values(mine)]
    one, two = optim.Muon(mine, lr=0.02, **options), torch.optim.Muon(other, lr=0.02, **options)
    assert one.defaults == two.defaults
    for seed in range(20):
        give_gradients(mine, seed)
        for p, q in zip(mine, other, strict=True):
            q.grad = torch.tensor(p.grad.numpy())
        one.step()
        two.step()
    for p, q in zip(mine, other, strict=True):
        # both orthogonalise in bfloat16, of which each product rounds elsewhere
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), atol=0.02)


def test_a_parameter_that_is_twice_in_a_group():
    p = nn.Parameter(ops.ones(1))
    with pytest.warns(UserWarning, match="more than once"):
        optimizer = optim.SGD([p, p], lr=0.1, momentum=0.9)
    p.grad = ops.ones(1)
    optimizer.step()
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), [0.339], rtol=1e-6)  # PyTorch's

"""Transforms of functions against torch.func and torch.autograd.functional."""

import minidl.autograd.functional  # noqa: F401 - as a program would
import numpy as np
import pytest

import minidl
from minidl import nn

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SIDES = {"minidl": minidl, "torch": torch}
X = np.random.default_rng(0).normal(size=(4, 3))
Y = np.random.default_rng(1).normal(size=(3,))


def tree_numpy(tree):
    if isinstance(tree, dict):
        return {k: tree_numpy(v) for k, v in tree.items()}
    if isinstance(tree, tuple | list):
        return [tree_numpy(v) for v in tree]
    return tree.detach().numpy()


def equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            equal(x, y)
    else:
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def f(t):
    return lambda x: {"a": (x**2).sin().sum(-1), "b": (x.exp(), x.prod())}


def scalar(t):
    return lambda x, y: ((x * y).sin().sum() * y.norm()).tanh()


PROGRAMS = {
    "grad": lambda t, x, y: t.func.grad(scalar(t))(x[0], y),
    "grad of both": lambda t, x, y: t.func.grad(scalar(t), argnums=(0, 1))(x[0], y),
    "grad and value": lambda t, x, y: t.func.grad_and_value(scalar(t))(x[0], y),
    "aux": lambda t, x, y: t.func.grad(lambda a: ((a * y).sum(), {"z": a * 2}), has_aux=True)(x[0]),
    "tree": lambda t, x, y: t.func.grad(lambda d: (d["u"] * d["v"][0]).sum())(
        {"u": y, "v": [x[0]]}
    ),
    "vjp": lambda t, x, y: _vjp(t, x, y),
    "jvp": lambda t, x, y: t.func.jvp(f(t), (x,), (x.cos(),)),
    "jvp of two": lambda t, x, y: t.func.jvp(scalar(t), (x[0], y), (y, x[1])),
    "jacrev": lambda t, x, y: t.func.jacrev(f(t))(x),
    "jacrev of both": lambda t, x, y: t.func.jacrev(lambda a, b: a * b.sum(), (0, 1))(x[0], y),
    "jacfwd": lambda t, x, y: t.func.jacfwd(f(t))(x),
    "jacrev aux": lambda t, x, y: t.func.jacrev(lambda a: (a**2, a), has_aux=True)(y),
    "hessian": lambda t, x, y: t.func.hessian(scalar(t))(x[0], y),
    "hessian of both": lambda t, x, y: t.func.hessian(scalar(t), (0, 1))(x[0], y),
    "grad of grad": lambda t, x, y: t.func.grad(lambda a: t.func.grad(scalar(t))(a, y).sum())(x[0]),
    "vmap": lambda t, x, y: t.vmap(scalar(t), (0, None))(x, y),
    "vmap out": lambda t, x, y: t.vmap(lambda a: (a, a.sum()), out_dims=(1, 0))(x),
    "vmap in": lambda t, x, y: t.vmap(lambda a: a.cumsum(0), in_dims=1, out_dims=1)(x),
    "vmap of grad": lambda t, x, y: t.vmap(t.func.grad(scalar(t)), (0, None))(x, y),
    "vmap of grad of the shared": lambda t, x, y: t.vmap(t.func.grad(scalar(t), 1), (0, None))(
        x, y
    ),
    "vmap of hessian": lambda t, x, y: t.vmap(t.func.hessian(scalar(t)), (0, None))(x, y),
    "vmap of jacrev": lambda t, x, y: t.vmap(t.func.jacrev(f(t)))(x),
    "vmap of jvp": lambda t, x, y: t.vmap(lambda a: t.func.jvp(f(t), (a,), (a,)))(x),
    "jacrev of vmap": lambda t, x, y: t.func.jacrev(t.vmap(lambda a: (a * y).sum()))(x),
    "vmap of vmap": lambda t, x, y: t.vmap(t.vmap(lambda a, b: a @ b, (None, 0)), (0, None))(x, x),
    "chunks": lambda t, x, y: t.vmap(lambda a: a.softmax(0), chunk_size=3)(x),
}


def _vjp(t, x, y):
    out, back = t.func.vjp(lambda a, b: (a * b.sum(), b), x[0], y)
    return out, back((y, y * 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's, of its forward mode
@pytest.mark.parametrize("name", PROGRAMS)
def test_func(name):
    found = {
        side: tree_numpy(PROGRAMS[name](t, t.tensor(X), t.tensor(Y))) for side, t in SIDES.items()
    }
    equal(found["minidl"], found["torch"])


OLDER = {
    "jacobian": lambda a, x, y: a.jacobian(lambda v: v.exp() * v.sum(), y),
    "jacobian of tuples": lambda a, x, y: a.jacobian(lambda u, v: (u * v, u.sum()), (x[0], y)),
    "jacobian of none": lambda a, x, y: a.jacobian(lambda u, v: u * 2, (x[0], y)),
    "hessian": lambda a, x, y: a.hessian(lambda v: (v**3).sum(), y),
    "hessian of two": lambda a, x, y: a.hessian(lambda u, v: (u**2 * v.exp()).sum(), (x[0], y)),
    "vjp": lambda a, x, y: a.vjp(lambda v: v.exp(), y, x[0]),
    "vjp of one number": lambda a, x, y: a.vjp(lambda v: v.exp().sum(), y),
    "jvp": lambda a, x, y: a.jvp(lambda v: v.exp() * v.sum(), y, x[0]),
    "jvp of two": lambda a, x, y: a.jvp(lambda u, v: (u * v, v), (x[0], y), (y, y)),
    "vhp": lambda a, x, y: a.vhp(lambda v: (v**3).sum(), y, x[0]),
    "hvp": lambda a, x, y: a.hvp(lambda u, v: (u**2 * v.exp()).sum(), (x[0], y), (y, x[1])),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", OLDER)
def test_autograd_functional(name, create_graph):
    found = {}
    for side, t in SIDES.items():
        api, x, y = t.autograd.functional, t.tensor(X), t.tensor(Y, requires_grad=create_graph)

        class Graph:
            def __getattr__(self, name, api=api):
                return lambda *args: getattr(api, name)(*args, create_graph=create_graph)

        out = OLDER[name](Graph(), x, y)
        found[side] = [tree_numpy(out)]
        flat = [out]
        while any(isinstance(v, tuple) for v in flat):
            flat = [w for v in flat for w in (v if isinstance(v, tuple) else (v,))]
        tracked = any(v.requires_grad for v in flat)
        assert tracked == create_graph or name == "jacobian of none"
        if create_graph and tracked:
            sum(v.sum() for v in flat).backward()
            found[side].append(np.zeros(3) if y.grad is None else y.grad.numpy())
        elif create_graph:
            found[side].append(np.zeros(3))
    equal(found["minidl"], found["torch"])


def test_a_module_with_other_parameters():
    ours, theirs = nn.Linear(3, 2), torch.nn.Linear(3, 2)
    state = {k: np.random.default_rng(3).normal(size=v.shape) for k, v in ours.state_dict().items()}
    found = []
    for t, module in ((minidl, ours), (torch, theirs)):
        params = {k: t.tensor(v) for k, v in state.items()}

        def loss(p, x, t=t, module=module):
            return t.func.functional_call(module, p, (x,)).square().sum()

        grads = t.vmap(t.func.grad(loss), (None, 0))(params, t.tensor(X))
        found.append(tree_numpy(grads))
    equal(*found)

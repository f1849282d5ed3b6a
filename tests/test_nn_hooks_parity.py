"""Hooks against PyTorch: which are called, in which order, with what, and what they change."""

import importlib
import warnings

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import GradientError, UnsupportedError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
LIBRARIES = (minidl, torch)


def everywhere(library):
    """The module of the hooks for all modules."""
    return importlib.import_module(f"{library.__name__}.nn.modules.module")


def net(library):
    """The same small network in both libraries."""
    n = library.nn
    model = n.Sequential(n.Linear(3, 4), n.Tanh(), n.Linear(4, 2))
    rng = np.random.default_rng(0)
    state = {k: library.tensor(rng.normal(size=v.shape)) for k, v in model.state_dict().items()}
    model.double().load_state_dict(state)
    return model


def batch(library):
    values = np.random.default_rng(1).normal(size=(5, 3))
    return library.tensor(values).requires_grad_()


def agree(run):
    """Run in both libraries; lists of numbers are compared with tolerance, the rest exactly."""
    mine, other = run(minidl), run(torch)
    assert len(mine) == len(other) and len(mine) > 0
    for a, b in zip(mine, other, strict=True):
        if hasattr(a, "tolist"):
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=1e-12, atol=1e-14)
        else:
            assert a == b


def named(module):
    return type(module).__name__


def test_order_of_all_hooks_of_one_call():
    def run(library):
        seen, module, x = [], everywhere(library), batch(library)
        model = net(library)
        first = model[0]

        def note(what, result=None):
            return lambda m, *rest: seen.append((what, named(m), len(rest)))

        handles = [
            module.register_module_forward_pre_hook(note("all pre")),
            module.register_module_forward_hook(note("all forward")),
            module.register_module_forward_hook(note("all with kwargs"), with_kwargs=True),
            module.register_module_full_backward_pre_hook(note("all backward pre")),
            module.register_module_full_backward_hook(note("all backward")),
        ]
        first.register_forward_pre_hook(note("pre"))
        first.register_forward_pre_hook(note("pre kwargs"), with_kwargs=True, prepend=True)
        first.register_forward_hook(note("forward"))
        first.register_forward_hook(note("forward kwargs"), with_kwargs=True, prepend=True)
        first.register_full_backward_pre_hook(note("backward pre"))
        first.register_full_backward_hook(note("backward"))
        first.register_full_backward_hook(note("backward first"), prepend=True)
        try:
            model(x).sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        count = len(seen)
        model(x).sum().backward()
        return [*seen, count, len(seen), x.grad, *(p.grad for p in model.parameters())]

    agree(run)


def test_hooks_of_all_modules_replace_values():
    def run(library):
        module, x, model = everywhere(library), batch(library), net(library)
        with module.register_module_forward_pre_hook(lambda m, args: (args[0] * 2,)):
            a = model(x)
        with module.register_module_forward_hook(lambda m, args, out: out + 1):
            b = model(x)
        with module.register_module_full_backward_hook(lambda m, i, o: tuple(g * 2 for g in i)):
            model(x).sum().backward()
        return [a.detach(), b.detach(), model(x).detach(), x.grad, model[0].weight.grad]

    agree(run)


def test_modules_cost_nothing_once_the_last_hook_of_all_is_gone():
    module = everywhere(minidl)
    layer = nn.Linear(1, 1)
    handles = [module.register_module_forward_hook(print) for _ in range(2)]
    assert layer._hooks is not None
    handles[0].remove()
    assert layer._hooks is not None
    handles[1].remove()
    assert layer._hooks is None and "_hooks" not in layer.__dict__


@pytest.mark.parametrize("place", ["pre hook", "forward", "hook"])
def test_always_call(place):
    def run(library):
        seen, module = [], everywhere(library)

        class Failing(library.nn.Module):
            def forward(self, x):
                if place == "forward":
                    raise KeyError("forward")
                return x

        def fail(*args):
            if place in ("pre hook", "hook"):
                raise KeyError(place)

        model = Failing()
        if place == "pre hook":
            model.register_forward_pre_hook(fail)
        model.register_forward_hook(lambda m, a, out: seen.append(("plain", out is None)))
        model.register_forward_hook(fail)
        model.register_forward_hook(
            lambda m, a, out: seen.append(("always", out is None)) or 3, always_call=True
        )
        model.register_forward_hook(
            lambda m, a, k, out: seen.append(("kwargs", out)), always_call=True, with_kwargs=True
        )
        model.register_forward_hook(lambda m, a, out: 1 / 0, always_call=True)
        model.register_forward_hook(lambda m, a, out: seen.append(("last", out)), always_call=True)
        everyone = module.register_module_forward_hook(
            lambda m, a, out: seen.append(("all", out is None)), always_call=True
        )
        with everyone, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                model(library.ones(1))
            except KeyError as error:
                seen.append(error.args)
        return [*seen, len(warned)]

    agree(run)


def test_registration_hooks():
    def run(library):
        seen, module, n = [], everywhere(library), library.nn

        def note(m, name, value):
            seen.append((named(m), name, value is None))

        handles = [
            module.register_module_parameter_registration_hook(note),
            module.register_module_buffer_registration_hook(note),
            module.register_module_module_registration_hook(note),
            module.register_module_module_registration_hook(
                lambda m, name, value: n.ReLU() if isinstance(value, n.Tanh) else None
            ),
        ]
        try:
            model = n.Sequential(n.Linear(2, 2, bias=False), n.Tanh())
            model.scale = n.Parameter(library.ones(1))
            model.register_buffer("count", library.ones(1))
            model.register_buffer("later", None)
            model.last = n.Tanh()
            model.register_parameter("none", None)
        finally:
            for handle in handles:
                handle.remove()
        model.free = n.Tanh()
        return [*seen, repr(model)]

    agree(run)


def test_state_hooks():
    def run(library):
        seen, model = [], net(library)
        last = model[2]
        model.register_state_dict_pre_hook(lambda m, p, keep: seen.append(("pre", p, keep)))
        last.register_state_dict_pre_hook(lambda m, p, keep: seen.append(("pre", p, keep)))
        last.register_state_dict_post_hook(
            lambda m, state, p, meta: seen.append(("post", p, dict(meta), list(state)))
        )
        last._register_state_dict_hook(
            lambda m, state, p, meta: state.pop(p + "bias") is None or None
        )
        model._register_state_dict_hook(lambda m, state, p, meta: {"all": state})
        state = model.state_dict()
        seen += [list(state), list(state["all"])]

        other = net(library)
        other[2]._register_load_state_dict_pre_hook(
            lambda state, p, *rest: state.update({p + "bias": state[p + "weight"][:, 0]})
        )
        other._register_load_state_dict_pre_hook(
            lambda m, state, *rest: seen.append((named(m), sorted(state), rest[0], rest[2:])),
            with_module=True,
        )
        other.register_load_state_dict_pre_hook(lambda m, *rest: seen.append((named(m), rest[3])))
        other.register_load_state_dict_post_hook(
            lambda m, keys: seen.append((list(keys.missing_keys), list(keys.unexpected_keys)))
        )
        keys = other.load_state_dict(state["all"], strict=False)
        return [*seen, list(keys.missing_keys), other[2].bias.detach()]

    agree(run)


def test_a_public_state_hook_returns_nothing():
    for library in LIBRARIES:
        model = net(library)
        model.register_state_dict_post_hook(lambda m, state, p, meta: state)
        with pytest.raises(RuntimeError, match="None"):
            model.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_hooks_of_tensors():
    def run(library):
        seen = []
        x = library.ones(3).requires_grad_()
        handle = x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        x.register_hook(lambda g: seen.append("first") or g * 3)
        (x * 2).sum().backward()
        library.autograd.grad((x * 2).sum(), x)
        seen.append("no gradient is accumulated")
        (x * 2).sum().backward(inputs=[x])
        (x * x).sum().backward()
        handle.remove()
        (x * 2).sum().backward()
        y = x * 2
        seen += [y.retains_grad, x.retains_grad, library.ones(1).retains_grad]
        y.retain_grad()
        x.retain_grad()
        seen += [y.retains_grad, x.retains_grad]
        return seen

    agree(run)


def test_the_optimiser_steps_inside_the_backward_pass():
    """What the hook is for: no gradient outlives its step."""

    def run(library):
        model, x = net(library), batch(library)
        steps = {p: library.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}

        def step(p):
            steps[p].step()
            steps[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(step)
        losses = []
        for _ in range(3):
            loss = model(x).square().sum()
            loss.backward()
            losses.append(loss.detach())
        assert all(p.grad is None for p in model.parameters())
        return losses

    agree(run)


def test_what_takes_no_post_accumulate_hook():
    for library in LIBRARIES:
        for x in (library.ones(1), library.ones(1).requires_grad_() * 2):
            with pytest.raises(RuntimeError):
                x.register_post_accumulate_grad_hook(print)
    with pytest.raises(GradientError, match="leaf"):
        minidl.ones(1).register_post_accumulate_grad_hook(print)


def test_hooks_of_old_are_refused():
    with pytest.raises(UnsupportedError, match="register_full_backward_hook"):
        nn.Linear(1, 1).register_backward_hook(print)
    with pytest.raises(UnsupportedError, match="register_module_full_backward_hook"):
        everywhere(minidl).register_module_backward_hook(print)

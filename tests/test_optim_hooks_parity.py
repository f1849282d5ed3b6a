"""Hooks, named parameters and copies of optimisers, beside PyTorch's."""

import copy
import pickle
from importlib import import_module

import numpy as np
import pytest

import minidl
from minidl.errors import ArgumentError, DTypeError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
BOTH = pytest.mark.parametrize("lib", [minidl, torch], ids=["minidl", "torch"])


def model(lib):
    net = lib.nn.Linear(3, 2)
    with lib.no_grad():
        net.weight.copy_(lib.arange(6.0).reshape(2, 3))
        net.bias.zero_()
    return net


def give_gradients(lib, net):
    net.zero_grad()
    net(lib.ones(1, 3)).sum().backward()


@BOTH
@pytest.mark.parametrize("name", ["SGD", "Adam", "LBFGS"])
def test_order_and_arguments(lib, name):
    net, told = model(lib), []
    optimizer = getattr(lib.optim, name)(net.parameters(), lr=0.1)
    module = import_module(f"{lib.__name__}.optim.optimizer")

    def say(what):
        def hook(given, args, kwargs):
            assert given is optimizer and args[0] is optimizer
            told.append((what, len(args), sorted(kwargs)))

        return hook

    def closure():
        give_gradients(lib, net)
        return lib.tensor(1.0)

    handles = [
        optimizer.register_step_post_hook(say("after")),
        module.register_optimizer_step_post_hook(say("after any")),
        optimizer.register_step_pre_hook(say("before")),
        module.register_optimizer_step_pre_hook(say("before any")),
    ]
    try:
        optimizer.step(closure)
        assert told == [(w, 2, []) for w in ("before any", "before", "after", "after any")]
        told.clear()
        optimizer.step(closure=closure)
        assert told == [(w, 1, ["closure"]) for w in ("before any", "before", "after", "after any")]
    finally:
        for handle in handles:
            handle.remove()
    told.clear()
    optimizer.step(closure)
    assert told == []


@BOTH
def test_a_hook_changes_the_arguments(lib):
    net, calls = model(lib), []
    optimizer = lib.optim.SGD(net.parameters(), lr=0.1)
    handle = optimizer.register_step_pre_hook(
        lambda o, args, kwargs: ((o, lambda: calls.append(1) or 7), {})
    )
    assert optimizer.step() == 7 and calls == [1]
    handle.remove()
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises((DTypeError, RuntimeError), match="args"):
        optimizer.step()
    assert optimizer.step.__doc__


def test_a_step_within_a_step_runs_hooks_once():
    net, calls = model(minidl), []

    class Twice(minidl.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            return super().step()

    optimizer = Twice(net.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    give_gradients(minidl, net)
    optimizer.step()
    assert calls == [1]
    optimizer.register_step_post_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    with pytest.raises(ZeroDivisionError):  # the first failure has left nothing behind
        optimizer.step()
    assert calls == [1, 1, 1]


@BOTH
def test_states_on_their_way(lib):
    net, told = model(lib), []
    optimizer = lib.optim.Adam(net.parameters(), lr=0.1)
    give_gradients(lib, net)
    optimizer.step()
    optimizer.register_state_dict_pre_hook(lambda o: told.append("pre"))
    optimizer.register_state_dict_pre_hook(lambda o: told.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "more": len(told)})
    state = optimizer.state_dict()
    assert told == ["first", "pre"] and state["more"] == 2

    other = lib.optim.Adam(model(lib).parameters(), lr=0.5)

    def halve(given, state):
        assert given is other and state is not before
        groups = [{**group, "lr": 0.25} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    before = state
    other.register_load_state_dict_pre_hook(halve)
    other.register_load_state_dict_post_hook(lambda o: told.append(o.param_groups[0]["lr"]))
    other.load_state_dict(state)
    assert told[-1] == 0.25 and state["param_groups"][0]["lr"] == 0.1


@BOTH
def test_names_of_parameters(lib):
    net = model(lib)
    optimizer = lib.optim.AdamW(net.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.param_groups[0]["params"][0] is net.weight
    state = optimizer.state_dict()
    assert state["param_groups"][0]["param_names"] == ["weight", "bias"]

    unnamed = lib.optim.AdamW(model(lib).parameters(), lr=0.1)
    unnamed.load_state_dict(state)
    assert unnamed.param_groups[0]["param_names"] == ["weight", "bias"]
    named = lib.optim.AdamW([("w", net.weight), ("b", net.bias)], lr=0.1)
    named.load_state_dict(lib.optim.AdamW(net.parameters()).state_dict())
    assert named.param_groups[0]["param_names"] == ["w", "b"]

    groups = [{"params": [("w", net.weight)]}, {"params": [("b", net.bias)], "lr": 0.5}]
    optimizer = lib.optim.SGD(groups, lr=0.1)
    assert [g["param_names"] for g in optimizer.param_groups] == [["w"], ["b"]]
    with pytest.raises(ValueError, match="names"):
        lib.optim.SGD([("w", net.weight), net.bias], lr=0.1)
    with pytest.raises(ValueError, match="names"):
        lib.optim.SGD([{"params": [("w", net.weight)]}, {"params": [net.bias]}], lr=0.1)


def test_names_are_text():
    net = model(minidl)
    with pytest.raises(DTypeError, match="tensors"):
        minidl.optim.SGD([(net.weight, net.bias)], lr=0.1)
    with pytest.raises(ArgumentError, match="names"):
        minidl.optim.SGD([("a", net.weight), (3, net.bias)], lr=0.1)


@BOTH
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alike_and_without_hooks(lib, copied):
    net = model(lib)
    optimizer = lib.optim.Adam(net.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: 1 / 0)
    give_gradients(lib, net)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    other, twin = copied((net, optimizer))
    assert twin.param_groups[0]["params"][0] is other.weight is not net.weight
    assert set(map(id, twin.state)) == set(map(id, other.parameters()))
    give_gradients(lib, other)
    twin.step()
    give_gradients(lib, net)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    one, two = (n.weight.detach().numpy() for n in (net, other))
    np.testing.assert_array_equal(one, two)
    assert twin.register_step_post_hook(lambda *_: None)

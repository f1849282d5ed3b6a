"""Pruning against PyTorch: masks, outputs, gradients, states."""

import numpy as np
import pytest

import minidl
import minidl.nn.utils.prune as own
from minidl import nn, ops

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
import torch.nn.utils.prune as reference  # noqa: E402 - after the skip

PAIRS = ((minidl, own), (torch, reference))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(mine, other):
    np.testing.assert_allclose(
        mine.detach().numpy(), other.detach().numpy(), rtol=1e-12, atol=1e-12
    )


def model(library):
    n = library.nn
    net = n.Sequential(n.Linear(6, 8), n.ReLU(), n.Linear(8, 4)).double()
    for i, parameter in enumerate(net.parameters()):
        parameter.data = library.tensor(normal(*parameter.shape, seed=i))
    return net


def step(net, library):
    """The output and all gradients of one step."""
    net(library.tensor(normal(5, 6))).square().sum().backward()
    return [p.grad for p in net.parameters()]


SCORES = normal(8, 6, seed=7)
RULES = {
    "identity": lambda p, net, t: p.identity(net[0], "weight"),
    "l1 share": lambda p, net, t: p.l1_unstructured(net[0], "weight", 0.3),
    "l1 count": lambda p, net, t: p.l1_unstructured(net[0], "weight", 7),
    "l1 none": lambda p, net, t: p.l1_unstructured(net[0], "weight", 0),
    "l1 all": lambda p, net, t: p.l1_unstructured(net[0], "weight", 1.0),
    "l1 scores": lambda p, net, t: p.l1_unstructured(
        net[0], "weight", 0.5, importance_scores=t(SCORES)
    ),
    "l1 bias": lambda p, net, t: p.l1_unstructured(net[2], "bias", 0.5),
    "ln rows": lambda p, net, t: p.ln_structured(net[0], "weight", 0.4, n=2, dim=0),
    "ln columns": lambda p, net, t: p.ln_structured(net[0], "weight", 2, n=1, dim=1),
    "ln last": lambda p, net, t: p.ln_structured(net[0], "weight", 2, n=float("inf"), dim=-1),
    "ln scores": lambda p, net, t: p.ln_structured(
        net[0], "weight", 2, n=2, dim=0, importance_scores=t(SCORES)
    ),
    "mask": lambda p, net, t: p.custom_from_mask(net[0], "weight", t(SCORES > 0)),
    "global": lambda p, net, t: p.global_unstructured(
        [(net[0], "weight"), (net[2], "weight"), (net[2], "bias")], p.L1Unstructured, amount=0.4
    ),
    "global scores": lambda p, net, t: p.global_unstructured(
        [(net[0], "weight"), (net[2], "weight")],
        p.L1Unstructured,
        importance_scores={(net[0], "weight"): t(SCORES)},
        amount=9,
    ),
}


@pytest.mark.parametrize(
    "names",
    [[name] for name in RULES]
    + [["l1 share", "l1 count"], ["l1 share", "ln rows"], ["ln rows", "ln columns"]]
    + [["ln rows", "ln rows"], ["mask", "l1 share", "ln last"], ["global", "global"]]
    + [["l1 bias", "global"], ["identity", "l1 count", "mask"]],
    ids=", then ".join,
)
def test_rules(names):
    nets = []
    for library, prune in PAIRS:
        net = model(library)
        for name in names:
            RULES[name](prune, net, library.tensor)
        nets.append(net)
    ours, theirs = nets
    assert repr(ours) == repr(theirs)
    assert own.is_pruned(ours) and reference.is_pruned(theirs)
    state, other = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(other)
    for key in state:
        close(state[key], other[key])
    for a, b in zip(step(ours, minidl), step(theirs, torch), strict=True):
        close(a, b)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in state.items()})
    ours.load_state_dict({k: ops.tensor(v.numpy()) for k, v in other.items()})
    for net, prune in ((ours, own), (theirs, reference)):
        for module, name in ((net[0], "weight"), (net[2], "weight"), (net[2], "bias")):
            if hasattr(module, f"{name}_mask"):
                original = getattr(module, f"{name}_orig")
                prune.remove(module, name)
                assert getattr(module, name) is original
        assert not prune.is_pruned(net)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in ours.state_dict().items():
        close(value, theirs.state_dict()[key])


@pytest.mark.parametrize("amount", [0, 5, 0.25, 1.0])
def test_random_rules_take_the_right_number(amount):
    for library, prune in PAIRS:
        layer = library.nn.Linear(6, 8)
        prune.random_unstructured(layer, "weight", amount)
        zeros = int((layer.weight_mask == 0).sum())
        assert zeros == (amount if isinstance(amount, int) else round(amount * 48))
        for dim, size in ((0, 8), (1, 6), (-1, 6)):
            layer = library.nn.Linear(6, 8)
            prune.random_structured(layer, "weight", amount, dim)
            mask = layer.weight_mask.numpy()
            whole = mask.max(axis=1 if dim == 0 else 0)
            assert (mask == (whole[:, None] if dim == 0 else whole)).all()
            assert (whole == 0).sum() == (
                amount if isinstance(amount, int) else round(amount * size)
            )


def test_random_rules_follow_the_generator():
    masks = []
    for _ in range(2):
        minidl.manual_seed(5)
        layer = own.random_unstructured(nn.Linear(20, 20), "weight", 0.5)
        masks.append(layer.weight_mask.tolist())
    assert masks[0] == masks[1]


def test_containers_and_tensors_without_a_module():
    results = []
    for library, prune in PAIRS:
        t = library.tensor(normal(8, 6))
        rule = prune.L1Unstructured(amount=0.5)
        pruned = rule.prune(t, default_mask=library.tensor((SCORES > 0).astype(float)))
        net = model(library)
        prune.l1_unstructured(net[0], "weight", 0.2)
        prune.ln_structured(net[0], "weight", 0.2, 2, 0)
        (hook,) = (
            (h for h in net[0]._hooks.forward_pre.values())
            if library is minidl
            else net[0]._forward_pre_hooks.values()
        )
        hook = hook.run if library is minidl else hook
        kinds = [type(rule).__name__ for rule in hook]
        results.append((pruned, type(hook).__name__, len(hook), kinds, type(hook[0]).__name__))
        with pytest.raises(TypeError):
            hook.add_pruning_method(3)
        other = prune.L1Unstructured(amount=1)
        other._tensor_name = "bias"
        with pytest.raises(ValueError):
            hook.add_pruning_method(other)
    close(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


def test_what_is_refused_changes_nothing():
    calls = [
        (TypeError, lambda p, n: p.l1_unstructured(n, "weight", "much")),
        (ValueError, lambda p, n: p.l1_unstructured(n, "weight", -1)),
        (ValueError, lambda p, n: p.l1_unstructured(n, "weight", 1.5)),
        (ValueError, lambda p, n: p.l1_unstructured(n, "weight", 49)),
        (ValueError, lambda p, n: p.ln_structured(n, "bias", 1, 2, 0)),
        (IndexError, lambda p, n: p.ln_structured(n, "weight", 1, 2, 5)),
        (AttributeError, lambda p, n: p.l1_unstructured(n, "none", 1)),
        (ValueError, lambda p, n: p.remove(n, "weight")),
        (
            TypeError,
            lambda p, n: p.global_unstructured([(n, "weight")], p.LnStructured, amount=1, n=2),
        ),
    ]
    for library, prune in PAIRS:
        for error, call in calls:
            layer = library.nn.Linear(6, 8)
            with pytest.raises(error):
                call(prune, layer)
            assert sorted(layer.state_dict()) == ["bias", "weight"]
            assert not prune.is_pruned(layer)


def test_a_rule_of_ones_own():
    results = []
    for library, prune in PAIRS:

        class EveryOther(prune.BasePruningMethod):
            PRUNING_TYPE = "unstructured"

            def compute_mask(self, t, default_mask):
                mask = default_mask.clone()
                mask.view(-1)[::2] = 0
                return mask

        net = model(library)
        EveryOther.apply(net[0], "weight")
        EveryOther.apply(net[0], "weight")
        results.append(net[0].weight)
    close(*results)


def test_a_pruned_layer_is_not_fused():
    """The fused kernels read the weight that the hook computes, also after it was loaded anew."""
    net = model(minidl)
    own.l1_unstructured(net[0], "weight", 0.5)
    with minidl.no_grad():
        net[0].weight_orig.mul_(2)
    x = ops.tensor(normal(5, 6))
    first = (net[0].weight_orig * net[0].weight_mask).detach()
    expected = net[2](nn.functional.linear(x, first, net[0].bias).relu())
    close(net(x), expected)

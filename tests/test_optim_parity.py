"""Optimisers and schedules against PyTorch: parameters, state and rates."""

import numpy as np
import pytest

import minidl.ops as ops
from minidl import nn, optim

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.05}),
    "sgd decay": ("SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "sgd dampened": ("SGD", {"lr": 0.05, "momentum": 0.8, "dampening": 0.3}),
    "sgd nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd maximize": ("SGD", {"lr": 0.05, "momentum": 0.9, "maximize": True}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-6}),
    "adam amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adam maximize": ("Adam", {"lr": 0.01, "maximize": True}),
    "adam decoupled": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw amsgrad": ("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.3}),
    "adamw maximize": ("AdamW", {"lr": 0.01, "maximize": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop decay": ("RMSprop", {"lr": 0.01, "weight_decay": 0.1, "alpha": 0.9, "eps": 1e-6}),
    "rmsprop momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.9, "maximize": True}),
    "rmsprop centred": ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "adagrad": ("Adagrad", {"lr": 0.05}),
    "adagrad decay": ("Adagrad", {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1}),
    "adagrad start": ("Adagrad", {"initial_accumulator_value": 0.5, "maximize": True}),
    "adadelta": ("Adadelta", {}),
    "adadelta decay": ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1, "maximize": True}),
    "adamax": ("Adamax", {}),
    "adamax decay": ("Adamax", {"betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    "nadam": ("NAdam", {"lr": 0.01}),
    "nadam decay": ("NAdam", {"weight_decay": 0.1, "momentum_decay": 0.01, "maximize": True}),
    "nadam decoupled": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "radam": ("RAdam", {"lr": 0.01}),
    "radam decay": ("RAdam", {"betas": (0.7, 0.9), "weight_decay": 0.1, "maximize": True}),
    "radam decoupled": ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "asgd": ("ASGD", {}),
    "asgd mean": ("ASGD", {"lr": 0.1, "t0": 5, "lambd": 0.01, "weight_decay": 0.1}),
    "rprop": ("Rprop", {}),
    "rprop limits": ("Rprop", {"etas": (0.4, 1.5), "step_sizes": (1e-3, 0.02), "maximize": True}),
    "adafactor": ("Adafactor", {}),
    "adafactor decay": (
        "Adafactor",
        {"lr": 0.1, "eps": (1e-6, 1e-2), "d": 1.5, "weight_decay": 0.1, "maximize": True},
    ),
}
SHAPES = [(4, 3), (5,), (), (2, 3, 2)]


def twins(seed: int, dtype=np.float64):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    ours = [nn.Parameter(ops.tensor(a)) for a in arrays]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    return ours, theirs


def step(ours, theirs, pair, rng):
    for p, q in zip(ours, theirs, strict=True):
        g = rng.normal(size=tuple(p.shape)).astype(q.detach().numpy().dtype)
        p.grad, q.grad = ops.tensor(g), torch.tensor(g)
    for optimizer in pair:
        optimizer.step()


def check(ours, theirs, rtol):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_twenty_steps(name, dtype, rtol):
    kind, options = OPTIMIZERS[name]
    ours, theirs = twins(0, dtype)
    pair = [getattr(optim, kind)(ours, **options), getattr(torch.optim, kind)(theirs, **options)]
    assert pair[0].defaults == pair[1].defaults
    rng = np.random.default_rng(1)
    for _ in range(20):
        step(ours, theirs, pair, rng)
    check(ours, theirs, rtol)
    for optimizer in pair:
        optimizer.add_param_group({"params": [], "lr": 0.5})
    assert repr(pair[0]) == repr(pair[1])
    mine, other = (optimizer.state_dict() for optimizer in pair)
    assert mine["param_groups"] == other["param_groups"]
    assert {i: list(s) for i, s in mine["state"].items()} == {
        i: list(s) for i, s in other["state"].items() if s and None not in s.values()
    }
    for index, values in mine["state"].items():
        for key, value in values.items():
            reference = other["state"][index][key].numpy()
            np.testing.assert_allclose(value.numpy(), reference, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n not in ("sgd", "sgd decay")])
def test_state_goes_over_and_back(name):
    kind, options = OPTIMIZERS[name]
    ours, theirs = twins(2)
    pair = [getattr(optim, kind)(ours, **options), getattr(torch.optim, kind)(theirs, **options)]
    rng = np.random.default_rng(3)
    for _ in range(5):
        step(ours, theirs, pair, rng)

    def convert(state, make):
        return {
            "state": {
                i: {k: make(v.numpy()) for k, v in values.items()}
                for i, values in state["state"].items()
            },
            "param_groups": state["param_groups"],
        }

    mine = getattr(optim, kind)(ours, **options)
    mine.load_state_dict(convert(pair[1].state_dict(), lambda a: ops.tensor(a.copy())))
    other = getattr(torch.optim, kind)(theirs, **options)
    other.load_state_dict(convert(pair[0].state_dict(), lambda a: torch.tensor(a.copy())))
    for _ in range(5):
        step(ours, theirs, [mine, other], rng)
    check(ours, theirs, 1e-12)


def _sequence(api, optimizer):
    linear = api.LinearLR(optimizer, start_factor=0.1, total_iters=10)
    cosine = api.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.01)
    return api.SequentialLR(optimizer, [linear, cosine], milestones=[10])


SCHEDULES = {
    "lambda": lambda api, o: api.LambdaLR(o, lambda t: 0.95**t),
    "lambdas": lambda api, o: api.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    "linear": lambda api, o: api.LinearLR(o, 0.2, 0.7, total_iters=15),
    "step": lambda api, o: api.StepLR(o, 7, gamma=0.5),
    "step of a float": lambda api, o: api.StepLR(o, 3.0, gamma=0.5),
    "milestones": lambda api, o: api.MultiStepLR(o, [5, 20, 20, 41], gamma=0.3),
    "exponential": lambda api, o: api.ExponentialLR(o, 0.93),
    "constant": lambda api, o: api.ConstantLR(o, factor=0.3, total_iters=9),
    "warm-up, then steps": lambda api, o: api.SequentialLR(
        o, [api.ConstantLR(o), api.StepLR(o, 5), api.ExponentialLR(o, 0.9)], milestones=[6, 20]
    ),
    "linear default": lambda api, o: api.LinearLR(o),
    "cosine": lambda api, o: api.CosineAnnealingLR(o, T_max=13, eta_min=0.05),
    "cosine odd": lambda api, o: api.CosineAnnealingLR(o, T_max=1),
    "sequence": _sequence,
    "three": lambda api, o: api.SequentialLR(
        o,
        [api.LinearLR(o, 0.5, total_iters=4), api.LambdaLR(o, lambda t: 0.9**t), api.LinearLR(o)],
        milestones=[7, 30],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_sixty_rates(name):
    ours, theirs = twins(4)
    mine = optim.SGD([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.3}], lr=0.1)
    other = torch.optim.SGD([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.3}], lr=0.1)
    schedule = SCHEDULES[name](optim.lr_scheduler, mine)
    reference = SCHEDULES[name](torch.optim.lr_scheduler, other)
    for _ in range(60):
        rates = [group["lr"] for group in mine.param_groups]
        assert rates == [group["lr"] for group in other.param_groups]
        assert schedule.get_last_lr() == rates
        mine.step()
        other.step()
        schedule.step()
        reference.step()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("CosineAnnealingLR", [20]),
        ("LinearLR", [0.2, 0.9, 30]),
        ("StepLR", [3]),
        ("MultiStepLR", [[2, 5, 9]]),
        ("ExponentialLR", [0.9]),
        ("ConstantLR", [0.5, 8]),
    ],
)
def test_jumping_to_a_step_uses_the_closed_form(kind, options):
    ours, theirs = twins(5)
    mine, other = optim.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1)
    schedule = getattr(optim.lr_scheduler, kind)(mine, *options)
    reference = getattr(torch.optim.lr_scheduler, kind)(other, *options)
    mine.step()
    other.step()
    schedule.step(7)
    with pytest.warns(UserWarning, match="epoch"):
        reference.step(7)
    assert schedule.get_last_lr() == reference.get_last_lr()


@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf"), 3])
@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clip_grad_norm(norm_type, max_norm):
    ours, theirs = twins(6, np.float32)
    rng = np.random.default_rng(7)
    for p, q in zip(ours, theirs, strict=True):
        g = rng.normal(size=tuple(p.shape)).astype(np.float32)
        p.grad, q.grad = ops.tensor(g), torch.tensor(g)
    total = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
    reference = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert total.item() == pytest.approx(reference.item(), rel=1e-6)
    check([p.grad for p in ours], [q.grad for q in theirs], 1e-6)

"""Cyclic, composed and measured schedules, and averages of models, against PyTorch."""

import numpy as np
import pytest

import minidl.ops as ops
from minidl import nn, optim
from minidl.errors import ArgumentError, MinidlError
from minidl.optim import swa_utils

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SCHEDULES = {
    "multiplicative": lambda api, o: api.MultiplicativeLR(o, lambda t: 0.97),
    "multiplicatives": lambda api, o: api.MultiplicativeLR(
        o, [lambda t: 0.9, lambda t: 1 - t / 99]
    ),
    "polynomial": lambda api, o: api.PolynomialLR(o, total_iters=30, power=2.0),
    "polynomial default": lambda api, o: api.PolynomialLR(o),
    "restarts": lambda api, o: api.CosineAnnealingWarmRestarts(o, 7),
    "longer restarts": lambda api, o: api.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=0.01),
    "cyclic": lambda api, o: api.CyclicLR(o, 0.01, 0.2, 5),
    "cyclic 2": lambda api, o: api.CyclicLR(o, [0.01, 0.02], [0.2, 0.3], 4, 7, mode="triangular2"),
    "cyclic exp": lambda api, o: api.CyclicLR(o, 0.01, 0.2, 5, mode="exp_range", gamma=0.97),
    "cyclic own": lambda api, o: api.CyclicLR(
        o, 0.01, 0.2, 5, scale_fn=lambda x: 1 / x, scale_mode="cycle", base_momentum=0.5
    ),
    "cyclic alone": lambda api, o: api.CyclicLR(o, 0.01, 0.2, 9, cycle_momentum=False),
    "one cycle": lambda api, o: api.OneCycleLR(o, 0.5, total_steps=61),
    "one cycle linear": lambda api, o: api.OneCycleLR(
        o, [0.5, 1.0], epochs=7, steps_per_epoch=9, anneal_strategy="linear", pct_start=0.5
    ),
    "one cycle in three": lambda api, o: api.OneCycleLR(
        o, 0.5, total_steps=61, three_phase=True, div_factor=5, final_div_factor=100.0
    ),
    "one cycle alone": lambda api, o: api.OneCycleLR(o, 0.5, total_steps=70, cycle_momentum=False),
    "chained": lambda api, o: api.ChainedScheduler(
        [api.ConstantLR(o, 0.1, total_iters=4), api.ExponentialLR(o, 0.95), api.StepLR(o, 9)]
    ),
    "swa": lambda api, o: _swalr(api, o, 0.01),
    "swa linear": lambda api, o: _swalr(
        api, o, [0.01, 0.3], anneal_epochs=4, anneal_strategy="linear"
    ),
    "swa at once": lambda api, o: _swalr(api, o, 0.05, anneal_epochs=0),
}
KINDS = {"SGD": {"momentum": 0.9}, "AdamW": {}}


def _swalr(api, optimizer, *args, **options):
    module = torch.optim.swa_utils if api is torch.optim.lr_scheduler else swa_utils
    return module.SWALR(optimizer, *args, **options)


def pair(kind):
    found = []
    for api, make in ((optim, lambda: nn.Parameter(ops.ones(2))),
                      (torch.optim, lambda: torch.nn.Parameter(torch.ones(2)))):  # fmt: skip
        groups = [{"params": [make()]}, {"params": [make()], "lr": 0.3}]
        found.append(getattr(api, kind)(groups, lr=0.1, **KINDS[kind]))
    return found


def groups(optimizer):
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_sixty_rates(name, kind):
    mine, other = pair(kind)
    schedule = SCHEDULES[name](optim.lr_scheduler, mine)
    reference = SCHEDULES[name](torch.optim.lr_scheduler, other)
    for count in range(60):
        assert groups(mine) == groups(other)
        assert schedule.get_last_lr() == reference.get_last_lr()
        for thing in (mine, other, schedule, reference):
            thing.step()
        if count == 25:  # each goes on from the other's state
            states = schedule.state_dict(), reference.state_dict()
            ours = {k: v for k, v in states[1].items() if k in states[0]}
            assert set(states[0]) <= set(states[1]) | {"_is_initial"}
            schedule.load_state_dict(ours)
            if "_schedulers" not in states[0]:
                reference.load_state_dict({**states[1], **states[0]})


PLATEAUS = [
    {},
    {"mode": "max", "factor": 0.5, "patience": 2},
    {"patience": 1, "cooldown": 3, "threshold": 0.05, "threshold_mode": "abs"},
    {"mode": "max", "patience": 0, "threshold_mode": "abs", "min_lr": [0.02, 0.1]},
    {"patience": 0, "min_lr": 0.05, "eps": 1e-3},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_plateau(options):
    mine, other = pair("SGD")
    schedule = optim.lr_scheduler.ReduceLROnPlateau(mine, **options)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    measures = np.abs(np.random.default_rng(0).normal(size=60)).cumsum()[::-1] / 60
    for count, measure in enumerate(measures.repeat(2)[:60]):
        mine.step()
        other.step()
        schedule.step(ops.tensor(measure))
        reference.step(measure)
        assert groups(mine) == groups(other)
        assert schedule.in_cooldown == reference.in_cooldown
        if count == 30:
            assert schedule.state_dict() == reference.state_dict()
            schedule.load_state_dict(reference.state_dict())


def test_restarts_jump_to_fractions():
    mine, other = pair("SGD")
    schedule = optim.lr_scheduler.CosineAnnealingWarmRestarts(mine, 4, 2)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(other, 4, 2)
    for epoch in (0.5, 3.9, 4.0, 11.5, 12, 2, 40.25):
        schedule.step(epoch)
        reference.step(epoch)
        assert schedule.get_last_lr() == reference.get_last_lr()


WRONG = [
    lambda api, o: api.CosineAnnealingWarmRestarts(o, 0),
    lambda api, o: api.CosineAnnealingWarmRestarts(o, 3, 1.5),
    lambda api, o: api.CyclicLR(o, 0.1, 0.2, mode="square"),
    lambda api, o: api.CyclicLR(o, [0.1], 0.2),
    lambda api, o: api.OneCycleLR(o, 0.1),
    lambda api, o: api.OneCycleLR(o, 0.1, total_steps=0),
    lambda api, o: api.OneCycleLR(o, 0.1, total_steps=9, pct_start=2.0),
    lambda api, o: api.OneCycleLR(o, 0.1, total_steps=9, anneal_strategy="square"),
    lambda api, o: api.ReduceLROnPlateau(o, factor=1.0),
    lambda api, o: api.ReduceLROnPlateau(o, mode="least"),
    lambda api, o: api.ReduceLROnPlateau(o, min_lr=[0.1]),
    lambda api, o: api.ChainedScheduler([]),
    lambda api, o: api.ChainedScheduler([api.ReduceLROnPlateau(o)]),
    lambda api, o: _swalr(api, o, 0.1, anneal_epochs=-1),
    lambda api, o: _swalr(api, o, 0.1, anneal_strategy="square"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments_are_refused_and_change_nothing(number):
    mine, other = pair("SGD")
    before = groups(mine)
    with pytest.raises(ArgumentError):
        WRONG[number](optim.lr_scheduler, mine)
    assert groups(mine) == before
    with pytest.raises((ValueError, TypeError)):
        WRONG[number](torch.optim.lr_scheduler, other)


def test_a_chain_may_begin_a_sequence():
    """PyTorch takes the chain's step 0 for a step 1, so there is nothing to compare with."""
    (mine, _), api = pair("SGD"), optim.lr_scheduler
    chain = api.ChainedScheduler([api.ConstantLR(mine, 0.5, 3), api.ExponentialLR(mine, 0.9)])
    schedule = api.SequentialLR(mine, [chain, api.StepLR(mine, 2, 0.5)], milestones=[5])
    found = []
    for _ in range(9):
        found.append(mine.param_groups[0]["lr"])
        mine.step()
        schedule.step()
    expected = [0.1 * 0.9**t * (0.5 if t < 3 else 1) for t in range(5)]
    np.testing.assert_allclose(found[:5], expected)
    assert found[7] == found[6] / 2


def test_cycling_needs_momentum():
    optimizer = optim.Adagrad([nn.Parameter(ops.ones(2))])
    with pytest.raises(ArgumentError, match="momentum"):
        optim.lr_scheduler.CyclicLR(optimizer, 0.1, 0.2)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3, cycle_momentum=False)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    with pytest.raises(MinidlError, match="3 steps"):
        schedule.step()


# ---------------------------------------------------------------- averages


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("seen", ops.zeros(2))
        self.register_buffer("count", ops.tensor(0.0))


class TorchBuffered(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0.0))


AVERAGES = {
    "mean": lambda swa: {},
    "mean of lists": lambda swa: {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
    "mean of each": lambda swa: {"avg_fn": swa.get_swa_avg_fn()},
    "exponential": lambda swa: {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.9)},
    "exponential of each": lambda swa: {"avg_fn": swa.get_ema_avg_fn(0.8)},
}


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name, use_buffers):
    mine, other = Buffered(), TorchBuffered()
    average = swa_utils.AveragedModel(mine, use_buffers=use_buffers, **AVERAGES[name](swa_utils))
    reference = torch.optim.swa_utils.AveragedModel(
        other, use_buffers=use_buffers, **AVERAGES[name](torch.optim.swa_utils)
    )
    rng = np.random.default_rng(0)
    for step in range(6):
        state = {
            "layer.weight": rng.normal(size=(2, 3)).astype("f4"),
            "layer.bias": rng.normal(size=2).astype("f4"),
            "seen": rng.normal(size=2).astype("f4"),
            "count": np.array(10 * step, "f4"),
        }
        mine.load_state_dict({k: ops.tensor(v) for k, v in state.items()})
        other.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        average.update_parameters(mine)
        reference.update_parameters(other)
        ours, theirs = average.state_dict(), reference.state_dict()
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key].numpy(), value.numpy(), atol=1e-6, err_msg=key)
        if step == 3:
            average.load_state_dict({k: ops.tensor(v.numpy()) for k, v in theirs.items()})
    assert average.module.layer.weight is not mine.layer.weight


def test_averages_refuse_another_model():
    average = swa_utils.AveragedModel(nn.Linear(3, 2))
    with pytest.raises(ArgumentError, match="shapes"):
        average.update_parameters(nn.Linear(2, 2))
    assert average.n_averaged.item() == 0
    with pytest.raises(ArgumentError, match="exclude"):
        swa_utils.AveragedModel(nn.Linear(3, 2), avg_fn=min, multi_avg_fn=max)
    with pytest.raises(ArgumentError, match="decay"):
        swa_utils.get_ema_avg_fn(1.5)
    assert average(ops.ones(1, 3)).shape == (1, 2)


def test_update_bn_leaves_models_without_statistics_alone():
    model = nn.Linear(2, 2)
    swa_utils.update_bn([ops.ones(1, 2)], model)
    assert model.training

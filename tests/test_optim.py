"""Optimisers and schedules: checks, state, and what a step does where no torch is needed."""

import copy
import math

import numpy as np
import pytest

import minidl.ops as ops
from minidl import dtypes, nn, optim
from minidl.autograd import no_grad
from minidl.backends import kernels_for
from minidl.optim import lr_scheduler
from minidl.tensor import Tensor

MAKERS = {
    "sgd": lambda p, **o: optim.SGD(p, lr=0.1, **o),
    "momentum": lambda p, **o: optim.SGD(p, lr=0.1, momentum=0.9, **o),
    "adam": lambda p, **o: optim.Adam(p, lr=0.1, **o),
    "amsgrad": lambda p, **o: optim.Adam(p, lr=0.1, amsgrad=True, **o),
    "adamw": lambda p, **o: optim.AdamW(p, lr=0.1, **o),
}


def parameters(seed: int = 0, dtype=dtypes.float64) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    shapes = [(3, 4), (5,), (), (0, 2)]
    return [nn.Parameter(ops.tensor(rng.normal(size=s)).to(dtype)) for s in shapes]


def descend(params: list[Tensor], optimizer: optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p * p).sum() for p in params).backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_steps_go_downhill(name):
    params = parameters()
    before = sum(float((p * p).sum()) for p in params)
    descend(params, MAKERS[name](params), 100)
    assert sum(float((p * p).sum()) for p in params) < 0.05 * before


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", dtypes.FLOATS)
def test_parameters_keep_identity_storage_and_dtype(name, dtype):
    params = parameters(dtype=dtype)
    storages = [p.storage for p in params]
    versions = [s.version for s in storages]
    descend(params, MAKERS[name](params), 2)
    assert [p.storage for p in params] == storages
    assert all(p.dtype is dtype for p in params)
    assert all(s.version > v for s, v in zip(storages, versions, strict=True))


def test_one_kernel_call_steps_all_parameters(monkeypatch):
    params = parameters()
    k = kernels_for(params[0].detach().numpy())
    calls = []
    for entry in ("sgd_step", "adam_step"):
        real = getattr(k, entry)
        monkeypatch.setattr(
            k, entry, lambda *a, real=real, entry=entry, **o: calls.append(entry) or real(*a, **o)
        )
    for maker in MAKERS.values():
        descend(params, maker(params), 1)
    assert calls == ["sgd_step"] * 2 + ["adam_step"] * 3


def test_backward_after_a_step_notices_the_write():
    w = nn.Parameter(ops.ones((2, 2)))
    x = ops.ones((1, 2)).requires_grad_()
    loss = (x @ w).sum()
    w.grad = ops.ones((2, 2))
    optim.SGD([w], lr=0.1).step()
    with pytest.raises(RuntimeError, match="matmul"):
        loss.backward()


def test_parameters_without_gradient_are_left_alone():
    used, unused = parameters()[:2]
    before = unused.detach().clone()
    optimizer = optim.Adam([used, unused])
    used.grad = ops.ones_like(used)
    optimizer.step()
    assert np.array_equal(unused.detach().numpy(), before.numpy())
    assert unused not in optimizer.state and used in optimizer.state


def test_closure_is_run_with_gradients_on():
    w = nn.Parameter(ops.ones((1,)))
    optimizer = optim.SGD([w], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with no_grad():
        assert optimizer.step(closure).item() == 1.0
    assert w.item() == 0.0


def test_zero_grad():
    (w, *_) = parameters()
    optimizer = optim.SGD([w], lr=0.1)
    w.grad = grad = ops.ones_like(w)
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is grad and not grad.numpy().any()
    optimizer.zero_grad()
    assert w.grad is None


def test_groups_have_options_of_their_own():
    a, b = parameters()[:2]
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.0}], lr=0.1)
    optimizer.add_param_group({"params": parameters(1)[0], "momentum": 0.5})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.0, 0.1]
    assert [g["momentum"] for g in optimizer.param_groups] == [0, 0, 0.5]
    before = b.detach().clone()
    a.grad, b.grad = ops.ones_like(a), ops.ones_like(b)
    optimizer.step()
    assert np.array_equal(b.detach().numpy(), before.numpy())
    assert "lr: 0.1" in repr(optimizer) and "Parameter Group 2" in repr(optimizer)


# State -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_restored_optimizer_goes_on_bit_for_bit(name):
    straight, broken = parameters(), parameters()
    first = MAKERS[name](straight)
    descend(straight, first, 9)
    second = MAKERS[name](broken)
    descend(broken, second, 4)
    state = copy.deepcopy(second.state_dict())
    third = MAKERS[name](broken)
    third.load_state_dict(state)
    third_state = third.state_dict()["state"]
    for index, values in state["state"].items():
        for key, value in values.items():
            assert value.storage is not third_state[index][key].storage, key
    descend(broken, third, 5)
    for a, b in zip(straight, broken, strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_state_dict_layout():
    params = parameters()
    optimizer = optim.AdamW([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}])
    descend(params, optimizer, 3)
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2, 3]]
    assert [group["lr"] for group in state["param_groups"]] == [1e-3, 0.5]
    assert sorted(state["state"]) == [0, 1, 2, 3]
    assert list(state["state"][0]) == ["step", "exp_avg", "exp_avg_sq"]
    assert state["state"][0]["step"].item() == 3.0
    assert state["state"][0]["exp_avg"].shape == (3, 4)


def test_state_that_does_not_fit_is_refused():
    params = parameters()
    optimizer = optim.Adam(params)
    descend(params, optimizer, 1)
    with pytest.raises(ValueError, match=r"\[3\].*\[4\]"):
        optim.Adam(parameters()[:3]).load_state_dict(optimizer.state_dict())
    with pytest.raises(RuntimeError, match=r"exp_avg.*\(5,\).*\(3, 4\)"):
        optim.Adam(params[1:2]).load_state_dict(
            {
                "state": {0: optimizer.state_dict()["state"][0]},
                "param_groups": [{"params": [0]}],
            }
        )
    momentum = optim.SGD(params, lr=0.1, momentum=0.9)
    descend(params, momentum, 1)
    other, groups = optim.Adam(parameters(), lr=0.5), optimizer.state_dict()["param_groups"]
    for state, rule in [
        (None, 'dictionary with "state"'),
        (nn.Linear(2, 2).state_dict(), 'dictionary with "state"'),
        ({"state": {9: {}}, "param_groups": groups}, "in no group, got 9"),
        (momentum.state_dict(), "must have step, exp_avg"),
    ]:
        with pytest.raises((TypeError, ValueError), match=rule):
            other.load_state_dict(state)
        assert other.param_groups[0]["lr"] == 0.5 and not other.state


def test_state_loads_from_numpy():
    params = parameters()
    optimizer = optim.Adam(params)
    descend(params, optimizer, 2)
    state = optimizer.state_dict()
    for values in state["state"].values():
        values.update({key: value.numpy() for key, value in values.items()})
    again = parameters()
    for mine, stepped in zip(again, params, strict=True):
        mine.data = stepped.detach().clone()
    other = optim.Adam(again)
    other.load_state_dict(state)
    descend(params, optimizer, 2)
    descend(again, other, 2)
    assert all(a.tolist() == b.tolist() for a, b in zip(again, params, strict=True))


def test_state_follows_the_dtype_of_the_parameters():
    params = parameters()
    optimizer = optim.Adam(params)
    descend(params, optimizer, 2)
    narrow = parameters(dtype=dtypes.float32)
    other = optim.Adam(narrow)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[narrow[0]]["exp_avg"].dtype is dtypes.float32
    assert other.state[narrow[0]]["step"].item() == 2.0
    state = optimizer.state_dict()
    for values in state["state"].values():
        values["step"] = 2
    other.load_state_dict(state)
    descend(narrow, other, 1)
    assert other.state[narrow[0]]["step"].item() == 3.0


# Bad arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: optim.SGD(p, lr=-1), "lr must not be negative, got -1"),
        (lambda p: optim.SGD(p, momentum=-0.1), "momentum"),
        (lambda p: optim.SGD(p, weight_decay=-0.1), "weight_decay"),
        (lambda p: optim.SGD(p, nesterov=True), "nesterov"),
        (lambda p: optim.SGD(p, nesterov=True, momentum=0.9, dampening=0.1), "nesterov"),
        (lambda p: optim.Adam(p, lr=-1), "lr"),
        (lambda p: optim.Adam(p, eps=-1), "eps"),
        (lambda p: optim.Adam(p, betas=(1.0, 0.9)), "betas"),
        (lambda p: optim.Adam(p, betas=(0.9, -0.1)), "betas"),
        (lambda p: optim.AdamW(p, weight_decay=-1), "weight_decay"),
        (lambda p: optim.SGD([{"params": p, "lr": -2.0}]), "lr"),
        (lambda p: optim.SGD([]), "empty"),
        (lambda p: optim.SGD(iter([])), "empty"),
        (lambda p: optim.SGD([{"params": p, "lr": 0.1}], lr=-1), "lr"),
        (lambda p: optim.Adam(p, betas=0.9), "betas"),
        (lambda p: optim.Adam(p, betas=("a", "b")), "betas"),
        (lambda p: optim.SGD([p[0] * 2]), "leaf"),
        (lambda p: optim.SGD([{"params": p}, {"params": p[:1]}]), "more than one group"),
        (lambda p: optim.Adam(p, foreach=True, fused=True), "exclude each other"),
    ],
)
def test_bad_values_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make(parameters())


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: optim.SGD(p[0]), "iterable"),
        (lambda p: optim.SGD(None), "an iterable of"),
        (lambda p: optim.SGD([1.0]), "tensors"),
        (lambda p: optim.SGD([{"param": p}]), 'dictionary with "params"'),
        (lambda p: optim.SGD(p, lr="0.1"), "lr must be a number, got '0.1'"),
        (lambda p: optim.SGD(p, momentum=None), "momentum must be a number"),
        (lambda p: optim.Adam(p, eps=None), "eps must be a number"),
        (lambda p: optim.SGD([("name", 1.0)]), r"model\.parameters\(\)"),
        (lambda p: optim.SGD([{"params": set(p)}]), "order"),
        (lambda p: optim.SGD(p, lr=ops.tensor(0.1)), "number"),
        (lambda p: optim.Adam(p, differentiable=True), "differentiable"),
        (lambda p: optim.Optimizer(p, {}).step(), None),
    ],
)
def test_bad_types_are_refused(make, rule):
    params = parameters()
    params[0].grad = ops.ones_like(params[0])
    with pytest.raises((TypeError, NotImplementedError), match=rule):
        make(params)


def test_a_parameter_twice_in_a_group_warns():
    (w, *_) = parameters()
    with pytest.warns(UserWarning, match="more than once"):
        optim.SGD([w, w])


def test_read_only_parameters_are_refused():
    w = nn.Parameter(ops.ones((1,)).expand(3))
    w.grad = ops.ones((3,))
    with pytest.raises(RuntimeError, match="read-only"):
        optim.SGD([w]).step()


# Schedules -------------------------------------------------------------------------------------


def rates(make, steps: int) -> list[float]:
    (w, *_) = parameters()
    optimizer = optim.SGD([w], lr=2.0)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        assert schedule.get_last_lr() == [optimizer.param_groups[0]["lr"]]
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warmup_cosine_rises_then_falls_and_stays():
    found = rates(lambda o: lr_scheduler.warmup_cosine(o, 4, 12, min_factor=0.1), 20)
    assert found[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert found[8] == pytest.approx(2.0 * 0.55)
    assert all(a > b for a, b in zip(found[4:12], found[5:13], strict=True))
    assert found[12:] == pytest.approx([0.2] * 8)
    assert rates(lambda o: lr_scheduler.warmup_cosine(o, 0, 2), 3) == pytest.approx([2.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="warmup_steps"):
        rates(lambda o: lr_scheduler.warmup_cosine(o, 5, 4), 1)


def test_cosine_follows_its_closed_form():
    found = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 10, eta_min=0.5), 35)
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(35)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_restored_schedule_goes_on():
    def sequence(optimizer):
        linear = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, 15)
        return lr_scheduler.SequentialLR(optimizer, [linear, cosine], [5])

    for make in (sequence, lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t))):
        expected = rates(make, 20)
        (w, *_) = parameters()
        first = optim.SGD([w], lr=2.0)
        schedule = make(first)
        for _ in range(8):
            first.step()
            schedule.step()
        saved = copy.deepcopy((first.state_dict(), schedule.state_dict()))
        second = optim.SGD([w], lr=2.0)
        resumed = make(second)
        second.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        found = []
        for _ in range(8, 20):
            found.append(second.param_groups[0]["lr"])
            second.step()
            resumed.step()
        assert found == expected[8:]


def test_schedules_check_their_arguments():
    a, b = parameters()[:2]
    optimizer = optim.SGD([{"params": a}, {"params": b}])
    with pytest.raises(ValueError, match="per group"):
        lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0])
    with pytest.raises(ValueError, match="start_factor"):
        lr_scheduler.LinearLR(optimizer, start_factor=0.0)
    with pytest.raises(ValueError, match="end_factor"):
        lr_scheduler.LinearLR(optimizer, end_factor=2.0)
    with pytest.raises(TypeError, match="Optimizer"):
        lr_scheduler.LambdaLR(a, lambda t: 1.0)
    schedule = lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    with pytest.raises(ValueError, match="one milestone fewer"):
        lr_scheduler.SequentialLR(optimizer, [schedule], [3])
    with pytest.raises(ValueError, match="optimiser"):
        lr_scheduler.SequentialLR(optim.SGD([a]), [schedule], [])
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.LambdaLR(optim.SGD([a]), lambda t: 1.0, last_epoch=4)
    with pytest.raises(NotImplementedError, match="get_lr"):
        lr_scheduler.LRScheduler(optimizer)
    with pytest.raises(TypeError, match="function of the step"):
        lr_scheduler.LambdaLR(optimizer, None)
    with pytest.raises(ValueError, match="step_size must be a positive integer, got 0"):
        lr_scheduler.StepLR(optimizer, 0)
    with pytest.raises(ValueError, match="step_size must be a positive integer, got 1.5"):
        lr_scheduler.StepLR(optimizer, 1.5)
    with pytest.raises(ValueError, match=r"factor must lie in \(0, 1\], got 0"):
        lr_scheduler.ConstantLR(optimizer, 0)
    with pytest.raises(ValueError, match="T_max must be positive, got 0"):
        lr_scheduler.CosineAnnealingLR(optimizer, 0)
    with pytest.raises(ValueError, match=r"milestones must increase, got \[5, 2\]"):
        lr_scheduler.SequentialLR(optimizer, [schedule] * 3, [5, 2])
    with pytest.raises(ValueError, match="optimiser, got int"):
        lr_scheduler.SequentialLR(optimizer, [3], [])


def test_a_group_added_later_needs_a_new_schedule():
    first, second = parameters()[:2]
    optimizer = optim.SGD([first], lr=1.0)
    factors = lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 4)
    optimizer.step()
    optimizer.add_param_group({"params": second, "lr": 0.5})
    cosine.step()  # computes each rate from the one before, as in PyTorch
    with pytest.raises(ValueError, match=r"\[LambdaLR\] there are 2 groups.*got 1 rates"):
        factors.step()


def test_states_that_no_schedule_returned_are_refused():
    optimizer = optim.SGD(parameters())
    linear = lr_scheduler.LinearLR(optimizer)
    factors = lr_scheduler.LambdaLR(optimizer, math.cos)
    assert factors.state_dict()["lr_lambdas"] == [None]
    both = lr_scheduler.SequentialLR(optimizer, [linear, factors], [3])
    short = {**both.state_dict(), "_schedulers": []}
    first = {**linear.state_dict(), "last_epoch": 7}
    broken = {**both.state_dict(), "_schedulers": [first, None]}
    for schedule, state in [
        (linear, None),
        (factors, linear.state_dict()),
        (both, linear.state_dict()),
        (both, short),
        (both, broken),
    ]:
        with pytest.raises(TypeError, match="state_dict must be what"):
            schedule.load_state_dict(state)
    assert linear.last_epoch == 0


def test_a_schedule_that_runs_before_the_optimizer_warns():
    optimizer = optim.SGD(parameters())
    schedule = lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    with pytest.warns(UserWarning, match="optimizer.step"):
        schedule.step()

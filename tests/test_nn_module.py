"""Module: registration, walking, state, modes, hooks, errors with the module's path."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import minidl.ops as ops
from minidl import dtypes, nn
from minidl.errors import ArgumentError, DTypeError, MinidlError, ShapeError
from minidl.tensor import Tensor


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)
        self.scale = nn.Parameter(ops.ones((size,)))
        self.register_buffer("count", ops.zeros((1,)))
        self.register_buffer("scratch", ops.zeros((2,)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


class Net(nn.Module):
    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(size), Block(size)])
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(size, 2, bias=False))
        self.absent = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


KEYS = [
    "blocks.0.scale",
    "blocks.0.count",
    "blocks.0.fc.weight",
    "blocks.0.fc.bias",
    "blocks.1.scale",
    "blocks.1.count",
    "blocks.1.fc.weight",
    "blocks.1.fc.bias",
    "head.1.weight",
]


def same(a: Tensor, b: Tensor) -> bool:
    return bool(np.array_equal(a.detach().numpy(), b.detach().numpy()))


# Registration ----------------------------------------------------------------------------------


def test_names_are_dotted_and_in_order_of_registration():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [k for k in KEYS if "count" not in k]
    assert [name for name, _ in net.named_buffers()] == [
        "blocks.0.count",
        "blocks.0.scratch",
        "blocks.1.count",
        "blocks.1.scratch",
    ]
    assert [name for name, _ in net.named_modules()] == [
        "",
        "blocks",
        "blocks.0",
        "blocks.0.fc",
        "blocks.1",
        "blocks.1.fc",
        "head",
        "head.0",
        "head.1",
    ]
    assert [name for name, _ in net.named_children()] == ["blocks", "head"]
    assert list(net.state_dict()) == KEYS
    assert [n for n, _ in net.named_parameters("model", recurse=False)] == []
    assert [n for n, _ in net.blocks[0].named_parameters("b", recurse=False)] == ["b.scale"]


def test_an_attribute_lives_in_the_dict_of_the_instance():
    block = Block(2)
    assert block.__dict__["scale"] is block.scale
    assert block.__dict__["fc"] is block.fc
    with pytest.raises(AttributeError):
        block.missing  # noqa: B018 - the access is the test


def test_shared_parameters_and_modules_come_once():
    net = nn.Module()
    net.a = nn.Linear(2, 2)
    net.b = net.a
    net.c = nn.Linear(2, 2, bias=False)
    net.c.weight = net.a.weight
    assert [name for name, _ in net.named_parameters()] == ["a.weight", "a.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 5
    assert [name for name, _ in net.named_modules()] == ["", "a", "c"]
    assert len(list(net.modules(remove_duplicate=False))) == 4
    assert list(net.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight"]


def test_assignment_moves_a_name_between_kinds():
    net = nn.Module()
    net.thing = 3
    net.thing = nn.Parameter(ops.ones((1,)))
    assert [name for name, _ in net.named_parameters()] == ["thing"]
    del net.thing
    assert list(net.parameters()) == [] and not hasattr(net, "thing")
    net.thing = nn.Linear(1, 1)
    assert [name for name, _ in net.named_parameters()] == ["thing.weight", "thing.bias"]
    net.thing = nn.Parameter(ops.ones((1,)))
    assert [name for name, _ in net.named_parameters()] == ["thing"]


def test_none_keeps_the_name_registered():
    net = Block(2)
    net.scale = None
    assert "scale" not in net.state_dict()
    net.scale = nn.Parameter(ops.ones((2,)))
    assert "scale" in net.state_dict()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", ops.ones((2,))),
        ("scale", 3),
        ("fc", 3),
        ("fc", ops.ones((2,))),
        ("count", 3),
        ("scale", nn.ReLU()),
    ],
)
def test_a_registered_name_refuses_other_kinds_of_values(name, value):
    with pytest.raises(TypeError, match=rf"\[Block\] '{name}' is a registered"):
        setattr(Block(2), name, value)


def test_a_buffer_may_be_replaced_by_a_tensor():
    net = Block(2)
    net.count = ops.ones((1,))
    assert net.state_dict()["count"].item() == 1


def test_registration_needs_init_first():
    class Late(nn.Module):
        def __init__(self, fc: nn.Module | None) -> None:
            if fc is not None:
                self.fc = fc

    with pytest.raises(AttributeError, match="super"):
        Late(nn.Linear(1, 1))
    late = Late(None)
    for use in (late, late.train, late.state_dict, late.__repr__, lambda: list(late.parameters())):
        with pytest.raises(
            AttributeError, match=r"\[Late\] super\(\).__init__\(\) must run before"
        ):
            use()


def test_a_wrapper_may_pass_missing_attributes_on():
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.inner, name)

    wrapper = Wrapper(nn.Linear(3, 2))
    assert wrapper.in_features == 3 and not hasattr(wrapper, "missing")
    assert copy.deepcopy(wrapper).out_features == 2


def test_a_failing_property_names_what_it_missed():
    class Named(nn.Module):
        @property
        def width(self):
            return self.inner.in_features

    with pytest.raises(AttributeError, match="'Named' object has no attribute 'inner'"):
        Named().width  # noqa: B018 - the access is the test


@pytest.mark.parametrize("name", ["", "a.b"])
def test_bad_names_are_refused(name):
    with pytest.raises(KeyError, match="empty or contain a dot"):
        nn.Module().add_module(name, nn.Linear(1, 1))


def test_taken_and_wrong_registrations_are_refused():
    net = Block(2)
    for register in (net.register_buffer, net.register_module):
        with pytest.raises(KeyError, match="already exists"):
            register("forward", None)
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("fc", None)
    with pytest.raises(DTypeError, match="Parameter or None"):
        net.register_parameter("new", ops.ones((1,)))
    with pytest.raises(DTypeError, match="Tensor or None"):
        net.register_buffer("new", np.ones(1))
    with pytest.raises(DTypeError, match="Module or None"):
        net.add_module("new", ops.ones((1,)))
    with pytest.raises(TypeError, match="string"):
        net.add_module(3, nn.Linear(1, 1))


def test_getters_find_by_path_and_name_what_is_missing():
    net = Net()
    assert net.get_submodule("") is net
    assert net.get_submodule("blocks.1.fc") is net.blocks[1].fc
    assert net.get_parameter("blocks.0.scale") is net.blocks[0].scale
    assert net.get_buffer("blocks.0.count") is net.blocks[0].count
    with pytest.raises(AttributeError, match="no submodule 'fd'"):
        net.get_submodule("blocks.1.fd")
    with pytest.raises(AttributeError, match="no parameter 'count'"):
        net.get_parameter("blocks.0.count")
    with pytest.raises(AttributeError, match="no parameter 'bias'"):
        net.get_parameter("head.1.bias")


# State -----------------------------------------------------------------------------------------


def test_state_dict_shares_storage_and_is_detached():
    net = Net()
    weight = net.state_dict()["head.1.weight"]
    assert not weight.requires_grad and weight.is_leaf
    weight.fill_(7.0)
    assert same(net.head[1].weight, weight)
    assert net.state_dict(keep_vars=True)["head.1.weight"] is net.head[1].weight


def test_state_travels_between_models():
    source, target = Net(), Net()
    source.blocks[0].count.fill_(5.0)
    held = target.head[1].weight
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    for name, value in source.state_dict().items():
        assert same(value, target.state_dict()[name]), name
    assert target.head[1].weight is held
    assert target.head[1].weight.storage is not source.head[1].weight.storage


def test_state_loads_from_numpy_and_casts():
    net = Net()
    arrays = {k: v.numpy().astype(np.float64) + 1 for k, v in net.state_dict().items()}
    net.load_state_dict(arrays)
    assert net.head[1].weight.dtype is dtypes.float32
    np.testing.assert_allclose(net.head[1].weight.detach().numpy(), arrays["head.1.weight"], 1e-6)


def test_assign_takes_the_tensors_themselves():
    net = Net()
    state = {k: v.double() for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    weight = net.head[1].weight
    assert weight.dtype is dtypes.float64
    assert weight.is_parameter and weight.requires_grad
    assert weight.storage is state["head.1.weight"].storage
    net.requires_grad_(False)
    given = nn.Parameter(ops.ones((2, 3)))
    net.load_state_dict({"head.1.weight": given}, strict=False, assign=True)
    assert net.head[1].weight is given and not given.requires_grad  # frozen stays frozen


def test_strict_loading_lists_names_with_shapes():
    net = Net()
    state = net.state_dict()
    del state["head.1.weight"]
    state["head.2.weight"] = ops.ones((4, 5))
    state["head.1.weight.deep"] = ops.ones((1,))
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    assert "missing keys: head.1.weight (2, 3)" in message
    assert "head.2.weight (4, 5)" in message and "head.1.weight.deep (1,)" in message
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["head.1.weight"]
    assert sorted(result.unexpected_keys) == ["head.1.weight.deep", "head.2.weight"]


@pytest.mark.parametrize("strict", [True, False])
def test_wrong_shapes_are_always_refused(strict):
    net = Net()
    state = {**net.state_dict(), "head.1.weight": ops.ones((3, 2))}
    with pytest.raises(RuntimeError, match=r"head.1.weight: size mismatch.*\(3, 2\).*\(2, 3\)"):
        net.load_state_dict(state, strict=strict)


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        {"head.1.weight": ops.ones((3, 2))},
        {"head.1.weight": np.ones((2, 3), complex)},
        {"head.1.weight": None},
        {"surplus": ops.ones((1,))},
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(wrong, assign):
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    with pytest.raises(RuntimeError, match=f"{next(iter(wrong))}"):
        net.load_state_dict({**state, **wrong}, assign=assign)
    assert all(same(net.state_dict()[name], value) for name, value in before.items())


def test_bad_states_are_refused():
    for state in ([1, 2], {3: ops.ones((1,))}):
        with pytest.raises(TypeError, match="mapping"):
            Net().load_state_dict(state)
    with pytest.raises(RuntimeError, match="Tensor or a NumPy array, got list"):
        Net().load_state_dict({**Net().state_dict(), "head.1.weight": [[1.0]]})


def test_extra_state_is_saved_and_restored():
    class Counter(nn.Linear):
        steps = 0

        def get_extra_state(self):
            return {"steps": self.steps}

        def set_extra_state(self, state):
            self.steps = state["steps"]

    source, target = nn.Sequential(Counter(1, 1)), nn.Sequential(Counter(1, 1))
    source[0].steps = 4
    state = source.state_dict()
    assert state["0._extra_state"] == {"steps": 4}
    target.load_state_dict(state)
    assert target[0].steps == 4
    with pytest.raises(RuntimeError, match="0._extra_state"):
        target.load_state_dict({k: v for k, v in state.items() if "extra" not in k})
    source[0].steps = 9
    with pytest.raises(RuntimeError, match="surplus"):
        target.load_state_dict({**source.state_dict(), "surplus": ops.ones((1,))})
    assert target[0].steps == 4


def test_state_dict_hooks_see_and_change_the_state():
    net = Net()
    seen = []
    block = net.blocks[0]
    block.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append((m, prefix, keep)))
    handle = block.register_state_dict_post_hook(
        lambda m, state, prefix, meta: state.update({f"{prefix}extra": ops.ones((1,))})
    )
    assert "blocks.0.extra" in net.state_dict()
    assert seen == [(block, "blocks.0.", False)]
    handle.remove()
    assert "blocks.0.extra" not in net.state_dict()


def test_load_hooks_rename_keys_and_edit_the_result():
    net = Net()
    state = OrderedDict((k.replace("scale", "gamma"), v) for k, v in net.state_dict().items())

    def rename(module, state, prefix, meta, strict, missing, unexpected, errors):
        if prefix + "gamma" in state:
            state[prefix + "scale"] = state.pop(prefix + "gamma")

    for block in net.blocks:
        block.register_load_state_dict_pre_hook(rename)
    net.load_state_dict(state)
    assert "blocks.0.gamma" in state
    state["blocks.0.gamma"] = ops.full((3,), 7.0)
    seen = []
    net.register_load_state_dict_post_hook(lambda m, keys: seen.append(m.blocks[0].scale[0].item()))
    net.load_state_dict(state)
    assert seen == [7.0]
    del state["head.1.weight"]
    state["blocks.0.gamma"] = ops.full((3,), 8.0)
    net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    net.load_state_dict(state)
    assert net.blocks[0].scale[0].item() == 8.0


def test_modules_can_be_copied_and_pickled():
    net = Net()
    net.head[1].weight.grad = ops.ones((2, 3))
    calls = []
    net.register_forward_hook(lambda *args: calls.append(1))
    twin = copy.deepcopy(net)
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in net.named_parameters()]
    twin.head[1].weight.data.fill_(9.0)
    assert not same(twin.head[1].weight, net.head[1].weight)
    assert isinstance(twin.head[1].weight, nn.Parameter)
    twin(ops.ones((1, 3)))
    assert calls == [1]
    net._hook_tables().forward.clear()
    kept = net.register_forward_hook(print)
    there = pickle.loads(pickle.dumps(net))
    hooks = there._hook_tables().forward
    hooks[kept.id + 1] = hooks.pop(kept.id)  # as another process may have counted
    there.register_forward_hook(lambda *args: None)
    assert len(hooks) == 2
    restored = pickle.loads(pickle.dumps(Net()))
    assert list(restored.state_dict()) == KEYS


# Modes and casts -------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    net.head.train()
    assert [m.training for m in (net, net.head, net.head[1])] == [False, True, True]
    with pytest.raises(ArgumentError, match="bool"):
        net.train("yes")


def test_apply_visits_children_first():
    names = []
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert net.apply(lambda m: names.append(type(m).__name__)) is net
    assert names == ["Linear", "ReLU", "Sequential", "Sequential"]


def test_to_casts_floating_tensors_and_keeps_the_parameters():
    net = Net()
    net.register_buffer("ids", ops.zeros((2,), dtype=dtypes.int64))
    held = net.head[1].weight
    held.grad = ops.ones((2, 3))
    for cast, dtype in [
        (net.double, dtypes.float64),
        (net.half, dtypes.float16),
        (net.bfloat16, dtypes.bfloat16),
        (net.float, dtypes.float32),
        (lambda: net.to(dtypes.float64), dtypes.float64),
        (lambda: net.to("cpu", dtypes.float32), dtypes.float32),
        (lambda: net.to(dtype=dtypes.float64), dtypes.float64),
        (lambda: net.to(ops.ones((1,))), dtypes.float32),
    ]:
        assert cast() is net
        assert net.head[1].weight is held and held.requires_grad and held.is_leaf
        assert held.dtype is dtype and held.grad.dtype is dtype
        assert net.blocks[0].count.dtype is dtype
        assert net.ids.dtype is dtypes.int64
    with pytest.raises(TypeError, match="floating"):
        net.to(dtypes.int64)
    with pytest.raises(NotImplementedError, match="memory_format"):
        net.to("cpu", memory_format="channels_last")
    assert net.to(dtype="float64").head[1].weight.dtype is dtypes.float64


def test_a_refused_move_loses_nothing():
    net = Net()
    net.head[1].weight.grad = ops.ones((2, 3))
    for refused in (lambda: net.to("mars"), lambda: net.type(dtypes.int64), net.cuda):
        with pytest.raises(MinidlError):
            refused()
    assert net.head[1].weight.grad.tolist() == [[1.0] * 3] * 2
    with pytest.raises(MinidlError, match="'mars'"):
        nn.ReLU().to("mars")  # also without anything to move


def test_requires_grad_and_zero_grad():
    net = Net().requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())
    net.requires_grad_()
    net(ops.ones((1, 3))).sum().backward()
    grad = net.head[1].weight.grad
    net.zero_grad(set_to_none=False)
    assert net.head[1].weight.grad is grad and not grad.numpy().any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


# Hooks -----------------------------------------------------------------------------------------


def test_forward_hooks_run_in_order_and_replace_values():
    fc = nn.Linear(2, 2)
    x = ops.ones((1, 2))
    plain = fc(x)
    order = []
    fc.register_forward_pre_hook(lambda m, args: order.append("pre"))
    fc.register_forward_pre_hook(lambda m, args: (args[0] * 0,), prepend=True)
    fc.register_forward_hook(lambda m, args, out: order.append(("post", args[0].sum().item())))
    handle = fc.register_forward_hook(lambda m, args, out: out + 1)
    np.testing.assert_allclose(
        fc(x).detach().numpy(), fc.bias.detach().numpy()[None] + 1, rtol=1e-6
    )
    assert order == ["pre", ("post", 0.0)]
    handle.remove()
    handle.remove()
    assert not same(fc(x), plain)


def test_hooks_with_kwargs():
    class Scaled(nn.Module):
        def forward(self, x, factor=1.0):
            return x * factor

    net = Scaled()
    seen = []
    net.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {**kwargs, "factor": kwargs["factor"] + 1}), with_kwargs=True
    )
    net.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs["factor"]), with_kwargs=True
    )
    assert net(ops.ones((1,)), factor=2.0).item() == 3.0
    assert seen == [3.0]
    net.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(ArgumentError, match=r"\(args, kwargs\)"):
        net(ops.ones((1,)), factor=2.0)


def test_a_handle_is_a_context_manager():
    fc, calls = nn.Linear(1, 1), []
    with fc.register_forward_hook(lambda *args: calls.append(1)):
        fc(ops.ones((1, 1)))
    fc(ops.ones((1, 1)))
    assert calls == [1]


def test_full_backward_hooks_see_and_replace_gradients():
    class Two(nn.Module):
        def forward(self, x, y, z):
            return x * 2 + y * 3, y * z

    net, seen = Two(), []
    x, y = (ops.ones((2,)).requires_grad_() for _ in range(2))
    net.register_full_backward_pre_hook(lambda m, out: (out[0] * 10, out[1]))
    net.register_full_backward_hook(lambda m, gin, gout: seen.append((gin, gout)))
    net.register_full_backward_hook(lambda m, gin, gout: (gin[0] + 1, gin[1], None))
    first, second = net(x, y, 5)
    (first.sum() + second.sum()).backward()
    ((gin, gout),) = seen
    assert [g.tolist() for g in gout] == [[10.0, 10.0], [1.0, 1.0]]
    assert [g if g is None else g.tolist() for g in gin] == [[20.0, 20.0], [35.0, 35.0], None]
    assert x.grad.tolist() == [21.0, 21.0] and y.grad.tolist() == [35.0, 35.0]


def test_full_backward_hook_without_input_gradient():
    fc, seen = nn.Linear(2, 1), []
    fc.register_full_backward_hook(lambda m, gin, gout: seen.append((gin, gout[0].tolist())))
    fc(ops.ones((1, 2))).sum().backward()
    assert seen == [((None,), [[1.0]])]
    assert fc.weight.grad.tolist() == [[1.0, 1.0]]


def test_full_backward_hooks_refuse_and_pass_over():
    fc, x = nn.Linear(2, 2), ops.ones((1, 2)).requires_grad_()
    with (
        fc.register_full_backward_hook(lambda m, gin, gout: (np.ones((1, 2)),)),
        pytest.raises(DTypeError, match=r"\[full_backward_hook\].*got ndarray"),
    ):
        fc(x).sum().backward()

    class Named(nn.Module):
        def forward(self, x):
            return {"out": x * 2}

    net, seen = Named(), []
    net.register_full_backward_hook(lambda m, gin, gout: seen.append(gout))
    net(x)["out"].sum().backward()
    assert seen == [] and x.grad.tolist() == [[2.0, 2.0]]  # no output that is a tensor, as in torch


# Errors ----------------------------------------------------------------------------------------


def test_an_error_names_the_path_of_the_failing_module():
    net = Net()
    net.blocks[1].fc = nn.Linear(4, 3)
    with pytest.raises(ShapeError) as caught:
        net(ops.ones((2, 3)))
    message = str(caught.value)
    assert message.startswith("blocks.1.fc: [linear] ")
    assert "(2, 3)" in message and "(3, 4)" in message
    with pytest.raises(ShapeError) as caught:
        net.blocks[1](ops.ones((2, 3)))
    assert str(caught.value).startswith("fc: [linear] ")
    with pytest.raises(ShapeError) as caught:
        net.blocks[1].fc(ops.ones((2, 3)))
    assert str(caught.value).startswith("[linear] ")


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="forward"):
        nn.ModuleList()(1)


# Printing --------------------------------------------------------------------------------------


def test_repr_is_a_tree():
    net = Net()
    assert repr(net) == "\n".join(
        [
            "Net(",
            "  (blocks): ModuleList(",
            "    (0-1): 2 x Block(",
            "      (fc): Linear(in_features=3, out_features=3, bias=True)",
            "    )",
            "  )",
            "  (head): Sequential(",
            "    (0): ReLU()",
            "    (1): Linear(in_features=3, out_features=2, bias=False)",
            "  )",
            ")",
        ]
    )

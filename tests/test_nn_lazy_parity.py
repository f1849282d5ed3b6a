"""Lazy modules against PyTorch's."""

import copy
import pickle

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import ArgumentError, DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
LIBRARIES = (minidl, torch)


def outcome(function):
    try:
        return function()
    except Exception:
        return "raises"


def lazy(library, bias=True):
    n = library.nn
    return n.Sequential(n.LazyLinear(3, bias), n.ReLU(), n.LazyLinear(2))


@pytest.mark.parametrize("bias", [True, False])
def test_life_of_a_lazy_model(bias):
    def run(library):
        net = lazy(library, bias)
        parameters = list(net.parameters())
        seen = [repr(net), repr(parameters), list(net.state_dict())]
        seen.append([library.nn.parameter.is_lazy(p) for p in parameters])
        seen.append([isinstance(p, library.nn.Parameter) for p in parameters])
        seen.append(net[0].has_uninitialized_params())
        net.double()
        seen.append(str(parameters[0].dtype).split(".")[1])
        seen.append([tuple(net(library.ones(5, 4, dtype=library.float64)).shape), repr(net)])
        seen.append([type(m).__name__ for m in net])
        seen.append([tuple(p.shape) for p in parameters])
        seen.append(all(p is q for p, q in zip(parameters, net.parameters(), strict=True)))
        seen.append(library.nn.parameter.is_lazy(parameters[0]))
        seen.append(all(bool((p != 0).any()) and p.requires_grad for p in parameters))
        return seen

    assert run(minidl) == run(torch)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_optimiser_made_before_trains_the_parameters(name):
    def run(library):
        net = lazy(library).double()
        optimizer = getattr(library.optim, name)(net.parameters(), lr=0.1)
        optimizer.step()  # nothing has a gradient
        x = library.tensor(np.random.default_rng(0).normal(size=(5, 4)))
        net(x)
        for i, p in enumerate(net.parameters()):
            values = np.random.default_rng(i).normal(size=tuple(p.shape))
            p.data = library.tensor(values)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        return [p.detach().numpy() for p in net.parameters()]

    for mine, other in zip(run(minidl), run(torch), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-10)


def test_states_of_lazy_modules():
    def run(library):
        n = library.nn
        seen = []
        for target, source in (
            (n.LazyLinear(3), n.LazyLinear(3)),
            (n.LazyLinear(3), n.Linear(4, 3)),
            (n.Linear(4, 3), n.LazyLinear(3)),
            (n.LazyLinear(3), n.LazyLinear(3, bias=False)),
        ):
            before = repr(target)
            result = outcome(lambda t=target, s=source: repr(t.load_state_dict(s.state_dict())))
            seen += [result, repr(target) == before, n.parameter.is_lazy(target.weight)]
        target, source = n.LazyLinear(3), n.Linear(4, 3)
        target.load_state_dict(source.state_dict())
        seen.append(bool((target.weight == source.weight).all()))
        seen.append(outcome(lambda: target(library.ones(1, 5))))
        seen.append([tuple(target(library.ones(1, 4)).shape), repr(target)])
        seen.append(bool((target.weight == source.weight).all()))
        return seen

    assert run(minidl) == run(torch)


def test_a_state_assigned_to_a_lazy_module():
    def run(library):
        target, source = library.nn.LazyLinear(3), library.nn.Linear(4, 3)
        target.load_state_dict(source.state_dict(), assign=True)
        return [tuple(target.weight.shape), target.weight.requires_grad]

    assert run(minidl) == run(torch)


def test_a_state_of_wrong_names_leaves_a_module_lazy():
    layer = nn.LazyLinear(3)
    with pytest.raises(RuntimeError, match="unexpected keys: other"):
        layer.load_state_dict({**nn.Linear(4, 3).state_dict(), "other": minidl.ones(1)})
    assert layer.has_uninitialized_params()


def test_use_before_the_shape_is_known():
    for library in LIBRARIES:
        weight = library.nn.LazyLinear(3).weight
        for use in (
            lambda w: w.shape,
            lambda w: w.numel(),
            lambda w: w + 1,
            lambda w: w.sum(),
            lambda w: w.numpy(),
            lambda w, n=library.nn: n.init.ones_(w),
            lambda w, lib=library: lib.nn.functional.linear(lib.ones(2, 4), w),
        ):
            with pytest.raises((ValueError, RuntimeError)):
                use(weight)
    with pytest.raises(ArgumentError, match="call its module once"):
        print(nn.LazyLinear(3).weight.shape)
    with pytest.raises(DTypeError, match="UninitializedParameter"):
        minidl.ones(1) + nn.LazyLinear(3).weight


def test_copies_and_processes():
    for library in LIBRARIES:
        layer = library.nn.LazyLinear(3)
        twin = copy.deepcopy(layer)
        twin(library.ones(1, 4))
        assert layer.has_uninitialized_params() and tuple(twin.weight.shape) == (3, 4)
        weight = library.nn.UninitializedParameter(requires_grad=False)
        weight = pickle.loads(pickle.dumps(weight))
        assert isinstance(weight, library.nn.UninitializedParameter)
        weight.materialize((2, 3), dtype=library.float64)
        assert type(weight) in (minidl.Tensor, torch.nn.Parameter)
        assert tuple(weight.shape) == (2, 3) and weight.dtype is library.float64
        assert not weight.requires_grad


def test_a_lazy_module_of_ones_own():
    def run(library):
        n = library.nn
        seen = []

        class Scale(n.modules.lazy.LazyModuleMixin, n.Module):
            def __init__(self):
                super().__init__()
                self.scale = n.UninitializedParameter()
                self.register_buffer("mean", None)
                self.mean = n.UninitializedBuffer()

            def initialize_parameters(self, x, forget=False):
                if self.has_uninitialized_params():
                    self.scale.materialize(x.shape[-1:])
                    if not forget:
                        self.mean.materialize(x.shape[-1:])
                    n.init.ones_(self.scale)

            def forward(self, x, forget=False):
                return x * self.scale

        scale = Scale()
        seen += [list(scale.state_dict()), [k for k, _ in scale.named_buffers()]]
        seen.append(scale(library.ones(2, 3)).tolist())
        seen += [type(scale).__name__, tuple(scale.mean.shape)]
        seen.append(outcome(lambda: Scale()(library.ones(2, 3), forget=True)))
        return seen

    assert run(minidl) == run(torch)


def test_the_first_input_must_fit():
    layer = nn.LazyLinear(3)
    layer.load_state_dict(nn.Linear(4, 3).state_dict())
    with pytest.raises(ShapeError, match="size 4"):
        layer(minidl.ones(2, 5))

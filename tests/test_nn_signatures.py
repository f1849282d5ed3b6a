"""Arguments of modules, functions, optimisers and loaders: PyTorch's names, order and defaults."""

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

from minidl import autograd, data, nn, ops, optim

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

PAIRS = {
    "autograd": (autograd, torch.autograd),
    "nn": (nn, torch.nn),
    "functional": (nn.functional, torch.nn.functional),
    "modules": (nn.modules.module, torch.nn.modules.module),
    "init": (nn.init, torch.nn.init),
    "utils": (nn.utils, torch.nn.utils),
    "parametrizations": (nn.utils.parametrizations, torch.nn.utils.parametrizations),
    "parametrize": (nn.utils.parametrize, torch.nn.utils.parametrize),
    "prune": (import_module("minidl.nn.utils.prune"), import_module("torch.nn.utils.prune")),
    "rnn": (nn.utils.rnn, torch.nn.utils.rnn),
    "optim": (optim, torch.optim),
    "lr_scheduler": (optim.lr_scheduler, torch.optim.lr_scheduler),
    "data": (data, import_module("torch.utils.data")),
}
# What PyTorch takes and we leave out: deprecated, or its own business. Giving one is a TypeError.
LEFT_OUT = {
    "autograd.Function.apply": {"kwargs"},
    "autograd.no_grad.__init__": {"function"},  # ours decorates with and without parentheses
    "autograd.backward": {"grad_variables"},
    "autograd.detect_anomaly.__init__": {"check_nan"},
    "autograd.enable_grad.__init__": {"orig_func"},
    "autograd.set_detect_anomaly.__init__": {"check_nan"},
    "data.random_split": {"generator"},  # an object, where ours is None: the global one in both
    "functional.dropout": {"generator"},  # the other way round: ours alone, at the end
    "nn.Module.state_dict": {"args"},
    "nn.Sigmoid.__init__": {"args", "kwargs"},
    "nn.Tanh.__init__": {"args", "kwargs"},
    "lr_scheduler.SequentialLR.step": {"epoch"},  # ours refuses it with the reason
}
DEPRECATED = {"size_average", "reduce", "_stacklevel", "out"}
# Not functions to compare: abstract, called by position, or refused as a whole.
OTHERS = {
    "autograd.Function.backward",
    "autograd.Function.forward",
    "nn.Module.forward",
    "nn.Parameter.__init__",
    "nn.RMSNorm.forward",
    "nn.Transformer.__init__",
    "nn.UninitializedBuffer.__init__",
    "nn.UninitializedParameter.__init__",
}


def arguments(function: Callable[..., Any], skip: set[str]) -> list[tuple[str, str]] | None:
    try:
        given = inspect.signature(function).parameters.values()
    except ValueError:  # built in, without a signature
        return None
    # a default that is an object, such as a function, is compared by being one
    plain = (int, float, str, bool, tuple, type(None))
    return [
        (p.name, repr(p.default) if isinstance(p.default, plain) else "-")
        for p in given
        if p.name not in skip
    ]


def methods(kind: type) -> list[str]:
    """The names that a class defines; those of Module are spread over its bases."""
    bases = kind.__mro__[:-1] if kind is nn.Module else [kind]
    return list(dict.fromkeys(name for base in bases for name in vars(base)))


def pairs() -> Iterator[tuple[str, Any, Any]]:
    """Every public function, constructor and method that both sides define."""
    for place, (ours, theirs) in PAIRS.items():
        for name, mine in vars(ours).items():
            other = getattr(theirs, name, None)
            home = getattr(mine, "__module__", "")
            own = name in ours.__all__ if hasattr(ours, "__all__") else home == ours.__name__
            if name.startswith("_") or other is None or not own or not callable(mine):
                continue
            if not inspect.isclass(mine):
                yield f"{place}.{name}", mine, other
                continue
            for method in methods(mine):
                if hasattr(other, method) and (method == "__init__" or method[0] != "_"):
                    yield f"{place}.{name}.{method}", getattr(mine, method), getattr(other, method)


FUNCTIONS = {
    name: (mine, other)
    for name, mine, other in pairs()
    if callable(mine) and name not in OTHERS and arguments(other, set()) is not None
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_those_of_pytorch(name):
    mine, other = FUNCTIONS[name]
    skip = LEFT_OUT.get(name, set()) | (DEPRECATED if name.startswith("functional.") else set())
    assert arguments(mine, skip) == arguments(other, skip)


def test_functional_has_what_pytorch_has_there_of_our_operators():
    both = {n for n in dir(torch.nn.functional) if callable(getattr(ops, n, None))}
    assert {n for n in both if n[0] != "_"} <= set(nn.functional.__all__) | {"Tensor"}


def test_the_list_is_long():
    assert len(FUNCTIONS) > 180 and "nn.MultiheadAttention.forward" in FUNCTIONS

"""`minidl gradcheck`: sound models pass, planted faults are named, bad input is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import minidl
from minidl import nn
from minidl.autograd import Function
from minidl.cli import main
from minidl.testing.model_check import check_model

MODELS = """
import minidl
from minidl import nn

def sound():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.5), nn.LayerNorm(6))
    return model, minidl.randn(5, 4)

def tokens():
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10))
    target = minidl.tensor([1, 2, 3])
    loss = lambda y: nn.functional.cross_entropy(y.reshape(3, 10), target)
    return model, minidl.tensor([[1, 2, 3]]), loss

class Log(nn.Module):
    def forward(self, x):
        return minidl.log(x)

def not_a_number():
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(Log()), nn.Linear(4, 1)), -minidl.ones(3, 4)

def raises():
    raise RuntimeError("no data here")

class Broken(nn.Module):
    def forward(self, x):
        return x.shape[7]

def broken():
    return Broken(), minidl.ones(2)

def misfit():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1)), minidl.ones(2, 3)

def alone():
    return nn.Linear(2, 2)

def no_model():
    return 3, minidl.ones(2)

number = 3
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder."""
    name = f"models_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("factory", ["sound", "tokens"])
@pytest.mark.parametrize("options", [[], ["--full"], ["--eval"]], ids=str)
def test_a_sound_model_passes(models, capsys, factory, options):
    assert main(["gradcheck", f"{models}:{factory}", *options]) == 0
    out = capsys.readouterr().out
    mode = "eval" if options == ["--eval"] else "train"
    assert f"in {mode} mode" in out and "WRONG" not in out and " ok" in out


def test_json(models, capsys):
    assert main(["gradcheck", f"{models}:sound", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] and found["training"] and found["origin"] == ""
    names = [v["name"] for v in found["verdicts"]]
    assert names == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert {v["verdict"] for v in found["verdicts"]} == {"ok"}
    assert all(v["relative"] < 1e-4 for v in found["verdicts"])


def test_nan_is_traced_to_its_module(models, capsys):
    assert main(["gradcheck", f"{models}:not_a_number"]) == 1
    captured = capsys.readouterr()
    assert "first NaN or inf, forward: module 1.0 (Log): log gave NaN, called at " in captured.out
    assert f"{models}.py:" in captured.out
    assert "4 of 4 parameters and inputs fail" in captured.err


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x  # the 2 is missing


class Wrong(nn.Module):
    def forward(self, x):
        return Square.apply(x)


def verdicts(model, *inputs, **options):
    report = check_model(model, inputs, **options)
    return report, {v.name: v.verdict for v in report.verdicts}


def test_a_wrong_backward_is_found_by_the_parameters_before_it():
    model = nn.Sequential(nn.Linear(3, 4), Wrong(), nn.Linear(4, 2))
    report, found = verdicts(model, minidl.randn(5, 3, requires_grad=True))
    assert not report.sound
    assert found == {
        "0.weight": "WRONG", "0.bias": "WRONG", "2.weight": "ok", "2.bias": "ok",
        "(input 0)": "WRONG",
    }  # fmt: skip
    assert "derivative" in report.verdicts[0].where


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 3)
        self.unused = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(3, 3, bias=False).requires_grad_(False)
        self.cut = nn.Parameter(minidl.ones(3))
        self.times_zero = nn.Parameter(minidl.ones(3))

    def forward(self, x):
        return self.frozen(self.used(x)) * self.cut.detach() + 0 * self.times_zero


def test_parameters_without_a_gradient_are_told_apart():
    report, found = verdicts(Odd(), minidl.randn(4, 3))
    assert found == {
        "used.weight": "ok", "used.bias": "ok", "unused.weight": "no gradient: unused",
        "frozen.weight": "no gradient: frozen", "cut": "WRONG", "times_zero": "zero gradient",
    }  # fmt: skip
    (cut,) = (v for v in report.verdicts if v.name == "cut")
    assert cut.where.endswith("it gets no gradient, but the loss depends on it")


class Root(nn.Module):
    def forward(self, x):
        return minidl.sqrt(x * 0).sum() * 0 + x.sum()


def test_nan_in_the_backward_is_traced_to_its_operator():
    report, found = verdicts(nn.Sequential(nn.Linear(3, 3), Root()), minidl.ones(2, 3))
    assert set(found.values()) == {"NaN or inf"}
    assert report.origin.startswith("first NaN or inf, backward: [sqrt] ")
    assert "test_model_check.py" in report.origin


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    before = [p.array.copy() for p in model.parameters()]
    check_model(model, minidl.ones(2, 3))
    assert not model.training and model[0].weight.dtype is minidl.float32
    assert all((p.array == b).all() for p, b in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


BAD = [
    ("models", "must be named as package.module:factory, got 'models'"),
    (":sound", "must be named as package.module:factory"),
    ("nowhere.at_all:sound", "cannot import nowhere.at_all: ModuleNotFoundError"),
    ("MODELS:soun", "has no 'soun'"),
    ("MODELS:number", "is not a function, got int"),
    ("MODELS:raises", "raised RuntimeError: no data here"),
    ("MODELS:broken", "the model raised IndexError"),
    ("MODELS:misfit", "1: [linear] "),
    ("MODELS:alone", "must return (model, inputs) or (model, inputs, loss), got Linear"),
    ("MODELS:no_model", "the model must be a minidl.nn.Module, got int"),
]


@pytest.mark.parametrize(("spec", "rule"), BAD, ids=[spec for spec, _ in BAD])
def test_bad_input_is_one_line(models, capsys, spec, rule):
    assert main(["gradcheck", spec.replace("MODELS", models)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("minidl: ") and rule in line

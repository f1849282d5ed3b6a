"""`minidl verify`: faults planted in kernels and operators, the report, budgets, Ctrl-C."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_planted import product

from minidl.backends import Kernels, Layer, reference
from minidl.backends.table import TABLES
from minidl.cli import main
from minidl.testing.cases import CASES
from minidl.testing.entries import ENTRIES
from minidl.testing.targets import targets
from minidl.testing.verify import verify
from minidl.train.progress import Progress


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no progress lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIDL_PROGRESS", "0")
    return tmp_path


@pytest.fixture
def plant() -> Iterator[Callable[..., None]]:
    """Adds a table `planted`: the NumPy one with some entries replaced."""

    def planted(**entries: Callable[..., Any]) -> None:
        layers = [Layer("reference", reference.ENTRIES), Layer("faults", entries)]
        TABLES["planted"] = Kernels("cpu", np, layers)

    yield planted
    TABLES.pop("planted", None)


# Kernels with a fault, each over the right one


def off_by_one_at_odd_sizes(x: np.ndarray) -> np.ndarray:
    out = reference.silu(x)
    if x.size % 2 and x.size > 8:
        out.reshape(-1)[-1] = 0
    return out


def ignores_strides(x: np.ndarray) -> np.ndarray:
    return reference.erf(np.ravel(x, order="K").reshape(x.shape))


def writes_its_input(x: np.ndarray) -> np.ndarray:
    out = reference.sigmoid(x)
    if x.flags.writeable:
        x *= 0.5
    return out


def gives_its_input_back(x: np.ndarray) -> np.ndarray:
    return x if x.size and x.min() >= 0 and x.flags.c_contiguous else reference.relu(x)


def wrong_at_extremes(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x)  # overflows where the largest was not subtracted first
    return e / e.sum(axis, keepdims=True)


def wrong_in_float32(x: np.ndarray) -> np.ndarray:
    right = reference.log_sigmoid(x)
    return np.asarray(right * np.float32(1 + 1e-5)) if x.dtype == np.float32 else right


def forgets_an_empty_row(g: np.ndarray, index: Any, rows: int, padding: Any) -> np.ndarray:
    return reference.embedding_backward(g, index, rows, None)


def reads_one_key_too_many(*args: Any) -> Any:
    q, k, v, mask, _, scale = args
    return reference.attention(q, k, v, mask, False, scale)


def wrong_shape(x: np.ndarray, axis: tuple[int, ...], keepdim: bool) -> np.ndarray:
    return reference.logsumexp(x, axis, False)


def another_stream(n: int, seed: int, offset: int) -> np.ndarray:
    return reference.philox_bits(n, seed & 0xFFFFFFFF, offset)


def updates_only_the_parameter(params: Any, grads: Any, momenta: Any, first: Any, **options: Any):
    kept = [None if m is None else m.copy() for m in momenta]
    reference.sgd_step(params, grads, momenta, first, **options)
    for buffer, before in zip(momenta, kept, strict=True):
        if buffer is not None:
            buffer[...] = before


FAULTS = [
    ("silu", off_by_one_at_odd_sizes, "should be"),
    ("erf", ignores_strides, "should be"),
    ("sigmoid", writes_its_input, "an input was changed"),
    ("relu", gives_its_input_back, "a result shares memory with an input"),
    ("softmax", wrong_at_extremes, "nan"),
    ("log_sigmoid", wrong_in_float32, "float32"),
    ("embedding_backward", forgets_an_empty_row, "should be"),
    ("attention", reads_one_key_too_many, "should be"),
    ("logsumexp", wrong_shape, "shape is"),
    ("philox_bits", another_stream, "is "),
    ("sgd_step", updates_only_the_parameter, "should be"),
]


@pytest.mark.parametrize(("name", "fault", "says"), FAULTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_planted_kernel_fault_is_caught(plant, capsys, name, fault, says):
    plant(**{name: fault})
    arguments = ["verify", "--backend", "planted", "--op", name, "--check", "kernel"]
    assert main([*arguments, "--examples", "200"]) == 1
    out = capsys.readouterr().out
    head = re.search(rf"^FAILED planted {name}: kernel, (\w+)$", out, re.M)
    assert head and head[1] in ("float32", "float64", "float16", "bfloat16")
    message = re.search(r"^  (.*)$", out[head.start() :], re.M)
    assert message and says in message[0] + head[0] and f"in {name}(" in message[1]
    again = re.search(r"again: (.*)", out)
    assert again
    assert main(shlex.split(again[1])[1:]) == 1
    assert message[1] in capsys.readouterr().out


@pytest.mark.parametrize("name", ["silu", "erf", "softmax", "sgd_step", "philox_bits"])
def test_the_same_kernels_without_a_fault_pass(plant, capsys, name):
    plant(**{name: reference.ENTRIES[name]})
    assert main(["verify", "--backend", "planted", "--op", name, "--examples", "100"]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_a_planted_layout_fault_names_the_layout(plant, capsys):
    plant(erf=ignores_strides)
    assert main(["verify", "--backend", "planted", "--op", "erf", "--examples", "100"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"in erf\(<float\d\d \(.*\) (Fortran|strided|negative stride|broadcast) ", out)


def test_a_wrong_gradient_is_caught(capsys, monkeypatch):
    wrong = product(gradient=lambda g, input, other: (g * other, -(g * input)))
    monkeypatch.setattr("minidl.cli.verify.CASES", [wrong])
    arguments = ["verify", "--backend", "reference", "--op", "product"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "FAILED reference product: gradcheck, float64" in out
    assert "FAILED reference product: forward" not in out
    line = "minidl verify --backend reference --op product --check gradcheck --examples 25 --seed 0"
    assert f"  again: {line}\n" in out + "\n"
    assert main(shlex.split(line)[1:]) == 1


def test_a_wrong_oracle_fails_on_every_table(capsys, monkeypatch):
    add = next(case for case in CASES if case.name == "add")
    planted = dataclasses.replace(add, oracle=lambda *args, **kwargs: add.oracle(*args) + 1)
    monkeypatch.setattr("minidl.cli.verify.CASES", [planted])
    assert main(["verify", "--op", "add", "--check", "forward", "--examples", "8", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {f["table"] for f in found["failed"]} == {t.label for t in targets()}


# The report


def test_the_report(place, capsys):
    arguments = ["verify", "--op", "softm*", "--examples", "8", "--out", "report", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("folder") == "report"
    assert found == json.loads((place / "report/verify.json").read_text(encoding="utf-8"))
    assert found["tables"] == [t.label for t in targets()] and found["failed"] == []
    assert found["reached"] == found["planned"] >= 3 * len(found["tables"])
    one = next(c for c in found["counts"] if c["row"] == "softmax" and c["kind"] == "kernel")
    assert one["family"] == "rows" and one["cases"] > 0 and sum(one["layouts"].values()) > 0
    assert all(0 <= c["worst"] <= 1 for c in found["counts"])
    html = (place / "report/verify.html").read_text(encoding="utf-8")
    assert "every check passed" in html and "softmax_backward" in html
    assert not re.search(r"<script|https?://|src=", html)


def test_failures_come_first_on_the_page(place, plant):
    plant(erf=ignores_strides)
    assert main(["verify", "--backend", "planted", "--op", "erf*", "--out", "report"]) == 1
    html = (place / "report/verify.html").read_text(encoding="utf-8")
    assert html.index(" checks failed") < html.index('<div class="fail">') < html.index("<table>")
    assert "&lt;float" in html and '<td class="bad">FAIL' in html


def test_the_printed_table_fits_a_terminal(capsys):
    assert main(["verify", "--op", "softmax", "--op", "gelu*", "--examples", "4"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    assert re.search(r"^kernel softmax +\d+ +0\.\d\d", out, re.M)
    assert re.search(r"^reference +\d+ +\d+ +0\.\d\d", out, re.M)


def test_the_same_seed_draws_the_same(place, capsys):
    for seed in ("3", "3", "4"):
        assert main(["verify", "--op", "matmul", "--seed", seed, "--json"]) == 0
    runs = [json.loads(text) for text in re.split(r"(?<=\n})\n", capsys.readouterr().out) if text]
    first, second, third = ([(c["cases"], c["worst"], c["layouts"]) for c in r["counts"]]
                            for r in runs)  # fmt: skip
    assert first == second != third
    assert len(list(place.glob("runs/*-verify*"))) == 3


# Time and interruption


def test_a_budget_too_short_says_what_was_not_reached(capsys):
    assert main(["verify", "--op", "softmax", "--seconds", "1e-9"]) == 0
    out = capsys.readouterr().out
    number = 2 * len(targets())
    assert f"not reached in the time: {number} of {number} rows x tables" in out


def test_a_budget_goes_through_all_rows_before_it_goes_deep():
    rows = [row for row in ENTRIES if row.name in ("relu", "erf", "copy")]
    where = targets(["reference"])
    calls: list[str] = []
    found = verify(
        rows, where, seconds=1e9, step=lambda name, *_: calls.append(name),
        stop=lambda: len(calls) >= 40,
    )  # fmt: skip
    assert set(calls[:3]) == {"relu", "erf", "copy"}
    assert found.rounds >= 1 and found.left > 0 and not found.failures


def test_what_a_later_round_finds_is_found_again(plant, capsys):
    def wrong_beyond_100(n: int, seed: int, offset: int) -> np.ndarray:
        out = reference.philox_bits(n, seed, offset)
        return out + np.uint32(1) if n > 100 else out

    plant(philox_bits=wrong_beyond_100)
    row = ["verify", "--backend", "planted", "--op", "philox_bits", "--check", "kernel"]
    assert main([*row, "--seconds", "600"]) == 1  # it ends where nothing is left to be found
    out = capsys.readouterr().out
    again = re.search(r"again: (.*)", out)
    assert again and "in philox_bits(129, " in out
    assert main(shlex.split(again[1])[1:]) == 1
    assert "in philox_bits(129, " in capsys.readouterr().out


def test_ctrl_c_writes_what_was_done(place, capsys, monkeypatch):
    advance = Progress.advance

    def interrupted(self: Progress, **shown: Any) -> None:
        advance(self, **shown)
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", interrupted)
    assert main(["verify", "--op", "erf", "--examples", "4", "--out", "report"]) == 130
    captured = capsys.readouterr()
    assert re.search(r"stopped by Ctrl-C after 2 of \d+ jobs; what was done is", captured.err)
    found = json.loads((place / "report/verify.json").read_text(encoding="utf-8"))
    assert found["jobs"] == 2 and found["jobs_left"] > 0

"""The command line: tiny runs, the files they leave, every kind of bad input, Ctrl-C."""

import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_recipes import idx

import minidl
from minidl.backends import native
from minidl.cli import info, main
from minidl.models import MLP, Standardize
from minidl.train import RECIPES, progress as progress_module, read_config, resolve
from minidl.train.chars import Text, build_model, full_loss, read_text
from minidl.train.loop import step
from minidl.train.progress import Progress, Stop

SENTENCE = "She sells sea shells by the sea shore, and the shells she sells are sea shells. "
TINY = ["--steps", "6"]
for pair in ("layers=1", "heads=2", "width=16", "context=16", "eval_every=2", "sample_length=30"):
    TINY += ["--set", pair]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current folder with a short text in it, and no progress lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIDL_PROGRESS", "0")
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    (tmp_path / "text.txt").write_text(SENTENCE * 40, encoding="utf-8")
    return tmp_path


def chars(*arguments: str) -> list[str]:
    return ["train", "--recipe", "chars", "--text", "text.txt", *TINY, *arguments]


def lines(folder: Path) -> list[dict]:
    content = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


def is_png(path: Path) -> bool:
    from matplotlib import image

    picture = image.imread(path)
    return min(picture.shape[:2]) > 200 and float(picture.std()) > 0.01


# Runs


def test_a_run_leaves_a_table_and_files(place, capsys):
    assert main(chars("--out", "run")) == 0
    table = capsys.readouterr().out
    head, rule, row = table.splitlines()[:3]
    assert head.split()[:3] == ["recipe", "measure", "result"] and set(rule) == {"-"}
    assert row.startswith("chars   validation loss in nats") and "interpolated trigram" in row
    assert "a sample:" in table and "chars: run" in table

    folder = place / "run"
    expected = "config.json curves.png metrics.json metrics.jsonl model.safetensors sample.txt"
    assert {p.name for p in folder.iterdir()} == {*expected.split(), "vocabulary.json"}
    assert is_png(folder / "curves.png")
    assert len((folder / "sample.txt").read_text(encoding="utf-8")) == 31
    rows = lines(folder)
    assert [row["x"] for row in rows] == [2, 4, 6]
    assert all(row["train_loss"] > 0 and row["val_loss_estimate"] > 0 for row in rows)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["interrupted"] is metrics["judged"] is False
    assert f"{metrics['metrics']['val_loss']['mean']:.4f}" in row


def test_the_saved_model_is_the_one_measured(place):
    assert main(chars("--out", "run")) == 0
    recipe, values = read_config("run/config.json")
    settings = resolve(recipe, values)
    text = Text(read_text(settings.text), settings.val_fraction, settings.context)
    model = build_model(settings, len(text.vocab))
    model.load_state_dict(minidl.load("run/model.safetensors"))
    measured = json.loads((place / "run/metrics.json").read_text())["metrics"]["val_loss"]["mean"]
    assert full_loss(model, text.validation) == pytest.approx(measured, rel=1e-6)
    assert json.loads((place / "run/vocabulary.json").read_text()) == text.vocab


def test_a_run_can_be_repeated_from_its_config(place, capsys):
    for arguments in (
        chars("--out", "first", "--seed", "3"),
        ["train", "--config", "first/config.json", "--out", "second"],
        ["train", "--config", "first/config.json", "--out", "other", "--seed", "4"],
    ):
        assert main(arguments) == 0
    first, second, other = (lines(place / name) for name in ("first", "second", "other"))
    assert first == second
    assert first != other
    sample = "sample.txt"
    assert (place / "first" / sample).read_bytes() == (place / "second" / sample).read_bytes()


def test_a_sample_does_not_reach_the_terminal_as_commands(place, capsys, monkeypatch):
    (place / "text.txt").write_text("\x1b[2J\u4e2d\x07 " * 400, encoding="utf-8")
    assert main(chars("--out", "run")) == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table and "\x07" not in table and "\N{REPLACEMENT CHARACTER}" in table
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert main(chars("--out", "again")) == 0


def test_digits(place, capsys):
    settings = ["--seeds", "2", "--epochs", "2", "--set", "hidden=[16]", "--set", "batch_size=256"]
    assert main(["train", "--recipe", "digits", *settings, "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    folder = Path(run["folder"])
    assert re.fullmatch(r"runs/\d{8}-\d{6}-digits", run["folder"])
    assert {(row["seed"], row["x"]) for row in lines(folder)} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert is_png(folder / "curves.png") and is_png(folder / "confusion.png")
    matrix = np.array(run["metrics"]["confusion"])
    assert matrix.sum() == 2 * 359
    accuracy = run["metrics"]["test"]["accuracy"]
    assert accuracy["mean"] == pytest.approx(matrix.trace() / matrix.sum())
    assert len(accuracy["values"]) == 2
    # Each seed has a split of its own that holds a tenth of every class, to within rounding.
    assert set(matrix.sum(1)) <= set(range(68, 76))


def test_breast_cancer(place, capsys):
    assert main(["train", "--recipe", "breast-cancer", "--epochs", "3", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    models = run["metrics"]["models"]
    assert set(models) == {"MLP", "logistic regression"}
    for name, summary in models.items():
        assert set(summary) == {"accuracy", "precision", "recall", "f1", "roc_auc"}
        assert all(len(cell["values"]) == 5 for cell in summary.values())
        matrix = np.array(run["metrics"]["confusion"][name])
        assert matrix.sum(1).tolist() == [357, 212]  # malignant is the second, positive class
    assert models["logistic regression"]["f1"]["mean"] > 0.95
    assert models["MLP"]["roc_auc"]["mean"] > 0.9
    folder = Path(run["folder"])
    assert is_png(folder / "curves.png") and is_png(folder / "confusion.png")
    assert {row.get("fold", "all") for row in lines(folder)} == {1, 2, 3, 4, 5, "all"}


def write_mnist(folder: Path, labels: int = 200) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 200), ("t10k", 50)):
        classes = rng.integers(0, 10, count)
        images = rng.integers(0, 60, (count, 28, 28))
        images[np.arange(count), classes] += 150  # a bright row says which class it is
        kept = classes[:labels]
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(0x0803, images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(0x0801, kept))


def test_mnist_files(place, capsys, monkeypatch):
    write_mnist(place / "data" / "mnist")
    monkeypatch.setenv("MINIDL_DATA", str(place / "data"))
    settings = ["--set", "hidden=[32]", "--set", "batch_size=20", "--json"]
    assert main(["train", "--recipe", "mnist", *settings]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["metrics"]["test"]["accuracy"]["mean"] > 0.9


def test_several_recipes_get_a_folder_each(place, capsys):
    write_mnist(place / "mnist")
    arguments = ["train", "--recipe", "chars", "--recipe", "mnist", "--out", "both", *TINY]
    arguments += ["--text", "text.txt", "--set", "data=mnist", "--epochs", "1"]
    assert main(arguments) == 0
    assert {p.name for p in (place / "both").iterdir()} == {"chars", "mnist"}
    config = json.loads((place / "both/mnist/config.json").read_text())
    assert config["settings"]["epochs"] == 1 and "steps" not in config["settings"]


def test_a_missed_bar_is_exit_code_1(place, capsys, monkeypatch):
    import minidl.train.images as images

    write_mnist(place / "mnist")
    monkeypatch.setattr(images, "_MNIST_BAR", 1.01)
    assert main(["train", "--recipe", "mnist", "--set", "data=mnist"]) == 1
    captured = capsys.readouterr()
    assert "MISSED" in captured.out
    assert captured.err.splitlines()[-1] == "minidl: bar missed: mnist"


def test_python_dash_m(place):
    done = subprocess.run(
        [sys.executable, "-m", "minidl", *chars("--quick")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("recipe") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_quick_runs_all_three(place, capsys):
    assert main(["train", "--quick", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["recipe"] for run in runs] == ["digits", "breast-cancer", "chars"]
    assert not any(run["judged"] for run in runs)


# Info


def test_info(capsys):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["minidl"] == minidl.__version__ and facts["numpy"] == np.__version__
    assert facts["cores"] >= 1
    assert {"matmul", "attention", "adam_step"} <= set(facts["kernels"])
    assert all({"layer", "reasons"} <= set(entry) for entry in facts["kernels"].values())
    functions = {name: entry["function"] for name, entry in facts["kernels"].items()}
    assert functions["sin"] == "numpy.sin"
    assert functions["lgamma"] == "minidl.backends.reference.special.lgamma"
    assert not any("<" in function for function in functions.values())
    assert facts["threads"]["used"] == minidl.get_num_threads() and facts["threads"]["why"]
    assert facts["processor"]["name"] and facts["versions"]["ml_dtypes"][0].isdigit()
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(e)}\s+\w", text, re.M) for e in facts["kernels"])


def info_of_a_process(affinity: set[int], **env: str) -> dict:
    """What `minidl info --json` says in a process that may run on these processors."""
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "info", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        preexec_fn=lambda: os.sched_setaffinity(0, affinity),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not native.cpu, reason=f"no native kernels: {native.layer().missing}")
def test_info_says_why_so_many_threads():
    every = os.sched_getaffinity(0)
    found = info_of_a_process({min(every)})["threads"]
    assert found["used"] == found["affinity"] == 1
    if (os.cpu_count() or 1) > 1:
        assert re.match(r"the affinity allows 1 of \d+ processors, 1 physical", found["why"])
    found = info_of_a_process(every, MINIDL_THREADS="3")["threads"]
    assert (found["used"], found["why"]) == (3, "MINIDL_THREADS=3")


def test_info_says_why_no_better_layer_serves():
    kernels = info.kernels()
    for entry, source in kernels.items():
        if source["layer"] == "native":
            assert source["function"] == f"minidl._cpu.{entry}" and not source["reasons"]
    if native.cpu:
        assert kernels["lgamma"]["reasons"][-1] == "native: has no kernel for it"
    else:
        assert kernels["lgamma"]["reasons"][-1].startswith("native: ")


def test_help_and_version(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("digits", "breast-cancer", "chars", "mnist", "--recipe"))
    assert main(["--version"]) == 0
    assert minidl.__version__ in capsys.readouterr().out
    assert main([]) == 2
    assert "train" in "".join(capsys.readouterr())


# Bad input

ONE_UPDATE = ["--epochs", "1"]
for pair in ("batch_size=1000", "lr=1e30", "activation=relu"):
    ONE_UPDATE += ["--set", pair]
BAD = [
    (["trian"], "trian"),
    (["train", "--recipe", "digit"], "unknown recipe 'digit'; did you mean 'digits'?"),
    (["train", "--recipe", "zzz"], "there are breast-cancer, chars, digits, mnist"),
    (["train", "--recipes", "digits"], "--recipe"),
    (["train", "--steps", "many"], "'many' is not a valid integer"),
    (["train", "--recipe", "digits", "--steps", "3"], "recipe 'digits' has no setting 'steps'"),
    (["train", "--set", "widht=3"], "these recipes have no setting 'widht'; did you mean 'width'?"),
    (chars("--set", "widht=3"), "did you mean 'width'?"),
    (chars("--set", "width"), "KEY=VALUE"),
    (chars("--set", "width=wide"), "width: input should be a valid integer"),
    (chars("--set", "width=-3"), "width: input should be greater than or equal to 1, got -3"),
    (chars("--set", "lr=NaN"), "lr: input should be a finite number"),
    (chars("--set", "heads=3"), "width must be a multiple of heads"),
    (chars("--set", "gelu=quick"), "gelu: string should match"),
    (chars("--set", "context=100000"), "the text is too short"),
    (chars("--set", "lr=1e-5"), "must not exceed lr, got min_lr=0.0004, lr=1e-05"),
    (chars("--set", "sample_length=1000000000"), "less than or equal to 100000"),
    (chars("--set", "width=" + "[" * 100_000), "width: input should be a valid integer"),
    (chars("--preset", "nanogtp"), "did you mean 'nanogpt'?"),
    (["train", "--recipe", "digits", "--preset", "nanogpt"], "no preset 'nanogpt'; there are none"),
    (["train", "--preset", "nanogpt"], "--preset needs one --recipe"),
    (["train", "--text", "nowhere.txt"], "nowhere.txt: No such file"),
    (["train", "--text", "."], "'.' is not a regular file"),
    (["train", "--text", ""], "'': No such file"),
    (["train", "--text", "/dev/zero"], "'/dev/zero' is not a regular file"),
    (["train", "--text", "fifo"], "'fifo' is not a regular file"),
    (["train", "--text", "empty.txt"], "the text is too short"),
    (["train", "--text", "binary.txt"], "binary.txt is not UTF-8 text"),
    (["train", "--recipe", "digits", "--set", "test_size=0.999"], "every class in both parts"),
    (["train", "--recipe", "digits", "--set", "hidden=[]"], "hidden: tuple should have at least"),
    (["train", "--recipe", "digits", "--set", "hidden=[0]"], "all positive"),
    (["train", "--recipe", "digits", "--set", "activation=swish"], "must be one of gelu, relu"),
    (["train", "--recipe", "mnist"], "set MINIDL_DATA"),
    (["train", "--recipe", "mnist", "--set", "data=nowhere"], "nowhere/train-images"),
    (["train", "--recipe", "mnist", "--set", "data=mnist"], "200 images but 150 labels"),
    (["train", "--recipe", "mnist", "--set", "data=torn"], "not a complete gzip file"),
    (["verify", "--op", "matmull"], "no operator or kernel 'matmull'; did you mean 'matmul'?"),
    (["verify", "--op", "zzzzz"], "there are T, abs, abs_"),
    (["verify", "--op", "zz*"], "no operator or kernel 'zz*'"),
    (["verify", "--backend", "gpu"], "there is no backend 'gpu' here; there are reference"),
    (["verify", "--backend", "native,avx2"], "there is no backend 'native,avx2' here; there are"),
    (["verify", "--isa", "avx1024"], "the instruction set"),
    (["verify", "--backend", "reference", "--isa", "avx2"], "sets of the native table"),
    (["verify", "--seconds", "0"], "0.0 is not in the range x>0"),
    (["verify", "--seed", "-1"], "-1 is not in the range x>=0"),
    (["verify", "--check", "values"], "'values' is not one of 'kernel'"),
    (["verify", "--op", "add", "--out", "empty.txt"], "empty.txt must be a new or an empty folder"),
    (["verify", "--examples", "0"], "0 is not in the range x>=1"),
    (["train", "--config", "nowhere.json"], "nowhere.json: No such file"),
    (["train", "--config", "text.txt"], "text.txt is not JSON"),
    (["train", "--config", "deep.json"], "deep.json is not JSON"),
    (["train", "--config", "list.json"], "must be an object with 'recipe'"),
    (["train", "--config", "typo.json"], "must not have the key 'setings'; did you mean"),
    (["train", "--config", "digits.json", "--recipe", "chars"], "is for recipe 'digits'"),
    (chars("--out", "text.txt"), "text.txt must be a new or an empty folder"),
    (chars("--out", "."), "must be a new or an empty folder"),
    (chars("--out", "text.txt/run"), "Not a directory"),
    (chars("--set", "lr=1e30", "--set", "min_lr=0"), "training diverged"),
    # one update, which no later loss looks at
    (["train", "--recipe", "breast-cancer", *ONE_UPDATE], "the model's outputs are not finite"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("arguments", "rule"), BAD, ids=[" ".join(a[1:])[-60:] for a, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(place, capsys, arguments, rule):
    write_mnist(place / "mnist", labels=150)
    write_mnist(place / "torn")
    torn = place / "torn/train-images-idx3-ubyte.gz"
    torn.write_bytes(torn.read_bytes()[:-100])
    (place / "empty.txt").touch()
    (place / "binary.txt").write_bytes(b"\x00\xff\xfe" * 1000)
    (place / "list.json").write_text("[]")
    (place / "deep.json").write_text("[" * 100_000)
    os.mkfifo(place / "fifo")
    (place / "typo.json").write_text('{"recipe": "digits", "setings": {}}')
    (place / "digits.json").write_text('{"recipe": "digits", "settings": {}}')
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *before, line = captured.err.splitlines()
    assert line.startswith("minidl: ") and rule in line
    assert all(text.split(":")[0] in RECIPES for text in before)  # the log


@pytest.mark.parametrize(
    "arguments",
    [
        ["--text", "nowhere.txt"],
        ["--set", "heads=97"],
        ["--set", "min_lr=1"],
        ["--set", "hidden=[0]"],
        ["--set", "activation=swish"],
        ["--set", "test_size=0.999"],
        ["--set", "hidden=[1000000000000]"],
    ],
)
def test_bad_input_is_found_before_the_first_recipe_starts(place, capsys, arguments):
    assert main(["train", "--recipe", "digits", "--recipe", "chars", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1  # no recipe has said its name
    assert not (place / "runs").exists()


def test_a_full_disk_is_said_with_the_file(place, capsys, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert main(chars("--out", "run")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "minidl: run/config.json: No space left on device"
    assert not list((place / "run").iterdir())


def test_a_folder_with_a_name_that_is_not_utf_8(place, capsys):
    out = os.fsdecode(b"run\xff")
    assert main(chars("--out", out)) == 0
    assert json.loads((place / out / "metrics.json").read_text())["folder"] == out


def test_debug_shows_the_traceback(place, capsys):
    assert main(["train", "--text", "nowhere.txt", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert error.splitlines()[-1].startswith("minidl: nowhere.txt")


def test_an_error_of_ours_is_not_called_bad_input(place, capsys, monkeypatch):
    def fail(settings):
        raise KeyError("oops")

    monkeypatch.setattr("minidl.cli.train.prepare", lambda *_: fail(None))
    assert main(chars()) == 1
    assert capsys.readouterr().err == (
        "minidl: internal error, KeyError: 'oops' (--debug shows the traceback)\n"
    )


# Ctrl-C


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(place):
    """Start `minidl train` beside the test; what still runs at its end is killed."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "minidl", "train", "--out", "run", *arguments]
        process = subprocess.Popen(
            command,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_ends_a_run_with_what_was_reached(place, start, number, code, name):
    arguments = chars("--steps", "1000000")[1:]
    process = start(*arguments)
    metrics = place / "run/metrics.jsonl"
    wait_for(metrics.exists, process)
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(f"minidl: stopped by {name}; ")
    assert "stopped" in out and "a sample:" in out
    names = {p.name for p in (place / "run").iterdir()}
    assert {"model.safetensors", "metrics.json", "curves.png", "sample.txt"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    result = json.loads((place / "run/metrics.json").read_text())
    assert result["interrupted"] is True and result["judged"] is False
    assert result["metrics"]["val_loss"]["mean"] == lines(place / "run")[-1]["val_loss_estimate"]


@pytest.mark.parametrize("recipe", ["digits", "breast-cancer"])
def test_ctrl_c_in_a_classifier(place, start, recipe):
    process = start("--recipe", recipe, "--epochs", "1000000", "--json")
    wait_for((place / "run/metrics.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    result = json.loads(out)
    assert result["interrupted"] is True
    (run,) = result["runs"]
    assert 0 < run["results"][0]["value"] <= 1
    assert (place / "run/model.safetensors").exists() and (place / "run/confusion.png").exists()


def stop_after(monkeypatch, steps: int) -> None:
    """Send Ctrl-C to this process in the update of that number."""
    import minidl.train.chars as chars_module
    import minidl.train.loop as loop_module

    done = 0

    def counted(*args):
        nonlocal done
        done += 1
        if done == steps:
            signal.raise_signal(signal.SIGINT)
        return step(*args)

    for module in (chars_module, loop_module):
        monkeypatch.setattr(module, "step", counted)


def test_a_seed_cut_short_is_not_counted(place, capsys, monkeypatch):
    stop_after(monkeypatch, 8)  # six belong to the first seed
    assert main(chars("--seeds", "3", "--out", "run")) == 130
    metrics = json.loads((place / "run/metrics.json").read_text())["metrics"]
    assert len(metrics["val_loss"]["values"]) == 1 and not metrics["val_loss_is_estimate"]
    assert "every position" in capsys.readouterr().out


def test_a_seed_of_a_classifier_cut_short_is_not_counted(place, capsys, monkeypatch):
    stop_after(monkeypatch, 8)
    few = ["--seeds", "3", "--epochs", "6", "--set", "batch_size=1500", "--set", "hidden=[8]"]
    assert main(["train", "--recipe", "digits", *few, "--json"]) == 130
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert len(run["metrics"]["test"]["accuracy"]["values"]) == 1
    assert "one seed" in run["results"][0]["measure"]


@pytest.mark.parametrize(("update", "folds"), [(30, 1), (90, 2)], ids=["second fold", "all rows"])
def test_a_fold_cut_short_is_not_counted_nor_written(place, capsys, monkeypatch, update, folds):
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import StratifiedKFold

    stop_after(monkeypatch, update)  # either fold has 24 updates, the fit on all rows 48
    few = ["--epochs", "4", "--set", "folds=2", "--set", "batch_size=48", "--set", "hidden=[8]"]
    assert main(["train", "--recipe", "breast-cancer", *few, "--out", "run", "--json"]) == 130
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["metrics"]["folds"] == folds
    assert ("one fold" if folds == 1 else "mean of 2 folds") in run["results"][0]["measure"]
    x, y = load_breast_cancer(return_X_y=True)
    split = list(StratifiedKFold(2, shuffle=True, random_state=0).split(x, 1 - y))
    model = MLP((30, 8, 1), scaler=Standardize(np.zeros(30), np.ones(30)))
    model.load_state_dict(minidl.load("run/model.safetensors"))
    inside, _ = split[folds - 1]
    assert np.allclose(model.scaler.mean.numpy(), x[inside].mean(0), rtol=1e-4)


def test_ctrl_c_in_the_evaluation(place, capsys, monkeypatch):
    import minidl.train.chars as chars_module

    def interrupted(model, ids, stop):
        assert (place / "run/model.safetensors").exists()  # a second Ctrl-C would cost it
        signal.raise_signal(signal.SIGINT)
        loss = full_loss(model, ids, stop)
        assert math.isnan(loss)  # no window was computed
        return loss

    monkeypatch.setattr(chars_module, "full_loss", interrupted)
    assert main(chars("--out", "run")) == 130
    metrics = json.loads((place / "run/metrics.json").read_text())["metrics"]
    assert metrics["val_loss"]["mean"] == lines(place / "run")[-1]["val_loss_estimate"]
    assert metrics["val_loss_is_estimate"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_is_a_flag_at_first(number):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop and stop.signal == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_stop_leaves_an_ignored_signal_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in `minidl train &` of a script
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupt_before_the_start(place, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minidl.cli.train.prepare", interrupt)
    assert main(chars()) == 130
    assert capsys.readouterr().err.strip() == "minidl: interrupted"


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def go(monkeypatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("job", 3) as shown:
        for loss in (3.0, 2.0, 1.25):
            shown.advance(loss=loss)
    return stream.getvalue()


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.delenv("MINIDL_PROGRESS", raising=False)
    assert "job:" in go(monkeypatch, Terminal()) and "3" in go(monkeypatch, Terminal())


def test_log_lines_elsewhere(monkeypatch, caplog):
    monkeypatch.delenv("MINIDL_PROGRESS", raising=False)
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger="minidl"):
        assert go(monkeypatch, io.StringIO()) == ""
    assert len(caplog.messages) == 3
    assert caplog.messages[-1].startswith("job: step 3 of 3, loss 1.25, ")


def test_no_progress_when_told_so(monkeypatch, caplog):
    monkeypatch.setenv("MINIDL_PROGRESS", "0")
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger="minidl"):
        assert go(monkeypatch, Terminal()) == ""
    assert not caplog.messages


def test_the_log_is_left_as_it_was(place, capsys):
    logger = logging.getLogger("minidl")
    before = (list(logger.handlers), logger.level, logger.propagate)
    main(["info"])
    assert (list(logger.handlers), logger.level, logger.propagate) == before

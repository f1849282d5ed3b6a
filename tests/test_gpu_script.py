"""benchmarks/gpu.sh and gpu_kernels without a GPU: all of it runs, and failures are told."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # last: an installed minidl stays the one in use
from benchmarks import gpu_kernels, gpu_rows  # noqa: E402

SCRIPT = ROOT / "benchmarks/gpu.sh"
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ for the emulator"
)


def script(out: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), **env}
    return subprocess.run(
        ["bash", str(SCRIPT), *options], env=env, capture_output=True, text=True, timeout=300
    )


# ---------------------------------------------------------------- the script


@needs_bash
def test_it_parses():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


@needs_bash
@needs_compiler
def test_a_dry_run(tmp_path):
    done = script(tmp_path, "--dry", "--steps", "build memcheck step")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    lines = [line.split()[:2] for line in summary.splitlines() if " passed " in line]
    assert lines == [["build", "passed"], ["memcheck", "passed"], ["step", "passed"]]
    assert "0 wrong" in summary and "transformer minidl eager" in summary
    assert "mlp" in json.loads((tmp_path / "gpu_step.json").read_text(encoding="utf-8"))["steps"]
    assert "==> memcheck (exit code 0)" in (tmp_path / "log.txt").read_text(encoding="utf-8")


@needs_bash
def test_a_failure_stops_no_other_step(tmp_path):
    done = script(tmp_path, "--dry", "--steps", "build verify step", PYTHON="false")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines() if " FAILED " in line] == [
        "build", "verify", "step",
    ]  # fmt: skip
    done = script(tmp_path, "--dry", "--steps", "kernels", GPU_SECONDS="1")
    assert done.returncode == 1 and "NO TIME" in done.stdout


@needs_bash
@pytest.mark.parametrize(
    ("said", "status", "result"),
    [
        ("ERROR SUMMARY: 0 errors", 0, "passed"),
        ("RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", 0, "FAILED"),
        ("ERROR SUMMARY: 2 errors", 9, "FAILED"),
        ("Error: Device not supported", 1, "left out"),
    ],
)
def test_what_a_sanitizer_says(tmp_path, said, status, result):
    """Without --dry, with a program in place of compute-sanitizer."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '========= {said}'\nexit {status}\n", encoding="utf-8")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = script(tmp_path / "out", "--steps", "racecheck", PATH=path)
    assert done.returncode == (result == "FAILED")
    summary = (tmp_path / "out/summary.txt").read_text(encoding="utf-8")
    assert f"racecheck  {result}" in summary


@needs_bash
def test_options(tmp_path):
    assert "--dry" in script(tmp_path, "--help").stdout
    done = script(tmp_path, "--wet")
    assert done.returncode == 2 and "--wet" in done.stderr


# ---------------------------------------------------------------- the rows


@needs_compiler
def test_a_dry_run_of_the_kernels(tmp_path):
    path = tmp_path / "found.json"
    options = ["--dry", "--no-rivals", "--only", "softmax", "--json", str(path)]
    assert gpu_kernels.main(options) == 0
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found["rows"]) == sum("softmax" in row.name for row in gpu_rows.rows())
    for row in found["rows"]:
        assert any("softmax" in kernel for kernel in row["started"]), row["name"]
        assert row["seconds"]["minidl"] > 0 and row["rate"] > 0 and not row["wrong"]
    assert found["device"].startswith("none") and found["versions"]["numpy"] == np.__version__


@needs_compiler
def test_a_wrong_result_is_not_timed(monkeypatch, capsys):
    row = next(row for row in gpu_rows.rows() if row.kernel == "softmax")
    others = gpu_rows._call("log_softmax", -1)
    monkeypatch.setattr(gpu_kernels, "rows", lambda: [replace(row, wants=others)])
    assert gpu_kernels.main(["--dry", "--no-rivals"]) == 1
    said = capsys.readouterr().out
    assert "WRONG minidl: result 0 is off by" in said and "1 rows, 1 wrong" in said


def test_without_a_gpu_one_line_says_so():
    if gpu_kernels.backends.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="needs a GPU, or --dry: "):
        gpu_kernels.main([])


def test_differences():
    x = np.ones(100)
    near, far, none = x.copy(), x.copy(), x.copy()
    near[0], far[0], none[0] = 1.005, 1.5, np.nan
    assert gpu_kernels.difference([x, x], [x], False) == ""
    assert gpu_kernels.difference([near], [x], True) == ""
    for found in ([near], [none], [x[:1]], []):
        assert gpu_kernels.difference(found, [x], False)
    assert gpu_kernels.difference([far], [x], True)
    assert gpu_kernels.difference([x == 1], [x != 1], False)


def test_bars_are_of_full_shapes():
    row = next(row for row in gpu_rows.rows() if row.kernel == "AdamW")
    result = gpu_kernels.Result(row.name, row.kernel, row.label, row.dtype, row.bytes(row.shape))
    result.seconds = {"minidl": 1e-3, "torch": 9e-4, "torch foreach": 2e-3, "cupy": 2e-3}
    gpu_kernels.judge(row, result, 3.9e12, True)
    assert result.missed == ["1.00 of torch"] and result.share == pytest.approx(0.893, abs=1e-3)
    gpu_kernels.judge(row, result, 4.9e12, False)
    assert not result.missed


def test_rows_are_what_they_say():
    rows: list[Any] = gpu_rows.rows()
    assert len({row.name for row in rows}) == len(rows)
    shapes = gpu_rows.gpt2_shapes(50257, 1024, 12, 768)
    assert sum(math.prod(shape) for shape in shapes) == 124_439_808 and len(shapes) == 148
    for row in rows:
        assert len(row.small) == len(row.tiny) == len(row.shape)
        assert row.bytes(row.shape) > row.bytes(row.small) > row.bytes(row.tiny) > 0

"""Which compilers the build finds, and what it does without them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "csrc"))

import build  # noqa: E402

SETUP = """
import runpy, sys
sys.path.insert(0, "csrc")
import build
build.nvcc = lambda: ""
sys.argv = ["setup.py", "-q", "build_ext", "--build-lib", sys.argv[1], "--build-temp", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


def program(folder: Path) -> Path:
    folder.mkdir(parents=True)
    file = folder / "nvcc"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_nvcc_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_path, at_home = program(tmp_path / "path"), program(tmp_path / "home" / "bin")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert build.nvcc() == str(on_path)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert build.nvcc() == str(at_home)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "nothing"))
    assert build.nvcc() == str(on_path)


def setuptools() -> int:
    """The major version of what runs setup.py; 0 without it."""
    try:
        return int(metadata.version("setuptools").split(".")[0])
    except metadata.PackageNotFoundError:
        return 0


NEEDS = pytest.mark.skipif(setuptools() < 77, reason="needs setuptools 77 to run setup.py")


def without_nvcc(tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SETUP, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "MINIDL_NATIVE": "0", **env},
        capture_output=True,
        text=True,
    )


@NEEDS
def test_without_nvcc_the_rest_is_built(tmp_path: Path):
    done = without_nvcc(tmp_path, MINIDL_CUDA="")
    assert done.returncode == 0, done.stderr
    assert "without minidl._cuda: no nvcc at install" in done.stderr
    package = tmp_path / "minidl"
    assert (package / "_build_cuda.txt").read_text() == "no nvcc at install\n"
    assert {p.stem for p in (package / "_kernels").iterdir()} == set(build.families())
    assert not list(package.glob("*.so"))


@NEEDS
def test_an_extension_that_must_be_there_is_missed(tmp_path: Path):
    done = without_nvcc(tmp_path, MINIDL_CUDA="1")
    assert done.returncode and "MINIDL_CUDA=1, but there is no nvcc at install" in done.stderr
    done = without_nvcc(tmp_path, MINIDL_CUDA="0")
    assert done.returncode == 0
    assert (tmp_path / "minidl" / "_build_cuda.txt").read_text() == "MINIDL_CUDA=0 at install\n"


def test_texts_are_complete():
    """What NVRTC gets includes nothing, and no line of the emulator but those that are skipped."""
    for name in build.families():
        text = build.text_of(name)
        assert not re.findall(r"^\s*#\s*include", text, re.MULTILINE), name
        assert text.count("#define KERNEL(") == 1


def test_a_family_is_listed_where_it_must_be():
    listed = re.findall(r"F\((\w+)\)", (build.CUDA / "families.h").read_text())
    assert sorted(set(listed) - {"F"}) == build.families()
    for name in build.families():
        assert (build.CUDA / f"{name}.cuh").exists()


def test_a_compile_error_fails(tmp_path: Path):
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    source = tmp_path / "wrong.cpp"
    source.write_text("int f( {")
    with pytest.raises(SystemExit, match=r"wrong\.cpp"):
        build.compiled(["g++", "-c", str(source)], tmp_path / "wrong.o", [source])
    source.write_text("int f() { return 1; }")
    assert build.compiled(["g++", "-c", str(source)], tmp_path / "wrong.o", [source]) == ""
    assert (tmp_path / "wrong.o").exists()


def test_what_g_plus_plus_cannot_compile_stays_behind_the_seam():
    """Launches, shared memory and PTX stand in common/ and sm80/ alone."""
    files = [*build.CUDA.glob("*.cu"), *build.CUDA.glob("*.cuh")]
    assert len(files) >= 2 * len(build.families())
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\basm\b|__shared__|<<<|EMULATED|#\s*include <", text), path.name

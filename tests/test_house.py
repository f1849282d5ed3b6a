"""The package as a newcomer meets it: folders, import, README, extras and version."""

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from test_budgets import code_lines, python_files

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "pyproject.toml",
    "setup.py",
    "minidl",
    "csrc",
    "tests",
    "benchmarks",
    "README.md",
    "LICENSE",
}
CORE = {"numpy", "ml_dtypes", "safetensors", "threadpoolctl", "tqdm"}
# Modules of Python itself that take milliseconds and that NumPy does not load for us already.
SLOW = {
    "argparse",
    "asyncio",
    "concurrent.futures",
    "email",
    "http",
    "importlib.metadata",
    "json",
    "logging",
    "multiprocessing",
    "pydoc",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "tkinter",
    "unittest",
    "urllib.request",
}


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a fresh process at the root of the repository."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@cache
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(), flags=re.M | re.S)


def distribution(requirement: str) -> str:
    """The name in a requirement such as `numpy>=2.1`."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


# Folders and files


def test_top_level():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so ignored files cannot be told from the project's")
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # A file that is deleted but not yet committed is listed too.
    files = [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]
    names = {name.split("/")[0] for name in files if not name.startswith(".")}
    assert names - TOP_LEVEL == set()
    assert TOP_LEVEL - names == set()


def test_files_that_ship():
    for name in ("minidl/py.typed", "minidl/CHANGELOG.md", "LICENSE"):
        assert (ROOT / name).is_file(), name
    assert os.access(ROOT / ".ci/run", os.X_OK)
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License") and "minidl authors" in text


# Version


def test_version_is_said_once():
    import minidl

    assert project().get("version") is None and "version" in project()["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", minidl.__version__)
    changelog = (ROOT / "minidl/CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, flags=re.M)
    assert newest and newest[1] == minidl.__version__


def test_version_of_the_installed_package():
    import minidl

    try:
        installed = metadata.version("minidl")
    except metadata.PackageNotFoundError:
        pytest.skip("minidl runs from the source folder and is not installed")
    assert installed == minidl.__version__


# Import


def modules_after(statement: str) -> set[str]:
    """The modules that a statement adds to a fresh interpreter that has NumPy and ml_dtypes."""
    code = (
        "import sys, numpy, ml_dtypes\n"
        "before = set(sys.modules)\n"
        f"{statement}\n"
        "sys.stderr.write('\\n'.join(set(sys.modules) - before))"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "import printed something"
    return set(done.stderr.split("\n"))


def test_import_is_quiet_and_light():
    new = modules_after("import minidl")
    assert "minidl.tensor" in new
    own_or_standard = {"minidl"} | set(sys.stdlib_module_names)
    foreign = {m for m in new if m.split(".")[0] not in own_or_standard}
    assert not {m for m in foreign if m.split(".")[0] not in ("numpy", "ml_dtypes")}
    assert not new & SLOW


def test_import_loads_no_oracle_or_extra():
    """Said by name, so that a rename of a package above cannot hide it."""
    new = modules_after("import minidl, minidl.nn, minidl.optim, minidl.data")
    optional = ("tqdm", "safetensors", "threadpoolctl", "sklearn", "matplotlib", "click")
    optional += ("pydantic", "hypothesis", "pytest", "torch", "scipy", "numba", "cupy")
    assert not new.intersection(optional)


def test_stub_is_what_its_generator_says():
    """Editors see the methods that the operators attach; compared in a process of its own."""
    done = python(
        "-c", "import sys; from minidl.testing.stubs import stub; sys.stdout.write(stub())"
    )
    assert done.returncode == 0, done.stderr
    stored = (ROOT / "minidl/tensor/core.pyi").read_text(encoding="utf-8")
    assert stored == done.stdout, "run `python -m minidl.testing.stubs`"


# Dependencies


def test_the_tests_need_no_other_extra():
    """The README's second command also stands alone: it brings what the tests run."""
    (own,) = (r for r in project()["optional-dependencies"]["test"] if r.startswith("minidl["))
    assert set(re.findall(r"\w+", own)) == {"minidl", "train", "verify"}


def test_core_dependencies():
    assert {distribution(r) for r in project()["dependencies"]} == CORE


def test_python_versions():
    stated = [c.rpartition(" ")[2] for c in project()["classifiers"] if ":: Python :: 3." in c]
    assert project()["requires-python"] == f">={stated[0]}"
    assert f"Python {stated[0]}-{stated[-1]}" in readme()
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert f"for version in {' '.join(stated)}; do" in ci


# README and continuous integration


def readme_commands() -> list[str]:
    """The last command of each line of the shell blocks: what the line is for."""
    lines = [line for block in code_blocks("bash") for line in block.splitlines()]
    return [line.rpartition("&&")[2].strip() for line in lines if line.startswith("pip install")]


def test_readme_commands_are_what_ci_runs():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    main, tests = readme_commands()
    assert main == "minidl train"
    assert tests.split()[0] == "pytest"
    for command in (f"{main} --quick", tests):
        assert re.search(rf"^(step )?{re.escape(command)}$", ci, flags=re.M), command


def test_readme_names_the_extras_that_exist():
    named = set(re.findall(r'"\.\[([a-z0-9,-]+)\]"', readme()))
    assert {extra for names in named for extra in names.split(",")} <= set(
        project()["optional-dependencies"]
    )
    for extra in project()["optional-dependencies"]:
        assert f"`{extra}`" in readme(), f"extra {extra} is not explained"


def test_readme_map_names_what_exists():
    named = re.findall(r"^\| `(minidl/[\w/.]*|\w+/)`", readme(), flags=re.M)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
    units = {p.stem for p in (ROOT / "minidl").iterdir() if p.suffix == ".py" or p.is_dir()}
    units -= {"__init__", "__main__", "__pycache__", "_kernels"}
    missing = {u for u in units if not re.search(rf"`minidl/{u}(/|\.py)`", readme())}
    assert not missing, f"not on the map: {sorted(missing)}"


def test_readme_operator_is_one_of_ours():
    section = readme().split("## Adding an operator")[1].split("\n## ")[0]
    indented = "\n".join(re.findall(r"^(?: {4}.*|)$", section, flags=re.M)).strip("\n")
    code = textwrap.dedent(indented) + "\n"
    assert "@sin.gradient" in code
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "minidl/ops").glob("*.py")]
    assert any(code in source for source in sources)
    row = re.search(r"`(_unary\(.*?\))`", section)
    table = (ROOT / "minidl/testing/cases/transcendental.py").read_text(encoding="utf-8")
    assert row and row[1] in table


def test_readme_says_how_much_there_is_to_read():
    said = re.search(r"about (\d),(\d)00 lines of code", readme())
    files = python_files("dtypes.py", "tensor", "autograd")
    counted = sum(len(code_lines(p.read_text(encoding="utf-8"))) for p in files)
    assert said and abs(int(said[1] + said[2] + "00") - counted) <= 100, counted


def test_readme_example_trains(tmp_path):
    example, further = code_blocks("python")
    assert len(example.splitlines()) <= 24
    further = further.replace("run.safetensors", str(tmp_path / "run.safetensors"))
    done = python("-W", "error", "-c", f"{example}\n{further}\nprint(len(per_sample['0.weight']))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "400"
    accuracy = re.search(r"held-out accuracy (\d\.\d+)", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) >= 0.95


# Extras

WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["minidl", *{arguments!r}]
from minidl.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("click", "train", ["train", "--quick"]),
        ("pydantic", "train", ["train", "--quick"]),
        ("sklearn", "train", ["train", "--quick", "--recipe", "digits"]),
        ("matplotlib", "train", ["train", "--quick", "--recipe", "digits"]),
        ("hypothesis", "verify", ["verify"]),
    ],
)
def test_a_missing_extra_is_one_clear_line(package, extra, arguments, tmp_path):
    code = WITHOUT.format(package=package, arguments=arguments)
    done = python("-c", code)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert package in line or "scikit-learn" in line
    assert f"minidl[{extra}]" in line
    assert done.stdout == ""


def test_every_extra_package_is_tested_for_absence():
    """Packages of the user-facing extras: a new one needs a row above."""
    extras = project()["optional-dependencies"]
    user_facing = {distribution(r) for extra in ("train", "verify") for r in extras[extra]}
    rows = test_a_missing_extra_is_one_clear_line.pytestmark[0].args[1]
    names = {"sklearn": "scikit-learn"}
    assert user_facing == {names.get(row[0], row[0]) for row in rows}

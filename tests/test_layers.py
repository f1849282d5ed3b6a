"""Imports inside minidl point downward, stand at the top of a file and stay light."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minidl"

# The layers, top first. A unit is a module or a package directly under minidl/.
# Units of one layer may use each other as long as that makes no cycle.
LAYERS = (
    ("__init__", "__main__"),
    ("cli", "serve"),
    ("train", "finetune", "evaluate", "explain", "compress"),
    ("models", "data"),
    ("func",),
    ("nn", "optim", "distributions", "linalg", "special"),
    ("testing", "profiler"),
    ("serialization",),
    ("ops",),
    ("autograd",),
    ("tensor",),
    ("backends",),
    ("dtypes", "errors"),
    ("_cpu", "_cuda"),  # csrc/cpu, csrc/cuda
)
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

# Everything else is imported by the function that needs it, so that `import minidl` stays cheap
# and an extra that is not installed is missed only by its user.
AT_TOP = {"minidl", "numpy", "ml_dtypes"} | set(sys.stdlib_module_names)
# Oracles and rivals: the package itself never imports them, not even in a function.
NEVER = {"torch", "transformers", "peft", "jax"}

FILES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    """One imported module as written in a file."""

    path: Path
    line: int
    target: str
    star: bool
    in_function: bool
    for_types: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """The unit that a dotted name under minidl belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def unit_of(path: Path) -> str:
    return unit(module_name(path))


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def resolve(path: Path, node: ast.ImportFrom) -> str:
    """The absolute name of the module in `from MODULE import ...`."""
    if not node.level:
        return node.module or ""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def targets(path: Path, node: ast.AST) -> Iterator[str]:
    """The modules that a node loads: import statements, and calls that load by a literal name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = resolve(path, node)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if base.split(".")[0] == "minidl" and is_module(full) else base
    elif isinstance(node, ast.Call) and node.args:
        name = ast.unparse(node.func)
        first = node.args[0]
        if name.rpartition(".")[2] in ("import_module", "__import__"):
            literal = isinstance(first, ast.Constant)
            yield str(first.value).lstrip(".") if literal else f"<{ast.unparse(first)}>"


def walk(
    node: ast.AST, in_function: bool = False, for_types: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node, whether it is inside a function, and whether only type checkers see it."""
    yield node, in_function, for_types
    in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    guarded = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in ast.iter_child_nodes(node):
        hidden = guarded and isinstance(node, ast.If) and child in node.body
        yield from walk(child, in_function, for_types or hidden)


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, wherever it stands."""
    found = []
    for node, *place in walk(ast.parse(path.read_text(encoding="utf-8"))):
        star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        for target in targets(path, node):
            found.append(Import(path, getattr(node, "lineno", 0), target, star, *place))
    return tuple(dict.fromkeys(found))


def is_own(target: str) -> bool:
    return target.split(".")[0] == "minidl"


def upward(file_unit: str, target: str) -> bool:
    return is_own(target) and LEVEL[unit(target)] < LEVEL[file_unit]


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """The names on one cycle of a graph, or nothing."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if found := visit(other, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := visit(name, []))), [])


def test_every_unit_has_a_layer():
    units = {unit_of(path) for path in FILES}
    assert len(FILES) > 10
    assert units <= set(LEVEL), f"not in the table of layers: {sorted(units - set(LEVEL))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_of_a_file(path):
    own = [i for i in imports(path) if is_own(i.target)]
    wrong = [f"{i.where}, upward" for i in own if upward(unit_of(path), i.target)]
    wrong += [f"{i.where} inside a function" for i in own if i.in_function]
    if path.name != "__init__.py":
        home = module_name(path).rpartition(".")[0]
        wrong += [f"{i.where}, its own package" for i in own if i.target == home]
    # a package's face hands on what the __all__ of its files name; elsewhere names are spelt out
    wrong += [f"{i.where} by star" for i in imports(path) if i.star and path.name != "__init__.py"]
    for i in imports(path):
        top = i.target.split(".")[0]
        if top in NEVER:
            wrong.append(f"{i.where}, an oracle of the tests")
        elif not i.in_function and top not in AT_TOP:
            wrong.append(f"{i.where} at the top; import it in the function that uses it")
    assert not wrong, "\n".join(wrong)


def test_units_make_no_cycle():
    edges: dict[str, set[str]] = {}
    for path in FILES:
        own = unit_of(path)
        used = {unit(i.target) for i in imports(path) if is_own(i.target)}
        edges.setdefault(own, set()).update(used - {own})
    assert sum(map(len, edges.values())) > 10
    assert not cycle(edges), " -> ".join(cycle(edges))


def test_modules_make_no_cycle():
    """Inside a package too. Its __init__ is its list of names, so it counts as no module here, and
    a neighbour may be named for type checkers alone; other layers may not, even for them.
    """
    edges = {
        module_name(path): {i.target for i in imports(path) if is_own(i.target) and not i.for_types}
        for path in FILES
        if path.name != "__init__.py"
    }
    assert not cycle(edges), " -> ".join(cycle(edges))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("import minidl.nn", "minidl.nn"),
        ("from minidl import nn", "minidl.nn"),
        ("from minidl.nn import Module", "minidl.nn"),
        ("from .. import nn", "minidl.nn"),
        ("from ..nn.functional import relu", "minidl.nn.functional"),
        ("def f():\n    from minidl import nn", "minidl.nn"),
        ("if TYPE_CHECKING:\n    from minidl import nn", "minidl.nn"),
        ("importlib.import_module('minidl.nn')", "minidl.nn"),
    ],
)
def test_the_reader_sees_every_spelling(tmp_path, monkeypatch, source, target):
    """The checks above are only as good as the reader: show it an upward import in each form."""
    for name in ("nn/__init__.py", "nn/functional.py", "ops/bad.py"):
        file = tmp_path / "minidl" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source if name == "ops/bad.py" else "")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (found,) = imports(tmp_path / "minidl/ops/bad.py")
    assert found.target == target
    assert found.in_function == source.startswith("def")
    assert found.for_types == source.startswith("if")
    assert upward("ops", found.target)
    assert not upward("train", found.target)


def test_cycles_are_found():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}}) == []

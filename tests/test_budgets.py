"""Sizes: the engine core, the files and the operators stay small enough to be read."""

import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minidl"
CORE = ("tensor.py", "tensor", "autograd", "dtypes.py", "errors.py", "backends/table.py")
# Beside the core, for those who need them: a reader of the engine can leave them out.
EDGES = ("interchange.py", "printing.py", "function.py", "anomaly.py", "autograd/hooks.py")
# The design set 1,500 for all of it, from a probe without edges, versions, promotion, checks or
# in-place history, and tensors on a second device (which table an operator runs on, what follows
# to a GPU, what is refused). With them the core is about 1,970 lines and DLPack, repr, Function and
# anomaly detection 490 more; the limits keep both from growing.
CORE_LINES = 2000
EDGE_LINES = 500
OPERATOR_LINES = 12
RAW_LINES = {".py": 700, ".cpp": 600, ".h": 600, ".cu": 600, ".cuh": 600}
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def python_files(*names: str) -> list[Path]:
    """The Python files at or under the named places of the package."""
    places = [PACKAGE / name for name in names]
    files = [p for p in places if p.is_file()]
    for folder in filter(Path.is_dir, places):
        files.extend(folder.rglob("*.py"))
    return sorted(files)


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that hold code: no blanks, comments or docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(value := node.value, ast.Constant):
            last = node.end_lineno if isinstance(value.value, str) else None
            docstrings.update(range(node.lineno, (last or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


class Operator(NamedTuple):
    """An operator with the code lines of its forward, gradient and composite together."""

    name: str
    place: str
    lines: int


def decorated_operator(function: ast.FunctionDef) -> str:
    """The operator that a function defines or completes, or nothing."""
    for decorator in function.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(call, ast.Name) and call.id == "op":
            return function.name
        if isinstance(call, ast.Attribute) and call.attr in ("gradient", "composite"):
            return ast.unparse(call.value)
    return ""


def operators(path: Path) -> list[Operator]:
    source = path.read_text(encoding="utf-8")
    code = code_lines(source)
    sizes: dict[str, int] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and (name := decorated_operator(node)):
            first = min(d.lineno for d in node.decorator_list)
            size = len(code.intersection(range(first, (node.end_lineno or first) + 1)))
            sizes[name] = sizes.get(name, 0) + size
    return [Operator(name, path.name, size) for name, size in sizes.items()]


def test_engine_core():
    sizes = {
        str(path.relative_to(PACKAGE)): len(code_lines(path.read_text(encoding="utf-8")))
        for path in python_files(*CORE)
    }
    edges = sum(size for name, size in sizes.items() if name.endswith(EDGES))
    core = sum(sizes.values()) - edges
    parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
    print(f"\nengine core: {core} of {CORE_LINES} code lines, edges: {edges} of {EDGE_LINES}")
    print(f"({parts})")
    for part in ("tensor", "autograd", "dtypes", "errors", "backends/table"):
        assert any(name.startswith(part) for name in sizes), f"{part} is missing"
    assert core <= CORE_LINES
    assert edges <= EDGE_LINES


def test_operators():
    found = [op for path in python_files("ops.py", "ops") for op in operators(path)]
    assert len(found) >= 10
    average = sum(op.lines for op in found) / len(found)
    longest = ", ".join(
        f"{op.name} {op.lines}" for op in sorted(found, key=lambda op: -op.lines)[:5]
    )
    print(f"\noperators: {len(found)}, {average:.1f} code lines on average; longest: {longest}")
    assert average <= OPERATOR_LINES


def test_files():
    tops = ("minidl", "csrc", "tests", "benchmarks")
    files = [f for top in tops for f in (ROOT / top).rglob("*") if f.suffix in RAW_LINES]
    files = [f for f in files if f.parent != ROOT / "minidl" / "_kernels"]  # made by the build
    sizes = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in files}
    longest = max(sizes, key=lambda f: sizes[f])
    print(f"\nfiles: {len(files)}; longest: {longest.relative_to(ROOT)}, {sizes[longest]} lines")
    over = [f"{f.relative_to(ROOT)}: {n}" for f, n in sizes.items() if n > RAW_LINES[f.suffix]]
    assert not over, "\n".join(over)


def test_setup_script():
    assert len((ROOT / "setup.py").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Doc\nstring."""\n\n# comment\nx = 1  # why\n', {5}),
        ("def f():\n    '''Doc.'''\n    return (\n        1,\n\n        2)\n", {1, 3, 4, 6}),
        ('x = """a\nb"""\n', {1, 2}),
        ("y = 2\n'attribute docstring'\n", {1}),
    ],
)
def test_the_counter(source, lines):
    assert code_lines(source) == lines


def test_the_operator_counter(tmp_path):
    file = tmp_path / "ops.py"
    file.write_text(
        '@op(view=True)\ndef a(k, x: Array):\n    """Doc."""\n    return x\n\n\n'
        "@a.gradient\ndef _(g):\n    return g\n\n\n"
        "@op\ndef b(k, x: Array):\n    return x\n\n\n"
        "def helper():\n    return 1\n"
    )
    assert operators(file) == [Operator("a", "ops.py", 6), Operator("b", "ops.py", 3)]

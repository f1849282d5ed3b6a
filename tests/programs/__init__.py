"""Programs in PyTorch's words, and the reader that runs them on it or on minidl.

Each has `model()` and `train(net, rng, steps)`, which yields the loss of every step; what is drawn
comes from NumPy's `rng`, so that both libraries see the same. `python -m programs NAME` in the
folder above trains one for longer.
"""

import re
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem[0] != "_")
# `minidl.data` is PyTorch's `torch.utils.data`; every other module has the same place in both.
RENAMED = [(r"\btorch\.utils\.data\b", "minidl.data"), (r"\btorch\b", "minidl")]


def load(name: str, library: str = "minidl") -> ModuleType:
    """The program as it is for "torch"; for "minidl" with its import lines changed."""
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    if library == "minidl":
        lines = [_changed(line) for line in lines]
    program = ModuleType(f"{name}_on_{library}")
    exec(compile("\n".join(lines), f"{name}.py on {library}", "exec"), program.__dict__)
    return program


def _changed(line: str) -> str:
    if not re.match(r"(import|from) torch\b", line):
        return line
    if line == "import torch":
        return "import minidl as torch"
    for old, new in RENAMED:
        line = re.sub(old, new, line, count=1)
    return line

"""What the kernels of csrc/cuda take, held against csrc/cuda/budgets.json.

    python tests/cuda_budgets.py           compares, prints a line per family, fails beyond a budget
    python tests/cuda_budgets.py --write   takes what is measured as the new budgets

Compiles with nvcc where the build did not, and reads what ptxas said: registers, shared memory,
stack and spills of every kernel on every GPU generation it is compiled for. Stack and spills must
be 0, registers and shared memory within the budget; warnings that ptxas makes of a kernel it could
not compile as written fail, too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "csrc"))

import build  # noqa: E402

FILE = build.CUDA / "budgets.json"
# registers that were asked for and not had; instructions serialised, or waits put between them
REFUSED = ("C7508", "C7510", "C7511", "C7517", "C7519")
SLACK = 8  # registers: another release of ptxas allots a few more


class Taken(NamedTuple):
    """Of one kernel on one target; bytes."""

    kernel: str
    target: str
    registers: int
    shared: int
    stack: int
    spills: int


_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<target>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def taken(said: str) -> list[Taken]:
    """What ptxas reports of each kernel."""
    found = []
    for entry in _ENTRY.finditer(said):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        spills = int(entry["stores"]) + int(entry["loads"])
        found.append(
            Taken(
                entry["kernel"],
                entry["target"],
                int(entry["registers"]),
                int(shared[1]) if shared else 0,
                int(entry["stack"]),
                spills,
            )
        )
    return found


def problems(
    found: list[Taken], said: str, budgets: dict[str, dict[str, dict[str, int]]]
) -> list[str]:
    """What is beyond a budget, or has none."""
    wrong = [f"{code}: {line}" for line in said.splitlines() for code in REFUSED if code in line]
    for own in found:
        where = f"{own.kernel} on {own.target}"
        if own.stack or own.spills:
            wrong.append(f"{where}: {own.stack} bytes of stack, {own.spills} spilled")
        budget = budgets.get(own.kernel, {}).get(own.target)
        if budget is None:
            wrong.append(f"{where}: has no budget")
            continue
        for name, most in (
            ("registers", budget["registers"] + SLACK),
            ("shared", budget["shared"]),
        ):
            if getattr(own, name) > most:
                wrong.append(f"{where}: {getattr(own, name)} {name}, at most {most}")
    known = {own.kernel for own in found}
    wrong += [f"{kernel}: has a budget, but is not compiled" for kernel in set(budgets) - known]
    return wrong


def main(write: bool) -> int:
    """Compile, print and compare; 1 if something is beyond its budget."""
    program, folder = build.nvcc(), build.ROOT / "build" / "cuda"
    if not program:
        print("no nvcc here: the budgets of the CUDA kernels were not checked")
        return 0
    build.compile_kernels(program, folder)
    found, everything = [], ""
    print(f"{'family':12} kernels registers (most) shared (most) stack spills object KB")
    for family in build.families():
        said = (folder / f"{family}.said").read_text()
        own = taken(said)
        if not own:
            print(f"{family}: ptxas reported no kernel", file=sys.stderr)
            return 1
        most = [max(getattr(one, name) for one in own) for name in Taken._fields[2:]]
        size = (folder / f"{family}.o").stat().st_size / 1e3
        count = len({one.kernel for one in own})
        registers, shared, stack, spills = most
        print(f"{family:12} {count:7} {registers:16} {shared:13} {stack:5} {spills:6} {size:9.0f}")
        found += own
        everything += said
    if write:
        budgets: dict[str, dict[str, dict[str, int]]] = {}
        for one in sorted(found):
            limits = {"registers": one.registers, "shared": one.shared}
            budgets.setdefault(one.kernel, {})[one.target] = limits
        lines = [f'  "{kernel}": {json.dumps(own)}' for kernel, own in budgets.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    budgets = json.loads(FILE.read_text(encoding="utf-8"))
    wrong = problems(found, everything, budgets)
    print("\n".join(wrong) or f"{len(budgets)} kernels within their budgets", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))

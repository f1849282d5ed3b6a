"""Which faults in a family of kernels the tests would not see.

    python tests/cuda_mutants.py softmax [--common] [--every 3]

Changes one thing at a time in the family's text (`--common`: in what it includes): a barrier goes,
a bound is one too far, a thread past the end goes on. Each change is compiled for the emulator and
tried with the family's rows and its tests. What no test sees is printed, with its line: it does no
harm (a barrier that other kernels need), or a test is missing. Takes some seconds for each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emulation import build, with_family

TESTS = Path(__file__).parent
CHANGES = (
    (r"__sync(threads|warp)\(\);", ""),
    (r" < (?!Vec)", " <= "),  # what a Vec has is for AddressSanitizer
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" <= ", " < "),
    (r"if \([^()]*\) return;", ""),
)


def parts(family: str) -> tuple[str, str]:
    """The family's text: what it includes, and its own."""
    text = build.text_of(family)
    lines = (build.CUDA / f"{family}.cuh").read_text(encoding="utf-8").splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if line.startswith("#include"))
    own = "".join(line for line in lines[last + 1 :] if not line.startswith("//"))
    assert text.endswith(own)
    return text.removesuffix(own), own


def mutants(text: str) -> Iterator[tuple[str, str, str]]:
    """Changed texts: (text, the line before, and after)."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        code = line.split("//")[0]
        if code.lstrip().startswith(("#", "static_assert", "template")) or code.endswith("\\"):
            continue
        for pattern, new in CHANGES:
            for found in re.finditer(pattern, code):
                changed = line[: found.start()] + new + line[found.end() :]
                yield (
                    "\n".join([*lines[:number], changed, *lines[number + 1 :]]),
                    line.strip(),
                    changed.strip(),
                )


def survives(library: Path, family: str) -> bool:
    """Whether all tests of the family pass."""
    names = importlib.import_module(f"minidl.backends.native_cuda.{family}").OVER
    orders = ("in order", "backwards")
    tests = [f"test_cuda_kernels.py::test_entry[{o}-{name}]" for name in names for o in orders]
    if (TESTS / f"test_cuda_{family}.py").exists():
        tests.insert(0, f"test_cuda_{family}.py")
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"EMULATOR_LIBRARY": str(library)}
    try:
        done = subprocess.run(
            command, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode in (0, 1, -11), done.stdout
    return done.returncode == 0


def main() -> None:
    """Try all changes of a family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=build.families())
    parser.add_argument("--common", action="store_true", help="change what the family includes")
    parser.add_argument("--every", type=int, default=1, help="try only every n-th change")
    given = parser.parse_args()
    included, own = parts(given.family)
    count = lived = 0
    for text, before, after in [*mutants(included if given.common else own)][:: given.every]:
        whole = text + own if given.common else included + text
        with tempfile.TemporaryDirectory() as folder:
            try:
                library = with_family(given.family, whole, Path(folder))
            except SystemExit:
                continue  # not C++ any more
            count += 1
            if survives(library, given.family):
                lived += 1
                print(f"not seen: {before}\n      as: {after}", flush=True)
    print(f"{given.family}: {count} changes, {count - lived} seen")


if __name__ == "__main__":
    main()

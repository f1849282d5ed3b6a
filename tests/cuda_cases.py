"""How often each kernel of csrc/cuda ran on the emulator; fails if one never did.

    EMULATOR_LOG=folder pytest -n 2 && python tests/cuda_cases.py folder

Every process of the tests leaves a file there with its launches per kernel (tests/emulation.py).
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "csrc"))

import build  # noqa: E402


def kernels(family: str) -> list[str]:
    """The names of a family's kernels, from what the preprocessor makes of its list."""
    file = str(build.CUDA / f"{family}.cuh")
    text = build.run([*build.compiler(), "-x", "c++", "-E", file])
    return re.findall(r'extern "C"\s+__global__[^;{]*?\b(\w+)\s*\(\s*const\s+__grid', text)


def main(folder: Path) -> int:
    """Print a line per family and the kernels that were never started."""
    launches: Counter[str] = Counter()
    for file in sorted(folder.glob("*.json")):
        launches.update(json.loads(file.read_text(encoding="utf-8")))
    never, count = [], 0
    print(f"{'family':12} kernels launches  fewest")
    for family in build.families():
        own = kernels(family)
        assert own, family
        never += [kernel for kernel in own if not launches[kernel]]
        count += len(own)
        total, fewest = sum(launches[k] for k in own), min(own, key=lambda k: launches[k])
        print(f"{family:12} {len(own):7} {total:8}  {launches[fewest]} of {fewest}")
    print(f"{count} kernels, {sum(launches.values())} launches on the emulator")
    if never:
        print(f"never started: {', '.join(never)}", file=sys.stderr)
    return 1 if never else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

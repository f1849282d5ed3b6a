"""Peak memory of training steps, one process per library.

After model, data and a warm-up step the process forgets its high-water mark (Linux,
/proc/self/clear_refs), runs five steps and reports how far the mark rose above what was resident
then. What a library has kept from the warm-up counts as resident, so two more figures stand
beside: the mark above what was resident before the model, and the whole of it.

    python -m benchmarks.memory NUMBER LIBRARY    one row in this process, as JSON
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.models import build, jobs

LIBRARIES = ("minidl", "torch")
STEPS = 5


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        for text in file:
            if text.startswith(name + ":"):
                return int(text.split()[1]) << 10
    raise KeyError(name)


def _reset() -> int:
    """Forget the high-water mark; the bytes that are resident now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return _status("VmRSS")


def _measure(number: int, name: str) -> dict[str, int]:
    library = importlib.import_module(name)
    library.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    before = _status("VmRSS")
    step = build(jobs()[number], library)
    step()
    resident = _reset()
    for _ in range(STEPS):
        step()
    mark = _status("VmHWM")
    return {"steps": mark - resident, "model": mark - before, "process": mark}


def run(only: str, threads: int) -> dict[str, Any]:
    """Every row in processes of its own; ours should be at most torch's."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    print(f"\nmemory, {threads} threads: MB over the steps / since before the model / process")
    rows = []
    for number, job in enumerate(jobs()):
        if only not in job.name:
            continue
        found: dict[str, dict[str, int]] = {}
        for library in LIBRARIES:
            command = [sys.executable, "-m", "benchmarks.memory", str(number), library]
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            found[library] = json.loads(done.stdout)
        texts = [
            f"{library} " + " /".join(f"{value / 1e6:7.1f}" for value in found[library].values())
            for library in LIBRARIES
        ]
        missed = [key for key in ("steps", "model") if found["minidl"][key] > found["torch"][key]]
        note = f"  MISSED {', '.join(missed)}" if missed else ""
        print(f"{job.name:38} {'   '.join(texts)}{note}", flush=True)
        rows.append({"name": job.name, **found})
    return {"suite": "memory", "threads": threads, "rows": rows}


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), sys.argv[2])))

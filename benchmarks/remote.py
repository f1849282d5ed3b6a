"""A rival in a process of its own, on the same processors: JAX, whose threads and allocator should
not share ours. The process sleeps in a read while it is not asked, so that its windows are its own.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SIDE = Path(__file__).parent / "jax_side.py"
MISSING = "skipped: jax is not installed (--jax PYTHON names an interpreter that has it)"


class Remote:
    """JAX under some interpreter, with as many processors as threads."""

    def __init__(self, interpreter: str, threads: int) -> None:
        flags = "--xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [interpreter, "-P", str(SIDE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        try:
            self.version = self._answer()
        except RuntimeError:
            self.close()
            raise

    def prepare(self, *case: Any) -> bool:
        """Make a case the one that is called; false if there is none of that name."""
        return self._ask("prepare", *case)

    def __call__(self) -> float:
        """One call; the value of a step's loss."""
        return self._ask("call")

    def per_call(self, calls: int) -> float:
        """Seconds of one call."""
        return self._ask("time", calls) / calls

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._said.close()

    def _ask(self, *message: Any) -> Any:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()
        answer = self._answer()
        if isinstance(answer, str):
            raise RuntimeError(f"jax: {message[:2]}: {answer}")
        return answer

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except EOFError:
            self._process.wait()
            self._said.seek(0)
            raise RuntimeError(self._said.read().decode()[-2000:]) from None


def found(interpreter: str | None, threads: int) -> tuple[Remote | None, str]:
    """JAX under the interpreter that is named, or under ours if it is installed; or why not.

    With it both processes keep to the same processors from here on, as many as threads.
    """
    if interpreter is None and find_spec("jax") is None:
        return None, MISSING
    if not hasattr(os, "sched_setaffinity"):
        return None, "skipped: this system does not keep processes to processors"
    before = os.sched_getaffinity(0)
    own = sorted(before)[:threads]
    os.sched_setaffinity(0, own)  # which a new process takes over
    try:
        remote = Remote(interpreter or sys.executable, threads)
    except (OSError, RuntimeError) as error:
        os.sched_setaffinity(0, before)
        reason = str(error).strip().splitlines()[-1:] or ["it ended"]
        return None, f"skipped: {reason[0]}"
    where = ", ".join(map(str, own))
    return remote, f"{remote.version}, jitted, in a process of its own; both on processors {where}"

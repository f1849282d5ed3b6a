"""The folder of one run: every file appears complete or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backends import native
from minidl.errors import ArgumentError
from minidl.serialization import write_atomic

_FLUSH_SECONDS = 2.0


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities become null, NumPy values plain ones."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def version() -> str:
    """The version of minidl; the package is always loaded before its modules."""
    return sys.modules["minidl"].__version__


def environment() -> dict[str, Any]:
    """What a run depends on beside its settings."""
    return {
        "minidl": version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": cores(),
        "native": native.describe(),
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_out(path: Path) -> None:
    """Refuse a place for a run that is a file or holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ArgumentError(f"{path} must be a new or an empty folder")


class RunFolder:
    """`config.json`, `metrics.jsonl` and whatever else a recipe writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._flushed = 0.0

    @classmethod
    def create(cls, recipe: str, out: Path | None) -> RunFolder:
        """Make `out`, which must be empty, or by default a new `runs/<date-time>-<recipe>`."""
        if out is not None:
            check_out(out)
            out.mkdir(parents=True, exist_ok=True)
            return cls(out)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{recipe}"
        for number in range(1, 1000):
            path = Path("runs") / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return cls(path)
        raise ArgumentError(f"there are 999 folders runs/{name} already")

    def write(self, name: str, content: bytes | str) -> None:
        """Write one file."""
        write_atomic(self.path / name, content)

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, indented."""
        self.write(name, to_json(value, indent=2) + "\n")

    def write_config(self, recipe: str, settings: Any) -> None:
        """Write what the run was told, in the form that `--config` reads."""
        values = dataclasses.asdict(settings)
        self.write_json(
            "config.json",
            {"recipe": recipe, "settings": values, "environment": environment()},
        )

    def log(self, **row: Any) -> None:
        """Add a row to `metrics.jsonl`; the file follows within seconds."""
        self.rows.append(row)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Bring `metrics.jsonl` up to date."""
        self.write("metrics.jsonl", "".join(to_json(row) + "\n" for row in self.rows))
        self._flushed = time.monotonic()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

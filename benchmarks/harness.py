"""Rows that are timed against their rivals in turns, and what is said of them.

A row has a function of ours and one per rival. Each round runs all of them for a few milliseconds,
in an order that changes; the ratio of a round is the best rival's time over ours. Reported are the
median ratio and the interval that holds the true median with 95 % (order statistics), and our
share of the limit: operations against multiply-adds alone, bytes against reads alone, both
measured in the same run.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from minidl.backends import native

RESULTS = Path(__file__).parent / "results"
MARGIN = 0.15  # by which a ratio may fall before --check speaks


@dataclass
class Row:
    """One comparison. operations and bytes are those that the result needs at the least."""

    name: str
    ours: Callable[[], Any]
    rivals: dict[str, Callable[[], Any]]
    operations: float = 0.0
    bytes: float = 0.0
    bar: float = 0.0


@dataclass
class Result:
    """Times in seconds (medians), the ratio of the best rival's to ours, its interval."""

    name: str
    ours: float
    rivals: dict[str, float]
    ratio: float
    low: float
    high: float
    bar: float
    share: float = 0.0  # of the limit; 0 where the row names none
    limit: str = ""
    rounds: int = 0

    @property
    def missed(self) -> bool:
        """Whether even the upper end of the interval is below the bar."""
        return self.high < self.bar


@dataclass
class Settings:
    """How long to measure, and with how many threads each side runs."""

    rounds: int = 15
    window: float = 0.01  # seconds of one side in one round
    threads: int = 1
    pause: float = 0.0  # before our window, until the rival's threads sleep
    peaks: list[float] = field(default_factory=list)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The order statistics between which the median lies with at least 95 %."""
    ordered, n = sorted(values), len(values)
    inside, below = 0.0, 0
    # the widest pair of ranks whose tails hold 2.5 % each at most
    for rank in range(n // 2):
        inside += math.comb(n, rank) / 2**n
        if inside > 0.025:
            break
        below = rank
    return ordered[below], ordered[n - 1 - below]


def per_call(function: Callable[[], Any], calls: int) -> float:
    """Seconds of one call."""
    start = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - start) / calls


def measure(row: Row, settings: Settings) -> Result:
    """Time a row in rounds."""
    sides = {"minidl": row.ours, **row.rivals}
    calls = {}
    for name, function in sides.items():
        function()
        calls[name] = max(1, int(settings.window / max(1e-7, per_call(function, 1))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for n in range(settings.rounds):
        order = list(sides) if n % 2 else list(reversed(sides))
        for name in order:
            if name == "minidl":
                sleep(settings.pause)
                peaks.append(peak())
            times[name].append(per_call(sides[name], calls[name]))
    ratios = [
        min(times[rival][i] for rival in row.rivals) / times["minidl"][i]
        for i in range(settings.rounds)
    ]
    low, high = interval(ratios)
    ours = statistics.median(times["minidl"])
    share, limit = 0.0, ""
    if row.operations and peaks[0]:
        share = row.operations / ours / (statistics.median(peaks) * settings.threads)
        limit = "operations"
    if row.bytes and (read := bandwidth()) and row.bytes / ours / read > share:
        share, limit = row.bytes / ours / read, "bytes"
    rivals = {name: statistics.median(times[name]) for name in row.rivals}
    ratio = statistics.median(ratios)
    return Result(row.name, ours, rivals, ratio, low, high, row.bar, share, limit, settings.rounds)


def peak() -> float:
    """Operations per second of one core, now; 0 without native kernels."""
    return native.cpu.fma_peak(0.001) if native.cpu else 0.0


_bandwidth: list[float] = []


def bandwidth() -> float:
    """Bytes per second that one core reads from memory; 0 without native kernels."""
    if not _bandwidth:
        reads = [native.cpu.read_bandwidth(1 << 28) for _ in range(3)] if native.cpu else [0.0]
        _bandwidth.append(max(reads))
    return _bandwidth[0]


def line(result: Result) -> str:
    """One line of the table."""
    rivals = ", ".join(f"{name} {_time(t)}" for name, t in result.rivals.items())
    share = f"{100 * result.share:3.0f} % of {result.limit}" if result.limit else ""
    bar = f"bar {result.bar:.2f}{' MISSED' if result.missed else ''}" if result.bar else ""
    return (
        f"{result.name:34} {_time(result.ours)}  {result.ratio:6.2f}"
        f" [{result.low:.2f}, {result.high:.2f}]  {rivals}  {share}  {bar}"
    ).rstrip()


def _time(seconds: float) -> str:
    scale, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms")
    return f"{seconds * scale:8.2f} {unit}"


def record(suite: str, results: Sequence[Result], settings: Settings) -> dict[str, Any]:
    """What is written of a run: ratios above all, and on what they were measured."""
    return {
        "suite": suite,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "native": native.describe(),
        "threads": settings.threads,
        "peak": peak(),
        "bandwidth": bandwidth(),
        "rows": [asdict(result) for result in results],
    }


def path_of(suite: str, threads: int) -> Path:
    """Where the ratios of a suite are kept."""
    return RESULTS / f"{suite}-{threads}.json"


def fallen(suite: str, results: Sequence[Result], settings: Settings) -> list[str]:
    """The rows whose ratio is below the kept one by more than the margin."""
    kept = json.loads(path_of(suite, settings.threads).read_text(encoding="utf-8"))
    before = {row["name"]: row["ratio"] for row in kept["rows"]}
    return [
        f"{r.name}: {r.ratio:.2f}, was {before[r.name]:.2f}"
        for r in results
        if r.name in before and r.high < before[r.name] * (1 - MARGIN)
    ]

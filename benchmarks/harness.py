"""Rows that are timed against their rivals in turns, and what is said of them.

A row has a function of ours and one per rival. Each round runs all of them for a few milliseconds,
in an order that changes; the ratio of a round is a rival's time over ours. Reported are the median
ratio and the interval that holds the true median with 95 % (order statistics), and our share of
the limit: the time that the row's operations take at the rate of multiply-adds alone, or its bytes
at the rate of reads and copies over a working set of that size, whichever is longer. Both rates are
measured in the same run.

The best rival, which ratios and bars count, is the best of those that run one operator after the
other, as we do: torch and NumPy. What compiles a whole function first (torch.compile, JAX) is timed
in the same rounds and has a ratio and, where a row says so, a bar of its own.

With several threads a side waits before its window until the threads of the side before sleep, and
waits busily: a caller that sleeps may wake on the processor on which a worker of a rival sleeps,
and both then share it, spinning (torch's 1024^3 with two threads: 23 ms instead of 11).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from minidl.backends import native

RESULTS = Path(__file__).parent / "results"
MARGIN = 0.15  # by which a ratio may fall before --check speaks
# how bytes are moved: "update" is in place; "momentum" and "adam" as optimisers do, 3 or 4 arrays
# of which all but one are written in place
KINDS = ("read", "copy", "update", "momentum", "adam")
COMPILERS = ("torch.compile", "jax")
LARGEST = 1 << 28  # bytes; a larger working set is memory as well


@dataclass
class Row:
    """One comparison, and the bars that it should clear.

    operations and bytes are those that the result needs at the least; `written` is the part of the
    bytes that is written; moved: "copy" where that is elsewhere, "update" where it is in place of
    what was read, "momentum" or "adam"; `rate` the operations per second of the dtype relative to
    float32's. jax: the case that benchmarks/jax_side.py knows, and its arguments.
    bar: ratio to the best rival; bars: to single rivals; share_bar: part of the limit; over:
    seconds by which ours may exceed its only rival, which is a part of it. A call does `per` of
    what is measured.
    """

    name: str
    ours: Callable[[], Any]
    rivals: dict[str, Callable[[], Any]] = field(default_factory=dict)
    operations: float = 0.0
    bytes: float = 0.0
    bar: float = 0.0
    bars: dict[str, float] = field(default_factory=dict)
    written: float = 0.5
    moved: str = "copy"
    rate: float = 1.0
    share_bar: float = 0.0
    over: float = 0.0
    per: int = 1
    jax: tuple[Any, ...] = ()


@dataclass
class Ratio:
    """A rival's time over ours: the median of the rounds and its interval."""

    median: float
    low: float
    high: float


@dataclass
class Result:
    """Seconds (medians), the ratio of the best rival's to ours and its interval, those of each."""

    name: str
    ours: float
    rivals: dict[str, float]
    ratio: float
    low: float
    high: float
    bar: float
    bars: dict[str, float]
    ratios: dict[str, Ratio]
    missed: list[str]  # what is below its bar even at the upper end of the interval
    model: float = 0.0  # seconds at the limit; 0 where the row names none
    share: float = 0.0  # of the limit
    limit: str = ""
    over: float = 0.0  # seconds by which ours exceeds its rival, where that is the question
    operations: float = 0.0
    bytes: float = 0.0
    rounds: int = 0


@dataclass
class Settings:
    """How long to measure, and with how many threads each side runs."""

    rounds: int = 15
    window: float = 0.01  # seconds of one side in one round
    threads: int = 1
    jax: Any = None  # remote.Remote, where there is one


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


def summary(values: Sequence[float]) -> Ratio:
    """The median and its interval."""
    return Ratio(statistics.median(values), *interval(values))


def per_call(function: Callable[[], Any], calls: int) -> float:
    """Seconds of one call; what runs in another process knows them itself."""
    if hasattr(function, "per_call"):
        return in_place(lambda: function.per_call(calls))  # type: ignore[attr-defined]
    start = perf_counter()
    for _ in range(calls):
        function()
    return (perf_counter() - start) / calls


def rest(before: str, threads: int) -> None:
    """Wait until the threads of a side sleep: OpenBLAS's poll for 0.1 s, OpenMP's less."""
    if threads > 1 and before:
        until = perf_counter() + (0.15 if before == "numpy" else 0.01)
        while perf_counter() < until:
            pass


def in_place(function: Callable[[], Any]) -> Any:
    """Call what sleeps, and come back to the processor that this thread was on."""
    allowed, processor = os.sched_getaffinity(0), ctypes.CDLL(None).sched_getcpu()
    try:
        return function()
    finally:
        os.sched_setaffinity(0, {processor})
        os.sched_setaffinity(0, allowed)


def measure(row: Row, settings: Settings) -> Result:
    """Time a row in rounds."""
    sides = {"minidl": row.ours, **row.rivals}
    if settings.jax and row.jax and ("jax" in sides or settings.jax.prepare(*row.jax)):
        sides["jax"] = settings.jax
    calls, last = {}, ""
    for name, function in sides.items():
        rest(last, settings.threads)
        function()
        last = name
        calls[name] = max(1, int(settings.window / max(1e-7, per_call(function, 1))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    peaks = []
    for n in range(settings.rounds):
        order = list(sides) if n % 2 else list(reversed(sides))
        for name in order:
            rest(last, settings.threads)
            last = name
            if name == "minidl":
                peaks.append(peak())
            times[name].append(per_call(sides[name], calls[name]) / row.per)
    mine = times.pop("minidl")
    eager = [times[name] for name in times if name not in COMPILERS] or list(times.values())
    best = [min(rivals) for rivals in zip(*eager, strict=True)]
    ratios = {name: summary(_quotients(times[name], mine)) for name in times}
    first = summary(_quotients(best, mine)) if best else Ratio(0.0, 0.0, 0.0)
    result = Result(
        row.name,
        statistics.median(mine),
        {name: statistics.median(times[name]) for name in times},
        first.median,
        first.low,
        first.high,
        row.bar,
        row.bars,
        ratios,
        [],
        operations=row.operations,
        bytes=row.bytes,
        rounds=settings.rounds,
    )
    _limit(row, result, statistics.median(peaks), settings.threads)
    _compare(row, result, [m - b for m, b in zip(mine, best, strict=False)])
    return result


def _quotients(theirs: Sequence[float], mine: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(theirs, mine, strict=True)]


def _limit(row: Row, result: Result, rate: float, threads: int) -> None:
    """Fill in the time at the limit and our share of it."""
    if native.cpu is None:
        return
    needed = {}
    if row.operations:
        needed["operations"] = row.operations / (rate * row.rate * threads)
    if row.bytes:
        needed["bytes"] = transfer(row, threads)
    if needed:
        result.limit = max(needed, key=lambda name: needed[name])
        result.model = needed[result.limit]
        result.share = result.model / result.ours


def _compare(row: Row, result: Result, differences: Sequence[float]) -> None:
    """List what is below its bar."""
    if result.high < row.bar:
        result.missed.append(f"{row.bar:.2f}")
    for name, bar in row.bars.items():
        if name in result.ratios and result.ratios[name].high < bar:
            result.missed.append(f"{bar:.2f} of {name}")
    if result.share and result.share < row.share_bar:
        result.missed.append(f"{100 * row.share_bar:.0f} % of {result.limit}")
    if row.over:
        result.over = statistics.median(differences)
        if interval(differences)[0] > row.over:
            result.missed.append(f"+{_time(row.over).strip()}")


# ---------------------------------------------------------------- the limits of this machine


def peak() -> float:
    """float32 operations per second of one core, now; 0 without native kernels."""
    return native.cpu.fma_peak(0.001) if native.cpu else 0.0


@cache
def bandwidth(size: int, kind: str, threads: int = 1) -> float:
    """Bytes per second of all threads, which share out a working set of `size` bytes.

    kind: one of KINDS.
    """
    own, seconds = size // threads, 0.05 if size > 1 << 24 else 0.01
    with ThreadPoolExecutor(threads) as pool:
        each = [pool.submit(native.cpu.bandwidth, own, kind, seconds) for _ in range(threads)]
        return sum(future.result() for future in each)


def transfer(row: Row, threads: int = 1) -> float:
    """Seconds that moving the bytes of a row takes at the least.

    Copies and updates move as much in as out; what is read beyond that goes at the rate of reads,
    and what is written beyond at the rate of copies.
    """
    working = min(LARGEST, 1 << max(13, round(math.log2(row.bytes))))
    if row.moved in ("momentum", "adam"):
        return row.bytes / bandwidth(working, row.moved, threads)
    both = min(1.0, 2 * row.written)
    seconds = both * row.bytes / bandwidth(working, row.moved, threads) if both else 0.0
    return seconds + (1 - both) * row.bytes / bandwidth(working, "read", threads)


# ---------------------------------------------------------------- text and files


def line(result: Result) -> str:
    """One line of the table: ours, ratio, rivals, the limit and our share of it, bars."""
    ratio = ""
    if result.over:
        ratio = f"+{_time(result.over).strip()}"
    elif result.rivals:
        ratio = f"{result.ratio:6.2f} [{result.low:.2f}, {result.high:.2f}]"
    rivals = ", ".join(
        f"{name} {_time(t)}"
        + (f" {result.ratios[name].median:.2f}" if len(result.rivals) > 1 else "")
        for name, t in result.rivals.items()
    )
    share = ""
    if result.limit:
        share = f"limit {_time(result.model)}, {100 * result.share:3.0f} % of {result.limit}"
    bars = [f"{result.bar:.2f}"] if result.bar else []
    bars += [f"{bar:.2f} of {name}" for name, bar in result.bars.items() if name in result.rivals]
    bar = f"bar {', '.join(bars)}" if bars else ""
    missed = f"MISSED {', '.join(result.missed)}" if result.missed else ""
    parts = f"{result.name:34} {_time(result.ours)}  {ratio:20}  {rivals:32}  {share:39}  {bar}"
    return f"{parts} {missed}".rstrip()


def _time(seconds: float) -> str:
    scale, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms")
    return f"{seconds * scale:8.2f} {unit}"


def limits(threads: int) -> dict[str, Any]:
    """The peak, and the bandwidth by working set: what rows are held against."""
    sizes = [1 << power for power in range(14, 29, 2)] if native.cpu else []
    kinds = {k: {size: bandwidth(size, k, threads) for size in sizes} for k in KINDS[:3]}
    return {"peak": peak() * threads, **kinds}


def record(suite: str, results: Sequence[Result], settings: Settings) -> dict[str, Any]:
    """What is written of a run: ratios above all, and on what they were measured."""
    return {
        "suite": suite,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "native": native.describe(),
        "threads": settings.threads,
        "limits": limits(settings.threads),
        "rows": [asdict(result) for result in results],
    }


def path_of(suite: str, threads: int) -> Path:
    """Where the ratios of a suite are kept."""
    return RESULTS / f"{suite}-{threads}.json"


def fallen(suite: str, results: Sequence[Result], settings: Settings) -> list[str]:
    """The rows whose ratio is below the kept one by more than the margin."""
    path = path_of(suite, settings.threads)
    if not path.exists():
        return [f"{path.name}: no ratios are kept; --save keeps them"]
    kept = json.loads(path.read_text(encoding="utf-8"))
    before = {row["name"]: row["ratio"] for row in kept["rows"]}
    return [
        f"{r.name}: {r.ratio:.2f}, was {before[r.name]:.2f}"
        for r in results
        if r.name in before and r.high < before[r.name] * (1 - MARGIN)
    ]

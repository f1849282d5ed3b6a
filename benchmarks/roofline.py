"""The picture of a run: every row as a point under the limits of the machine.

Left: operations per second against operations per byte, under the rate of multiply-adds and the
bandwidth of caches and memory. Right: rows that only move bytes, against their working set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKS = "osD^vP*X"


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture of some suites, as `harness.record` describes them, to a PNG or SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    limits = records[0]["limits"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    points = [row | {"suite": r["suite"]} for r in records for row in r["rows"]]
    both = [row for row in points if row["operations"] and row["bytes"]]
    only = [row for row in points if row["bytes"] and not row["operations"]]

    densities = [row["operations"] / row["bytes"] for row in both] or [1.0]
    xs = _spread(min(0.25, *densities) / 2, max(64.0, *densities) * 2)
    peak = limits["peak"] / 1e9
    left.axhline(peak, color="black", linewidth=1.5)
    left.text(xs[-1], peak * 1.06, f"multiply-adds, {peak:.0f} Gflop/s", ha="right", va="bottom")
    read, copy = (
        {int(size): rate for size, rate in limits[key].items()} for key in ("read", "copy")
    )
    levels = {"L1": 1 << 14, "L2": 1 << 18, "L3": 1 << 22, "memory": 1 << 28}
    for (level, size), shade in zip(levels.items(), ("0.75", "0.6", "0.45", "0.2"), strict=True):
        roof = [min(peak, x * read[size] / 1e9) for x in xs]
        left.plot(xs, roof, color=shade, linewidth=1, zorder=1)
        left.text(
            xs[1], roof[1] * 1.08, f"{level} {read[size] / 1e9:.0f} GB/s", color=shade, fontsize=8
        )
    _points(left, both, lambda row: row["operations"] / row["bytes"], "operations", densities)
    left.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="Gflop/s")
    left.set_title(f"{records[0]['native']}", fontsize=9)

    for name, rates, style in (("reads", read, "-"), ("copies", copy, "--")):
        sizes = sorted(rates)
        values = [rates[size] / 1e9 for size in sizes]
        right.plot(sizes, values, style, color="black", linewidth=1, label=f"{name} alone")
    _points(right, only, lambda row: row["bytes"], "bytes", [])
    right.set(xscale="log", yscale="log", xlabel="bytes of a call", ylabel="GB/s")
    for axes in (left, right):
        axes.grid(True, which="major", color="0.9")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _points(axes: Any, rows: Sequence[dict[str, Any]], x: Any, what: str, named: Any) -> None:
    for suite, mark in zip(dict.fromkeys(row["suite"] for row in rows), MARKS, strict=False):
        own = [row for row in rows if row["suite"] == suite]
        ys = [row[what] / row["ours"] / 1e9 for row in own]
        axes.scatter([x(row) for row in own], ys, s=22, marker=mark, label=suite, zorder=3)


def _spread(low: float, high: float, count: int = 60) -> list[float]:
    return [low * (high / low) ** (i / (count - 1)) for i in range(count)]

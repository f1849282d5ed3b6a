"""The picture of a run: every row as a point under the limits of the machine.

Left: operations per second against operations per byte, under the rate of multiply-adds and the
bandwidth of caches and memory. Right: rows that only move bytes, against how many. Rows below a bar
are hollow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MARKS = "osD^vP*X"
LEVELS = {"L1": 1 << 14, "L2": 1 << 18, "L3": 1 << 22, "memory": 1 << 28}
SHADES = ("0.75", "0.6", "0.4", "0.0")

Rows = Sequence[dict[str, Any]]


def draw(records: Rows, path: Path) -> None:
    """Write the picture of some suites, as `harness.record` describes them, to a PNG or SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    rows = [row | {"suite": record["suite"]} for record in records for row in record["rows"]]
    limits = records[0]["limits"]
    figure.suptitle(records[0]["native"], fontsize=9)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", axisbelow=True)
        axes.grid(True, which="major", color="0.9")
    _operations(left, [row for row in rows if row["operations"] and row["bytes"]], limits)
    _bytes(right, [row for row in rows if row["bytes"] and not row["operations"]], limits)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _operations(axes: Any, rows: Rows, limits: dict[str, Any]) -> None:
    densities = [row["operations"] / row["bytes"] for row in rows] or [1.0]
    low, high = min(0.05, *densities) / 2, max(64.0, *densities) * 2
    xs = [low * (high / low) ** (i / 200) for i in range(201)]
    peak = limits["peak"] / 1e9
    axes.axhline(peak, color="black", linewidth=1.5)
    axes.text(high, peak * 1.05, f"multiply-adds {peak:.0f} Gflop/s", ha="right", fontsize=8)
    for n, ((level, size), shade) in enumerate(zip(LEVELS.items(), SHADES, strict=True)):
        rate = limits["read"][size] / 1e9
        axes.plot(xs, [min(peak, x * rate) for x in xs], color=shade, linewidth=1)
        y = peak / 1.7 ** (n + 1)
        label = f"{level} {rate:.0f} GB/s "
        axes.text(y / rate, y, label, color=shade, ha="right", va="center", fontsize=8)
    _points(axes, rows, lambda row: row["operations"] / row["bytes"], "operations")
    axes.set(xlabel="operations per byte", ylabel="Gflop/s", ylim=(None, peak * 1.4))


def _bytes(axes: Any, rows: Rows, limits: dict[str, Any]) -> None:
    for kind, style in (("read", "-"), ("copy", "--"), ("update", ":")):
        rates = {size: rate / 1e9 for size, rate in limits[kind].items()}
        axes.plot(list(rates), list(rates.values()), style, color="0.3", linewidth=1, label=kind)
    _points(axes, rows, lambda row: row["bytes"], "bytes")
    axes.set(xlabel="bytes of a call", ylabel="GB/s")


def _points(axes: Any, rows: Rows, x: Callable[[dict[str, Any]], float], what: str) -> None:
    suites = dict.fromkeys(row["suite"] for row in rows)
    for n, suite in enumerate(suites):
        color = f"C{n}"
        own = [row for row in rows if row["suite"] == suite]
        faces = ["none" if row["missed"] else color for row in own]
        ys = [row[what] / row["ours"] / 1e9 for row in own]
        place = {"s": 22, "marker": MARKS[n % len(MARKS)], "edgecolors": color, "zorder": 3}
        axes.scatter([x(row) for row in own], ys, facecolors=faces, **place)
        axes.scatter([], [], facecolors=color, label=suite, **place)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))

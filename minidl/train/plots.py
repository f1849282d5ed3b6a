"""Pictures of a run, as PNG bytes; drawn without pyplot, so no window and no global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Panel:
    """One axes: the keys of the rows to draw with their labels, and level lines to draw across."""

    ylabel: str
    series: Mapping[str, str]
    levels: Mapping[str, float] | None = None


def curves(
    title: str, xlabel: str, rows: Sequence[Mapping[str, Any]], group: str, panels: Sequence[Panel]
) -> bytes:
    """Draw every group's line thin and the mean over the groups bold, one panel beside the other.

    `rows` carry "x", the value of `group` (seed, fold) and the keys of the panels; a row may lack
    a key.
    """
    figure = _figure(5.2 * len(panels), 3.9)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, panel in zip(axes, panels, strict=True):
        for colour, (key, label) in enumerate(panel.series.items()):
            _draw_lines(place, rows, group, key, label, f"C{colour}")
        for offset, (label, level) in enumerate((panel.levels or {}).items()):
            style = {"color": f"C{len(panel.series) + offset}", "linestyle": "--", "linewidth": 1.2}
            place.axhline(level, label=f"{label} {level:.4g}", **style)
        place.set_xlabel(xlabel)
        place.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # no epoch 1.04
        place.set_ylabel(panel.ylabel)
        place.grid(alpha=0.25)
        if place.lines:
            place.legend(frameon=False, fontsize=9)
    figure.suptitle(title)
    return _png(figure)


def _draw_lines(
    axes: Any, rows: Sequence[Mapping[str, Any]], group: str, key: str, label: str, colour: str
) -> None:
    lines: dict[Any, list[tuple[float, float]]] = {}
    at: dict[float, list[float]] = {}
    for row in rows:
        if row.get(key) is not None:
            lines.setdefault(row.get(group), []).append((row["x"], row[key]))
            at.setdefault(row["x"], []).append(row[key])
    if not lines:
        return
    several = len(lines) > 1
    if several:
        for line in lines.values():
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.8, alpha=0.35)
        label = f"{label}, mean of {len(lines)} {group}s"
    # A run that was stopped has groups of different length: the mean ends with the shortest.
    mean = [(x, float(np.mean(at[x]))) for x in sorted(at) if len(at[x]) == len(lines)]
    if mean:
        marker = "o" if len(mean) == 1 else None
        axes.plot(*zip(*mean, strict=True), color=colour, linewidth=1.8, label=label, marker=marker)


def confusions(title: str, matrices: Mapping[str, np.ndarray], labels: Sequence[str]) -> bytes:
    """Draw confusion matrices of the same classes, one beside the other, with their counts."""
    size = max(3.4, 0.52 * len(labels) + 1.6)
    figure = _figure(size * len(matrices) + 0.4, size + 0.3)
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for place, (name, matrix) in zip(axes, matrices.items(), strict=True):
        share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        place.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            shade = "white" if share[row, column] > 0.5 else "black"
            place.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=9)
        ticks = range(len(labels))
        place.set_xticks(ticks, labels)
        place.set_yticks(
            ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0, va="center"
        )
        place.set_xlabel("predicted")
        place.set_ylabel("true")
        accuracy = np.trace(matrix) / max(matrix.sum(), 1)
        heading = f"accuracy {accuracy:.4f}, {matrix.sum()} rows"
        place.set_title(f"{name}\n{heading}" if len(matrices) > 1 else heading, fontsize=10)
    figure.suptitle(title)
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=120)


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

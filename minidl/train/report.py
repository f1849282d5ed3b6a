"""The final table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from minidl.train.loop import Line, Outcome

_HEAD = ("recipe", "measure", "result", "compared with", "", "verdict", "time")


def table(outcomes: Sequence[Outcome]) -> str:
    """One line per result, in columns, then what each recipe has to add."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for outcome in outcomes:
        for line in outcome.lines:
            rows.append(
                (
                    outcome.recipe,
                    line.measure,
                    f"{line.value:.4f}",
                    line.against,
                    f"{line.other:.4f}",
                    _verdict(outcome, line),
                    f"{outcome.seconds:.1f} s",
                )
            )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    right = (2, 4, 6)
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    for outcome in outcomes:
        if outcome.text:
            lines += ["", f"{outcome.recipe}, {_printable(outcome.text.rstrip())}"]
    lines += ["", *(f"{outcome.recipe}: {outcome.folder}" for outcome in outcomes)]
    return "\n".join(lines)


def _verdict(outcome: Outcome, line: Line) -> str:
    if outcome.interrupted:
        return "stopped"
    if line.holds is None or not outcome.judged:
        return "-"
    return "met" if line.holds else "MISSED"


def _printable(text: str) -> str:
    """A sample may hold whatever its text held; a terminal must not obey it."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )

"""Tables on the terminal: columns, and the final one of a run."""

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
    lines = columns(rows, right=(2, 4, 6))
    lines.insert(1, "-" * max(map(len, lines)))
    for outcome in outcomes:
        if outcome.text:
            lines += ["", f"{outcome.recipe}, {_printable(outcome.text.rstrip())}"]
    lines += ["", *(f"{outcome.recipe}: {outcome.folder}" for outcome in outcomes)]
    return "\n".join(lines)


def columns(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> list[str]:
    """Lines of a table with two spaces between columns, those of `right` set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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

"""`minidl verify`: what to check, the printed table, `verify.json` and `verify.html`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minidl import train
from minidl.cli.common import MISSED, fail, say, stopped
from minidl.cli.verify_page import page
from minidl.testing.case import Case
from minidl.testing.cases import CASES, FAMILY as OPERATOR_FAMILY
from minidl.testing.entries import ENTRIES, FAMILY as KERNEL_FAMILY
from minidl.testing.targets import Target, targets
from minidl.testing.verify import Count, Failure, Found, Key, verify
from minidl.train.folder import RunFolder, check_out
from minidl.train.report import columns

WIDE = 5  # tables side by side on a terminal of 100 columns
_LEGEND = (
    "worst: the largest error as a share of what is allowed (2 x plain + floor; 1 is the limit);\n"
    "ULP: the largest error of that row, in units in the last place of a result's largest value"
)


def run(
    names: tuple[str, ...],
    isa: str | None,
    patterns: tuple[str, ...],
    checks: tuple[str, ...],
    examples: int,
    seconds: float | None,
    seed: int,
    details: bool,
    out: str | None,
    as_json: bool,
) -> int:
    """Run the checks, print and write what they found; the exit code."""
    train.require(["hypothesis"])
    where = targets(names, isa)
    rows = chosen(patterns)
    if out is not None:
        check_out(Path(out))
    total = len(rows) * len(where)
    label = "verify" if seconds is None else f"verify {seconds:g} s"
    with train.Stop() as stop, train.Progress(label, total, "job") as progress:

        def step(name: str, done: int, jobs: int, failed: int) -> None:
            progress.total = max(jobs, done)
            progress.advance(name=name, failed=failed)

        found = verify(
            rows, where, examples=examples, seconds=seconds, seed=seed, checks=checks,
            step=step, stop=lambda: bool(stop),
        )  # fmt: skip
    folder = RunFolder.create("verify", None if out is None else Path(out))
    facts = described(found, where, {"examples": examples, "seconds": seconds, "seed": seed})
    folder.write_json("verify.json", facts)
    folder.write("verify.html", page(facts))
    if as_json:
        say(train.to_json(facts | {"folder": folder.path}, indent=2))
    else:
        say(text(found, where, details or bool(patterns)))
        say(f"\n{folder.path / 'verify.html'}")
    if stop:
        reached = f" after {found.jobs} of {found.jobs + found.left} jobs"
        return stopped(stop, f"{reached}; what was done is written to {folder.path}")
    if found.failures:
        return fail(f"{len(found.failures)} checks failed", MISSED)
    return 0


def chosen(patterns: Sequence[str]) -> list[Case]:
    """The kernels and operators whose names match one of the patterns; all without any."""
    rows: list[Case] = [*ENTRIES, *CASES]
    if not patterns:
        return rows
    known = {row.name: row for row in rows}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            train.check_names([pattern], known, "there is no operator or kernel")
    return [row for row in rows if any(fnmatchcase(row.name, p) for p in patterns)]


def described(found: Found, where: Sequence[Target], asked: dict[str, Any]) -> dict[str, Any]:
    """All that was found, for JSON and for the page."""
    return {
        **asked,
        "environment": train.environment(),
        "tables": [target.label for target in where],
        "time": found.seconds,
        "rounds": found.rounds,
        "jobs": found.jobs,
        "jobs_left": found.left,
        "cases": sum(count.cases for count in found.counts.values()),
        "reached": len(found.reached),
        "planned": found.planned,
        "failed": [_failure(failure) for failure in found.failures],
        "counts": [
            {
                **key._asdict(),
                "family": family(key.kind, key.row),
                "cases": count.cases,
                "worst": count.share,
                "ulp": count.ulp,
                "seconds": count.seconds,
                "layouts": dict(count.layouts),
            }
            for key, count in found.counts.items()
        ],
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "table": failure.target.label,
        "kind": failure.kind,
        "row": failure.row,
        "check": failure.check,
        "dtypes": list(failure.dtypes),
        "message": failure.message,
        "command": failure.command,
    }


def family(kind: str, row: str) -> str:
    """The file of the table that the row stands in."""
    return (KERNEL_FAMILY if kind == "kernel" else OPERATOR_FAMILY).get(row, "other")


def _grouped(found: Found, group: Callable[[Key], Any]) -> dict[Any, Count]:
    sums: dict[Any, Count] = {}
    for key, count in found.counts.items():
        sums.setdefault(group(key), Count()).add(count)
    return sums


def text(found: Found, where: Sequence[Target], per_row: bool) -> str:
    """The printed table: a line per family (or row), two columns per table; totals; failures."""
    labels = [target.label for target in where]
    lines: list[str] = []
    for start in range(0, len(labels), WIDE):
        lines += _matrix(found, labels[start : start + WIDE], per_row) + [""]
    lines += _totals(found, labels)
    lines += ["", *_LEGEND.splitlines()]
    if missing := found.planned - len(found.reached):
        lines.append(f"not reached in the time: {missing} of {found.planned} rows x tables")
    for failure in found.failures:
        dtypes = ", ".join(failure.dtypes)
        lines += ["", f"FAILED {failure.target.label} {failure.row}: {failure.check}, {dtypes}"]
        lines += [f"  {failure.message}", f"  again: {failure.command}"]
    return "\n".join(lines)


def _matrix(found: Found, labels: Sequence[str], per_row: bool) -> list[str]:
    def name(key: Key) -> tuple[str, str]:
        return key.kind, key.row if per_row else family(key.kind, key.row)

    sums = _grouped(found, lambda key: (*name(key), key.table))
    wrong = {(*name(_key(f)), f.target.label) for f in found.failures}
    short = [label.removeprefix("native/") for label in labels]
    rows = [("", *short), ("", *["cases worst"] * len(labels))]
    for line in dict.fromkeys(name(key) for key in found.counts):
        cells = []
        for label in labels:
            count = sums.get((*line, label))
            worst = "FAIL" if (*line, label) in wrong else f"{count.share:.2f}" if count else ""
            cells.append(f"{count.cases if count else '-'} {worst:>5}")
        rows.append((f"{line[0]} {line[1]}", *cells))
    table = columns(rows, right=tuple(range(1, len(labels) + 1)))
    return [*table[:2], "-" * max(map(len, table)), *table[2:]]


def _key(failure: Failure) -> Key:
    return Key(failure.target.label, failure.kind, failure.row, failure.check, "")


def _totals(found: Found, labels: Sequence[str]) -> list[str]:
    rows = [("table", "rows", "cases", "worst", "ULP", "in", "time", "failed")]
    for label in labels:
        own = {key: count for key, count in found.counts.items() if key.table == label}
        if not own:
            continue
        worst, count = max(own.items(), key=lambda item: item[1].share)
        rows.append(
            (
                label,
                str(len({(key.kind, key.row) for key in own})),
                str(sum(c.cases for c in own.values())),
                f"{count.share:.2f}",
                f"{count.ulp:.1f}",
                f"{worst.row} {worst.dtype}" if count.share else "-",
                f"{sum(c.seconds for c in own.values()):.1f} s",
                str(sum(f.target.label == label for f in found.failures)),
            )
        )
    return columns(rows, right=(1, 2, 3, 4, 6, 7))

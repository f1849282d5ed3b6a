"""`verify.html`: one file that needs nothing else, failures first, light and dark."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #60646c; --paper: #fcfcfd; --line: #d9d9e0;
  --panel: #f0f0f3; --bad: #ce2c31; --bad-ink: #fff; --hue: 39, 120, 196; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --dim: #b0b4ba; --paper: #111113;
  --line: #363a3f; --panel: #212225; --bad: #e5484d; --hue: 82, 160, 236; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p, dd { color: var(--dim); } code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--panel); padding: .7rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.fail { border-left: 4px solid var(--bad); padding: .1rem 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { position: sticky; top: 0; background: var(--paper); }
td.bad { background: var(--bad); color: var(--bad-ink); font-weight: 600; }
td small { color: var(--dim); } td.bad small { color: inherit; }
tr.family th { padding-top: 1rem; color: var(--dim); font-weight: 600; }
"""


def page(facts: dict[str, Any]) -> str:
    """The page of what `minidl verify` found, as `verify.json` has it."""
    failed = facts["failed"]
    verdict = f"{len(failed)} checks failed" if failed else "every check passed"
    environment = ", ".join(f"{k} {v}" for k, v in facts["environment"].items())
    left = facts["planned"] - facts["reached"]
    missed = f" {left} of {facts['planned']} rows were not reached in the time." if left else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>minidl verify: {verdict}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style></head><body>
<h1>minidl verify: {verdict}</h1>
<p>{facts["cases"]} cases passed in {facts["time"]:.1f} s, seed {facts["seed"]}, on
{len(facts["tables"])} kernel tables.{missed}<br>{escape(environment)}</p>
{"".join(_failure(f) for f in failed)}
{_totals(facts)}
<h2>Operators and kernels</h2>
<p>Each cell: the largest error as a share of what is allowed (2 &times; plain + floor; 1 is the
limit), and the cases that passed. The darker, the nearer to the limit.</p>
<div class="scroll">{_matrix(facts)}</div>
</body></html>
"""


def _failure(failure: dict[str, Any]) -> str:
    title = f"{failure['table']} {failure['row']}: {failure['check']}"
    return (
        f'<div class="fail"><h2>{escape(title)}, {escape(", ".join(failure["dtypes"]))}</h2>'
        f"<pre>{escape(failure['message'])}</pre>"
        f"<p>Again: <code>{escape(failure['command'])}</code></p></div>"
    )


def _totals(facts: dict[str, Any]) -> str:
    rows = []
    for table in facts["tables"]:
        own = [c for c in facts["counts"] if c["table"] == table]
        if not own:
            continue
        worst = max(own, key=lambda c: c["worst"])
        where = f"{worst['row']} {worst['check']} {worst['dtype']}"
        cells = (
            sum(c["cases"] for c in own),
            f"{worst['worst']:.2f}",
            f"{worst['ulp']:.1f}",
            escape(where),
            f"{sum(c['seconds'] for c in own):.1f} s",
            sum(f["table"] == table for f in facts["failed"]),
        )
        rows.append(_row(escape(table), *cells))
    head = _row("kernel table", "cases", "worst", "ULP", "in", "time", "failed", tag="th")
    return (
        f"<h2>Kernel tables</h2><table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _row(*cells: Any, tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _matrix(facts: dict[str, Any]) -> str:
    sums: dict[tuple[str, str, str], dict[str, tuple[int, float]]] = {}
    for c in facts["counts"]:
        cells = sums.setdefault((c["kind"], c["family"], c["row"]), {})
        cases, worst = cells.get(c["table"], (0, 0.0))
        cells[c["table"]] = cases + c["cases"], max(worst, c["worst"])
    wrong = {(f["kind"], f["row"], f["table"]) for f in facts["failed"]}
    bad = [line for line in sums if any((line[0], line[2], t) in wrong for t in facts["tables"])]
    body, last = [], None
    # failures once more at the head of the table, then every row by family
    for group, lines in (("failed", bad), ("", list(sums))):
        for kind, family, row in lines:
            title = group or f"{kind}s, {family}"
            if title != last:
                width = len(facts["tables"]) + 1
                body.append(f'<tr class="family"><th colspan="{width}">{escape(title)}</th></tr>')
                last = title
            cells = [
                _cell(sums[kind, family, row].get(t), (kind, row, t) in wrong)
                for t in facts["tables"]
            ]
            body.append(f"<tr><td>{escape(row)}</td>{''.join(cells)}</tr>")
    head = _row("", *map(escape, facts["tables"]), tag="th")
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _cell(count: tuple[int, float] | None, wrong: bool) -> str:
    if count is None:
        return "<td>-</td>"
    cases, worst = count
    if wrong:
        return f'<td class="bad">FAIL <small>{cases}</small></td>'
    shade = 0.45 * min(worst, 1.0)
    return (
        f'<td style="background: rgba(var(--hue), {shade:.2f})">{worst:.2f}'
        f" <small>{cases}</small></td>"
    )

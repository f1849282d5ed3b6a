"""`minidl verify`: every check of every row on every table, within a budget, and what it found."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from minidl.dtypes import DType, dtype_of
from minidl.testing.case import Case, Sample
from minidl.testing.entry import Entry
from minidl.testing.oracles import arrays_of, is_float, measured
from minidl.testing.runner import CHECKS, jobs, run
from minidl.testing.strategies import layout_of
from minidl.testing.targets import Target, on

FIRST = 4  # examples of a row in the first round within a time limit; each round doubles them
# what a row is to have gone through first, where time is short
_ORDER = ("kernel", "forward", "gradient", "gradcheck", "nondiff", "gradgradcheck", "mixed")


class Key(NamedTuple):
    """What is counted together; kind: "kernel" or "operator"."""

    table: str
    kind: str
    row: str
    check: str
    dtype: str


@dataclass
class Count:
    """Passed cases, seconds, the worst error of `oracles.measured`, and arrays per layout."""

    cases: int = 0
    seconds: float = 0.0
    share: float = 0.0
    ulp: float = 0.0
    layouts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Count) -> None:
        """Take in what was counted elsewhere."""
        self.cases += other.cases
        self.seconds += other.seconds
        self.share = max(self.share, other.share)
        self.ulp = max(self.ulp, other.ulp)
        self.layouts += other.layouts


@dataclass(frozen=True)
class Failure:
    """The smallest example that breaks a rule, and what draws it again."""

    target: Target
    kind: str
    row: str
    check: str
    dtypes: tuple[str, ...]
    message: str
    examples: int
    seed: int

    @property
    def command(self) -> str:
        """The line that finds it again."""
        return (
            f"minidl verify {self.target.options} --op {self.row} --check {self.check}"
            f" --examples {self.examples} --seed {self.seed}"
        )


@dataclass
class Found:
    """What a run of `verify` found; `reached` are the (table, kind, row) that were run at all."""

    counts: dict[Key, Count] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    reached: set[tuple[str, str, str]] = field(default_factory=set)
    planned: int = 0
    rounds: int = 0
    jobs: int = 0
    left: int = 0
    seconds: float = 0.0

    def count(self, key: Key) -> Count:
        """The count of that key, from zero on."""
        return self.counts.setdefault(key, Count())


class _Job(NamedTuple):
    target: Target
    case: Case
    check: str
    dtypes: tuple[DType, ...]


def kind_of(case: Case) -> str:
    """Which table a row is of: "kernel" for an entry's, else "operator"."""
    return "kernel" if isinstance(case, Entry) else "operator"


def _plan(
    cases: Sequence[Case], where: Sequence[Target], checks: Sequence[str]
) -> list[list[_Job]]:
    """Phases: the first holds one job of every row and table, the second the next one, ..."""
    phases: list[list[_Job]] = []
    for place, case in enumerate(cases):
        for target in where:
            with on(target):
                own = [_Job(target, *job) for job in jobs([case])]
            own = [job for job in own if not checks or job.check in checks]
            first: dict[str, list[_Job]] = {}
            for job in own:
                first.setdefault(job.check, []).append(job)
            # another dtype comes first in every row
            groups = [first[name] for name in sorted(first, key=_ORDER.index)]
            turns = [g[place % len(g) :] + g[: place % len(g)] for g in groups]
            ordered = [group[0] for group in turns] + [j for group in turns for j in group[1:]]
            for phase, job in enumerate(ordered):
                if phase == len(phases):
                    phases.append([])
                phases[phase].append(job)
    return phases


def verify(
    cases: Sequence[Case],
    where: Sequence[Target],
    *,
    examples: int = 25,
    seconds: float | None = None,
    seed: int = 0,
    checks: Sequence[str] = (),
    step: Callable[[str, int, int, int], object] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Run the checks of these rows on these tables.

    examples: of each row, of which every check takes its share. seconds: instead, rounds of ever
    more examples until the time is over; the first goes through all rows before it comes to a
    row's second check. checks: only these. step: called with (row, jobs done, jobs of
    the rounds up to this one, failures) after each job; stop: asked before each.
    """
    found = Found()
    phases = _plan(cases, where, checks)
    found.planned = len({(j.target.label, kind_of(j.case), j.case.name) for p in phases for j in p})
    begin = time.monotonic()

    def over() -> bool:
        return stop() or (seconds is not None and time.monotonic() - begin >= seconds)

    failed: set[tuple[str, str, str, str]] = set()  # one example of a check is enough
    todo = [job for phase in phases for job in phase]
    done = 0
    while todo:
        most = examples if seconds is None else FIRST << found.rounds
        for i, job in enumerate(todo):
            if over():
                found.left = len(todo) - i
                break
            if _name(job) not in failed:
                failure = _run(job, most, seed + found.rounds, found)
                if failure is not None:
                    found.failures.append(failure)
                    failed.add(_name(job))
            done += 1
            if step is not None:
                step(job.case.name, done, done + len(todo) - i - 1, len(found.failures))
        else:
            found.rounds += 1
            todo = [job for job in todo if _name(job) not in failed]
            if seconds is not None and not over():
                continue
        break
    found.jobs, found.seconds = done, time.monotonic() - begin
    return found


def _name(job: _Job) -> tuple[str, str, str, str]:
    return job.target.label, kind_of(job.case), job.case.name, job.check


def _run(job: _Job, examples: int, seed: int, found: Found) -> Failure | None:
    """Run one job and count it."""
    kind, name = kind_of(job.case), job.case.name
    found.reached.add((job.target.label, kind, name))
    errors = [0.0, 0.0]
    counted: dict[str, Count] = {}

    def note(share: float, ulp: float) -> None:
        errors[:] = max(errors[0], share), max(errors[1], ulp)

    def passed(sample: Sample) -> None:
        arrays = arrays_of(sample)
        dtype = "mixed" if CHECKS[job.check].mixed else job.dtypes[0].name
        if len(job.dtypes) > 1 and dtype != "mixed":
            known = [a for a in arrays if is_float(a)] or arrays
            dtype = dtype_of(known[0].dtype).name if known else "none"
        layouts = Counter(layout_of(a) for a in arrays)
        count = Count(1, 0.0, errors[0], errors[1], layouts)
        counted.setdefault(dtype, Count()).add(count)
        errors[:] = 0.0, 0.0

    failure = None
    # another stream for every dtype and check, the same on all tables
    drawn = crc32(f"{seed} {kind} {name} {job.check} {job.dtypes[0].name}".encode())
    start = time.monotonic()
    with on(job.target), measured(note), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # operators warn of arguments that rows draw on purpose
        try:
            run(job.case, job.check, job.dtypes, examples, seed=drawn, passed=passed)
        except ModuleNotFoundError:
            raise  # Hypothesis is missing: not a failure of the row
        except Exception as error:
            message = str(error) or type(error).__name__
            if not isinstance(error, AssertionError):
                message = f"{type(error).__name__}: {message}"
            dtypes = tuple(dtype.name for dtype in job.dtypes)
            failure = Failure(job.target, kind, name, job.check, dtypes, message, examples, seed)
    taken = time.monotonic() - start
    total = sum(count.cases for count in counted.values()) or 1
    for dtype, count in (counted or {job.dtypes[0].name: Count()}).items():
        count.seconds = taken * (count.cases or 1) / total
        found.count(Key(job.target.label, kind, name, job.check, dtype)).add(count)
    return failure

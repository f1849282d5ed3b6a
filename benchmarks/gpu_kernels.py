"""Memory-bound kernels on a GPU: ours, CuPy's entries, PyTorch's, torch.compile's, and the limit.

    python -m benchmarks gpu_kernels [--rounds 50] [--only TEXT] [--seconds N] [--json FILE]
        [--quick] [--shapes small|tiny] [--check] [--no-rivals] [--no-compile] [--dry]

Every row (gpu_rows.py) is first compared with the specification in float64, at a smaller shape of
the same width. Then all sides run in turns on the same random data: inputs and results rotate
through more than four times the L2 cache, events of the GPU take the time, and a kernel that spins
goes ahead, so that the calls are queued before the first one runs and the time of the CPU does not
count. Reported are medians over the rounds, the spread (largest less smallest, over the median),
and the fewest bytes over the time as a share of what large copies reach in the same run.

--check compares and times nothing, with every array from an allocation of its own, so that a
sanitizer sees its bounds; --seconds leaves out the rows for which there is no time, and after half
of it torch.compile, which takes seconds for each;
--quick takes 10 rounds without torch.compile. --dry runs it all without a GPU: the kernels on the
emulator of the tests, at tiny shapes, times of no meaning. Exit code 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.gpu_place import GPU, ROOT, place
from benchmarks.gpu_rows import DTYPES, Row, is_half, rows
from minidl import backends
from minidl.backends import native_cuda
from minidl.backends.native_cuda import launch
from minidl.backends.table import TABLES, Kernels

WINDOW = 3e-3  # seconds of one side in one round
SLOW = 10  # a side whose call takes so many windows runs in few rounds
FEW = 5
COLUMNS = {"torch": "torch", "torch.compile": "compile", "cupy": "CuPy"}


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """`function` of every array in lists and tuples; numbers, shapes and None as they are."""
    if isinstance(x, list | tuple):
        return type(x)([mapped(function, each) for each in x])
    return function(x) if hasattr(x, "dtype") else x


def flat(x: Any) -> list[Any]:
    """All arrays of a result, in order."""
    if isinstance(x, list | tuple):
        return [array for each in x for array in flat(each)]
    return [] if x is None else [x]


# ---------------------------------------------------------------- right or wrong


def shape_of(row: Row, shapes: str) -> tuple[int, ...]:
    """The shape of that size: "full", "small" or "tiny"."""
    return {"full": row.shape, "small": row.small, "tiny": row.tiny}[shapes]


def _in_float64(x: Any) -> np.ndarray:
    """The values on the CPU; floats as float64."""
    array = backends.host(x) if type(x) in backends.ARRAY_TYPES else np.asarray(x)
    return array.astype(np.float64) if array.dtype.kind == "f" or is_half(array) else array


def _of_torch(torch: Any, x: Any) -> np.ndarray:
    x = x.detach().cpu()
    return (x.double() if x.is_floating_point() else x).numpy()


def difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], half: bool) -> str:
    """How a result differs from what is right, by more than its dtype explains; "" if it does not.

    A norm over each array, so that it may be of any kind; `verify` holds single elements to the
    tolerances of the contracts.
    """
    if len(found) < len(wanted):
        return f"{len(found)} results, not {len(wanted)}"
    room = 1e-2 if half else 1e-4
    for i, (x, want) in enumerate(zip(found, wanted, strict=False)):
        if x.shape != want.shape:
            return f"result {i} has shape {x.shape}, not {want.shape}"
        if x.dtype.kind == "b":
            error = float(np.mean(x != want))
        else:
            scale = max(float(np.linalg.norm(want)), 1e-30)
            error = float(np.linalg.norm(x - want)) / scale
        if not error <= room:
            return f"result {i} is off by {error:.1e} of its norm"
    return ""


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the kernels of ours that the block starts, by name."""
    started: Counter[str] = Counter()
    start = launch.Family.start

    def counted(self: launch.Family, kernel: str, *rest: Any) -> None:
        started[kernel] += 1
        start(self, kernel, *rest)

    launch.Family.start = counted  # type: ignore[method-assign]
    try:
        yield started
    finally:
        launch.Family.start = start  # type: ignore[method-assign]


def compared(
    row: Row, lab: GPU, shape: tuple[int, ...], torch: Any, tables: Sequence[str]
) -> tuple[dict[str, str], dict[str, int]]:
    """Side -> what is wrong with its values, "" for the right ones; the kernels of ours."""
    half = row.dtype == "bfloat16" or row.kernel.startswith("cast")
    dtype = DTYPES.get(row.dtype, np.dtype(np.float32))

    def inputs() -> tuple:
        lab.seeded(1 << 20)
        return row.make(lab, dtype, shape)

    exact = mapped(_in_float64, inputs())
    reference, wants = TABLES["reference"], row.wants or row.ours
    with np.errstate(all="ignore"):
        kept = row.saved(reference, *exact) if row.saved else ()
        wanted = [_in_float64(x) for x in flat(wants(reference, *exact, *kept))]
    said, started = {}, {}
    if torch is not None and row.alike:
        function = torch_function(row, torch)
        for name, call in torch_calls(row, lab, torch, inputs(), function).items():
            said[name] = difference([_of_torch(torch, x) for x in flat(call())], wanted, half)
    for name in tables:
        k, given = lab.tables[name], inputs()
        kept = row.saved(k, *given) if row.saved else ()
        with counting() as counts:
            results = flat(row.ours(k, *given, *kept))
        said[name] = difference([_in_float64(x) for x in results], wanted, half)
        if name == "minidl":
            started = dict(counts)
    lab.wait()
    return said, started


def torch_function(row: Row, torch: Any, compiler: Any = None) -> Callable[..., Any] | None:
    """PyTorch's function of the inputs, by torch.compile if that is given and the row says so."""
    theirs = row.theirs
    if theirs is None or (compiler is not None and not row.compiled):
        return None

    def function(*given: Any) -> Any:
        return theirs(torch, *given)

    return function if compiler is None else compiler(function)


def torch_calls(
    row: Row, lab: GPU, torch: Any, inputs: tuple, function: Any, name: str = "torch"
) -> dict[str, Callable[[], Any]]:
    """PyTorch's calls on these inputs: of `function`, and of the row's own rivals."""
    tensors = mapped(lambda x: lab.tensor(torch, x), inputs)
    if row.rivals is not None:
        return row.rivals(torch, tensors) if name == "torch" else {}
    if function is None:
        return {}
    if row.mode == "forward":
        return {name: lambda: function(*tensors)}
    leaves = [tensors[i].requires_grad_() for i in row.wrt]
    if row.mode == "both":
        return {name: lambda: torch.autograd.grad(function(*tensors), leaves)}
    g, *given = tensors
    out = function(*given)
    return {name: lambda: torch.autograd.grad(out, leaves, g, retain_graph=True)}


# ---------------------------------------------------------------- time


@dataclass
class Side:
    """One call per set of inputs, which are taken in turn; results are kept for as many calls."""

    calls: list[Callable[[], Any]]
    before: Callable[[], None] | None = None  # puts inputs back, outside of the time
    at: int = 0
    number: int = 1  # of calls in a window
    ahead: float = 0.0
    rounds: int = 0
    kept: deque = field(default_factory=deque)
    times: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """The next call."""
        self.kept.append(self.calls[self.at]())
        self.at = (self.at + 1) % len(self.calls)
        if len(self.kept) > len(self.calls):
            self.kept.popleft()

    def measure(self, lab: GPU) -> tuple[float, float]:
        """One window; values that were refused meanwhile are told here, outside of the time."""
        if self.before is not None:
            self.before()
        seconds = lab.window(self, self.number, self.ahead)
        lab.wait()
        return seconds

    def prepare(self, lab: GPU, rounds: int) -> None:
        """Warm up, and choose how many calls a window has."""
        for _ in range(len(self.calls) + 1):
            self.measure(lab)
        seconds, host = self.measure(lab)
        most = len(self.calls) if self.before is not None else 100
        self.number = 1 if lab.dry else max(1, min(most, int(WINDOW / max(seconds, 1e-6))))
        self.ahead = 5e-5 + min(0.02, 1.5 * host * self.number)
        self.rounds = min(rounds, FEW) if seconds > SLOW * WINDOW else rounds


@dataclass
class Result:
    """What was measured of a row; seconds and ratios by side."""

    name: str
    kernel: str
    shape: str
    dtype: str
    bytes: float
    started: dict[str, int] = field(default_factory=dict)  # kernels of ours, by name
    sets: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)  # a rival's time over ours
    rate: float = 0.0  # bytes a second
    share: float = 0.0  # of the copy bandwidth
    bars: dict[str, float] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)  # sides that failed, and why
    wrong: dict[str, str] = field(default_factory=dict)


def measured(row: Row, result: Result, lab: GPU, options: argparse.Namespace, torch: Any) -> None:
    """Time all sides of a row in turns."""
    shape = shape_of(row, options.shapes)
    dtype = DTYPES.get(row.dtype, np.dtype(np.float32))
    lab.seeded(0)
    large = row.writes and not row.restores  # states of optimisers: the caches hold none of them
    count = 2 if lab.dry else 1 + -(-4 * lab.cache // int(row.bytes(shape)))
    result.sets = count = 1 if large else min(64, count)
    sets = [row.make(lab, dtype, shape) for _ in range(count)]
    sides = {
        name: ours(row, lab, k, sets)
        for name, k in lab.tables.items()
        if name == "minidl" or (options.rivals and not row.alone)
    }
    result.wrong = at_full_size(sides, result.dtype == "bfloat16")
    if result.wrong:
        return
    if torch is not None:
        torchs: dict[str, Any] = {"torch": None}
        if options.compile and row.compiled:
            torchs["torch.compile"] = compiler_of(torch)
        for name, compiler in torchs.items():
            try:
                function = torch_function(row, torch, compiler)
                made = [torch_calls(row, lab, torch, given, function, name) for given in sets]
                for each in made[0]:
                    side = Side([calls[each] for calls in made])
                    side.prepare(lab, options.rounds)
                    sides[each] = side
            except Exception as error:  # a rival's, whatever it may be
                result.notes[name] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    for name in lab.tables:
        if name in sides:
            sides[name].prepare(lab, options.rounds)
    for turn in range(options.rounds):
        order = list(sides) if turn % 2 else list(reversed(sides))
        for name in order:
            side = sides[name]
            if turn < side.rounds:
                seconds, host = side.measure(lab)
                side.times.append(seconds)
                side.host.append(host)
    for name, side in sides.items():
        result.seconds[name] = middle = statistics.median(side.times)
        result.spread[name] = (max(side.times) - min(side.times)) / middle
        result.host[name] = statistics.median(side.host)
        result.rounds[name] = len(side.times)


def at_full_size(sides: dict[str, Side], half: bool) -> dict[str, str]:
    """What differs between the results of the two tables, in rows from the first to the last."""

    def some(x: Any) -> list[Any]:
        rows = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1)
        step = max(1, x.size // 2**20)
        return [_in_float64(rows[::step]), _in_float64(rows[-1:])]

    found = {n: [y for x in flat(side.calls[0]()) for y in some(x)] for n, side in sides.items()}
    if len(found) < 2:
        return {}
    said = difference(found["minidl"], found["cupy"], half)
    return {"beside CuPy's at full size": said} if said else {}


def ours(row: Row, lab: GPU, k: Kernels, sets: list[tuple]) -> Side:
    """Our call on every set, by one table; on copies, where it writes."""
    if row.writes:
        sets = [mapped(lambda x: x.copy(), given) for given in sets]
    masters = mapped(lambda x: x.copy(), sets[0]) if row.restores else ()

    def call(given: tuple) -> Callable[[], Any]:
        kept = row.saved(k, *given) if row.saved else ()
        return lambda: row.ours(k, *given, *kept)

    def restore() -> None:
        for given in sets:
            for target, source in zip(flat(given), flat(masters), strict=True):
                lab.put(target, source)

    return Side([call(given) for given in sets], restore if row.restores else None)


def compiler_of(torch: Any) -> Callable[[Any], Any]:
    """torch.compile for one row: what it kept of others would count against its limit."""
    torch._dynamo.reset()
    functorch: Any = import_module("torch._functorch.config")
    if hasattr(functorch, "donated_buffer"):
        functorch.donated_buffer = False  # gradients are taken many times of one graph
    return lambda function: torch.compile(function, dynamic=False)


def judge(row: Row, result: Result, copy: float, full: bool) -> None:
    """Ratios, the share of the limit, and which bars are missed; they are of full shapes."""
    mine = result.seconds["minidl"]
    result.rate = result.bytes / mine
    result.share = result.rate / copy
    result.ratios = {n: t / mine for n, t in result.seconds.items() if n != "minidl"}
    reached = {"copy": result.share, **result.ratios}
    result.bars = row.bars if full else {}
    result.missed = [
        f"{bar:.2f} of {name}" for name, bar in result.bars.items() if reached.get(name, bar) < bar
    ]


# ---------------------------------------------------------------- text and files

HEAD = (
    f"{'kernel':25} {'shape':17} {'dtype':8} {'MB':>7} {'us':>9} {'GB/s':>6} {'% copy':>6} "
    f"{'spread':>6} {'torch':>6} {'compile':>7} {'CuPy':>6}"
)


def line(result: Result) -> str:
    """A line of the table."""
    start = f"{result.kernel:25} {result.shape:17} {result.dtype:8} {result.bytes / 1e6:7.1f}"
    if result.wrong:
        wrong = ", ".join(f"{name}: {why}" for name, why in result.wrong.items())
        return f"{start} WRONG {wrong}"
    own = "" if result.started else "by CuPy"
    if not result.seconds:
        return f"{start} right {own}".rstrip()

    def ratio(name: str, width: int) -> str:
        return f"{result.ratios[name]:{width}.2f}" if name in result.ratios else " " * width

    others = [f"{n} {r:.2f}" for n, r in result.ratios.items() if n not in COLUMNS]
    missed = f"below {', '.join(result.missed)}" if result.missed else ""
    notes = [f"{name} failed" for name in result.notes]
    remarks = ", ".join(filter(None, [own, *others, missed, *notes]))
    return (
        f"{start} {1e6 * result.seconds['minidl']:9.1f} {result.rate / 1e9:6.0f} "
        f"{100 * result.share:6.1f} {100 * result.spread['minidl']:5.1f}% {ratio('torch', 6)} "
        f"{ratio('torch.compile', 7)} {ratio('cupy', 6)}  {remarks}"
    ).rstrip()


def versions(torch: Any) -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    try:
        asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
        found["minidl"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    except OSError:
        pass
    if not found.get("minidl"):
        found["minidl"] = import_module("minidl").__version__
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy"):
        try:
            found["cupy"] = metadata.version(name)
            break
        except metadata.PackageNotFoundError:
            continue
    if torch is not None:
        found["torch"] = torch.__version__
    return found


def imported(options: argparse.Namespace) -> Any:
    """PyTorch, or None: without rivals, where it is not installed, or where it has no GPU."""
    if not options.rivals:
        return None
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    return torch if options.dry or torch.cuda.is_available() else None


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu_kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="default 50")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--seconds", type=float, default=1e9, help="no new row after so long")
    parser.add_argument("--json", type=Path, help="write what was measured")
    parser.add_argument("--quick", action="store_true", help="10 rounds, no torch.compile")
    parser.add_argument("--shapes", choices=("full", "small", "tiny"), default="full")
    parser.add_argument("--check", action="store_true", help="compare, time nothing")
    parser.add_argument("--no-rivals", dest="rivals", action="store_false")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--dry", action="store_true", help="without a GPU")
    options = parser.parse_args(given)
    options.rounds = options.rounds or (2 if options.dry else 10 if options.quick else 50)
    options.compile &= not (options.dry or options.quick)
    if options.dry:
        options.shapes = "tiny"
    return options


def run(row: Row, lab: GPU, options: argparse.Namespace, torch: Any, copy: float) -> Result:
    """Compare and time one row."""
    size = row.bytes(shape_of(row, options.shapes))
    label = (
        row.label if options.shapes == "full" else "x".join(map(str, shape_of(row, options.shapes)))
    )
    result = Result(row.name, row.kernel, label, row.dtype, size)
    small = "tiny" if options.shapes == "tiny" else "small"
    try:
        tables = list(lab.tables) if options.rivals and not row.alone else ["minidl"]
        said, result.started = compared(row, lab, shape_of(row, small), torch, tables)
        result.wrong = {name: why for name, why in said.items() if why}
        if not result.wrong and not options.check:
            measured(row, result, lab, options, torch)
        if result.seconds:
            judge(row, result, copy, options.shapes == "full")
    except Exception as error:
        result.wrong["error"] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        result.notes["error"] = traceback.format_exc()
        if options.only:
            raise
    lab.free()
    return result


def main(given: Sequence[str] | None = None) -> int:
    """Compare, measure, print, write."""
    options = arguments(given)
    start = perf_counter()
    results: list[Result] = []
    left, skipped = [], []
    with place(options.dry, options.check) as lab:
        torch = imported(options)
        how = "for the emulator" if options.dry else native_cuda.describe()
        print(f"{lab.name}; kernels of ours: {how}")
        print(f"torch {torch.__version__ if torch is not None else 'is not here'}")
        limits = {} if options.check else lab.limits()
        if limits:
            print(", ".join(f"{name} {rate / 1e9:.0f} GB/s" for name, rate in limits.items()))
        facts = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "device": lab.name,
            **lab.facts(),
            "versions": versions(torch),
            "kernels": how,
            "options": {name: str(value) for name, value in vars(options).items()},
            "limits": limits,
        }
        print(f"\n{HEAD}", flush=True)
        for row in rows():
            if options.only not in row.name:
                continue
            lacking = [name for name in row.needs if not hasattr(lab.tables["minidl"], name)]
            if lacking:
                skipped.append(row.name)
                print(f"{row.name}: skipped, there is no entry {', '.join(lacking)}", flush=True)
            elif perf_counter() - start > options.seconds:
                left.append(row.name)
            else:
                if perf_counter() - start > options.seconds / 2:
                    options.compile = False
                results.append(run(row, lab, options, torch, limits.get("copy", 1.0)))
                print(line(results[-1]), flush=True)
                write(options.json, facts, results, skipped, left)  # whoever stops it, has these
    write(options.json, facts, results, skipped, left)
    print("ratios: a rival's time over ours; MB: the fewest; % copy: of the copies of this run;")
    print("by CuPy: no kernel of ours takes part in the row")
    if left:
        print(f"no time was left for {len(left)} rows: {', '.join(left)}")
    wrong = sum(bool(result.wrong) for result in results)
    missed = sum(bool(result.missed) for result in results)
    rate = f", copies at {limits['copy'] / 1e9:.0f} GB/s" if limits else ""
    print(f"{len(results)} rows, {wrong} wrong, {missed} below a bar, {len(left)} left out{rate}")
    return int(bool(wrong) or not results)


def write(
    path: Path | None,
    facts: dict[str, Any],
    results: list[Result],
    skipped: list[str],
    left: list[str],
) -> None:
    """Write what was measured so far, if a file is named."""
    if path is not None:
        rows = [asdict(result) for result in results]
        found = {**facts, "rows": rows, "skipped": skipped, "left": left}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

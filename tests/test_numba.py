"""The Numba table: laziness, compilations, threads, forks, what it hands on and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NUMBA, on_table

import minidl
from minidl.backends import available, local, numba_cpu, reference, report, use_backend
from minidl.backends.table import KERNEL_ENTRIES, TABLES
from minidl.testing.cases import CASES
from minidl.testing.runner import jobs, run

needs_numba = pytest.mark.skipif(not NUMBA, reason=f"no Numba: {numba_cpu.layer().missing}")
rng = np.random.default_rng(0)
LARGE = (1024, 1024)  # enough for two threads


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def call(name: str, *args: Any, **options: Any) -> tuple:
    """The results of an entry of the active table, as the operators call it."""
    results = local.state.run(getattr(local.state.cpu, name), *args, **options)
    return results if isinstance(results, tuple) else (results,)


def program(code: str, *options: str, folder: Path | None = None, **environment: str) -> str:
    """The output of a fresh interpreter; it must end well."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def table():
    with on_table("numba"):
        yield TABLES["numba"]


@pytest.fixture
def threads():
    before = minidl.get_num_threads()
    yield minidl.set_num_threads
    minidl.set_num_threads(before)


# ---------------------------------------------------------------- with and without Numba


def test_importing_minidl_imports_no_numba():
    program("""
        import minidl, sys
        minidl.ones(3).softmax(0)
        minidl.backends.report("reference")
        assert not {"numba", "llvmlite"} & set(sys.modules)
        assert not [m for m in sys.modules if m.startswith("minidl.backends.numba_kernels")]
    """)


HIDDEN = """
    import sys
    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name in {hidden} or name.partition(".")[0] in {hidden}:
                {how}
    sys.meta_path.insert(0, Hide())
"""


def without(*names: str, how: str = "raise ModuleNotFoundError(name)") -> str:
    return textwrap.dedent(HIDDEN.format(hidden=set(names), how=how))


WORKS = """
import minidl
x = minidl.randn(4, 5, requires_grad=True)
minidl.nn.functional.gelu(x).softmax(1).square().sum().backward()
assert x.grad.abs().sum() > 0
backends = minidl.backends
"""


def test_without_numba_there_is_a_reason():
    code = """
        assert backends.available() == [n for n in backends.available() if n != "numba"]
        rows = backends.report("numba")
        assert rows["softmax"]["layer"] == "reference"
        assert "numba: not installed: pip install minidl[numba]" in rows["softmax"]["reasons"]
        try:
            with backends.use_backend("numba"): pass
        except ValueError as error:
            print(error)
    """
    said = program(without("numba") + WORKS + textwrap.dedent(code))
    assert "backend must be one of reference" in said


@needs_numba
def test_without_the_extension_numba_serves_by_default():
    code = """
        rows = backends.report()
        assert rows["softmax"]["layer"] == "numba", rows["softmax"]
        assert rows["matmul"]["layer"] == "reference"
        assert any(r.startswith("native: ") for r in rows["softmax"]["reasons"])
        assert minidl.get_num_threads() == 3
        minidl.set_num_threads(2)
        assert minidl.get_num_threads() == 2
    """
    program(without("minidl._cpu") + _module_level(WORKS, code), MINIDL_THREADS="3")


def _module_level(*parts: str) -> str:
    return "".join(textwrap.dedent(part) for part in parts)


@needs_numba
@pytest.mark.parametrize("how", ["raise ImportError('no LLVM')", "raise OSError('no LLVM')"])
def test_a_broken_numba_is_a_reason(how: str):
    code = """
        rows = backends.report()
        assert rows["softmax"]["layer"] == "reference"
        assert any("no LLVM" in reason for reason in rows["softmax"]["reasons"])
    """
    hide = without("llvmlite", how=how) + "import os\nos.environ['MINIDL_BACKEND'] = 'numba'\n"
    program(hide + _module_level(WORKS, code))


@needs_numba
def test_a_kernel_that_does_not_compile_is_a_reason(monkeypatch):
    from numba.core.errors import TypingError

    from minidl.backends.numba_kernels.compiled import Kernel

    def fails(self: Kernel, dtype: np.dtype) -> Any:
        raise TypingError("no such type\nand a long story")

    entry, x = numba_cpu._Entry("softmax", reference.softmax), normal(3, 4)
    monkeypatch.setattr(numba_cpu, "_failed", dict(numba_cpu._failed))
    with monkeypatch.context() as patched:
        patched.setattr(Kernel, "_compiled", fails)
        patched.setattr(Kernel, "__getitem__", Kernel._compile)
        for kernel in list(sys.modules["minidl.backends.numba_kernels.compiled"].KERNELS):
            patched.setattr(kernel, "compiled", {})
        np.testing.assert_array_equal(entry(x, -1), reference.softmax(x, -1))
    assert entry.function is entry.below
    rows = report("numba")
    assert rows["softmax"]["layer"] == "reference"
    assert "numba: TypingError: no such type" in rows["softmax"]["reasons"]
    with pytest.raises(IndexError):  # errors of the call itself are the caller's
        TABLES["numba"].softmax(x, 7)


@needs_numba
def test_the_report_says_who_serves_and_why(table):
    rows = report("numba")
    served = {name for name, row in rows.items() if row["layer"] == "numba"}
    assert served == set(numba_cpu.ENTRIES) and len(served) > 25
    assert all(rows[name]["reasons"] for name in KERNEL_ENTRIES)
    assert "BLAS" in rows["matmul"]["reasons"][0]
    assert any("float16" in reason for reason in rows["adam_step"]["reasons"])
    assert available()[:2] == ["reference", "numba"]


@needs_numba
def test_the_environment_chooses():
    done = subprocess.run(
        [sys.executable, "-m", "minidl", "info", "--json"],
        env={**os.environ, "MINIDL_BACKEND": "numba"},
        capture_output=True,
        text=True,
        check=True,
    )
    kernels = json.loads(done.stdout)["kernels"]
    assert kernels["softmax"]["layer"] == "numba"
    assert kernels["cholesky"]["layer"] == "reference"


# ---------------------------------------------------------------- what it computes


_SERVED = (
    "softmax log_softmax logsumexp gelu silu layer_norm add_layer_norm rms_norm linear "
    "linear_activation cross_entropy embedding embedding_padding scaled_dot_product_attention "
    "attention_grouped attention_mask attention_bias dropout uniform"
)
SERVED = frozenset(_SERVED.split())


@needs_numba
@pytest.mark.parametrize(
    ("case", "check", "dtypes"),
    [
        pytest.param(*job, id="-".join((job[0].name, job[1], *(d.name for d in job[2][:1]))))
        for job in jobs([case for case in CASES if case.name in SERVED])
    ],
)
def test_operators_on_the_table(case, check, dtypes, table):
    run(case, check, dtypes, examples=5)


@needs_numba
def test_half_types_are_served(table):
    for dtype in (minidl.float16, minidl.bfloat16):
        x = minidl.randn(6, 7).to(dtype)
        wide = minidl.nn.functional.gelu(x.float()).softmax(-1)
        got = minidl.nn.functional.gelu(x).softmax(-1)
        assert got.dtype == dtype
        assert (got.float() - wide).abs().max() < 0.01
        p, g = (minidl.randn(40).to(dtype).array for _ in range(2))
        before, m, v = p.copy(), np.zeros(40, np.float32), np.zeros(40, np.float32)
        call(
            "adam_step", [p], [g], [m], [v], [None], [1], lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8,
            weight_decay=0.0, amsgrad=False, maximize=False, decoupled=False,
        )  # fmt: skip
        assert np.abs(p.astype("f4") - before.astype("f4")).max() == pytest.approx(0.1, rel=0.1)


CALLS: dict[str, Any] = {
    "softmax": lambda *s: (normal(*s), -1),
    "log_softmax": lambda *s: (normal(*s), -1),
    "layer_norm": lambda *s: (normal(*s), 1, normal(s[-1]), normal(s[-1]), 1e-5),
    "layer_norm_backward": lambda *s: (
        normal(*s), normal(*s), 1, normal(s[-1]), normal(*s[:-1]), np.abs(normal(*s[:-1])),
    ),
    "rms_norm": lambda *s: (normal(*s), 1, normal(s[-1]), 1e-5),
    "gelu": lambda *s: (normal(*s), "none"),
    "gelu_backward": lambda *s: (normal(*s), normal(*s), "tanh"),
    "dropout": lambda *s: (normal(*s), 0.3, 5, 7),
    "linear": lambda *s: (normal(*s), normal(9, s[-1]), normal(9), "gelu"),
    "attention": lambda *s: (*(normal(2, 2, 3 + s[0] % 40, 8) for _ in range(3)), None, True, 0.3),
}  # fmt: skip


def compilations() -> dict[str, int]:
    """How many signatures each kernel has."""
    from minidl.backends.numba_kernels.compiled import KERNELS

    return {
        f"{kernel.function.__module__}.{kernel.function.__qualname__} {dtype}": len(
            compiled.signatures
        )
        for kernel in KERNELS
        for dtype, compiled in kernel.compiled.items()
    }


def layouts(x: Any) -> list[Any]:
    """The argument read-only, transposed in memory, strided and broadcast."""
    if not isinstance(x, np.ndarray):
        return [x] * 4
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
    return [frozen, np.asfortranarray(x), strided, np.broadcast_to(x[..., :1], x.shape)]


@needs_numba
@pytest.mark.parametrize("name", CALLS)
def test_one_compilation_serves_all_shapes_and_layouts(name: str, table):
    call(name, *CALLS[name](4, 6))
    before = compilations()
    for n in range(100):
        shape = (n % 10 + 1, n // 10 + 1) if n % 3 else (2, n % 10 + 1, n // 10 + 1)
        arguments = CALLS[name](*shape)
        call(name, *arguments)
        if n % 10 == 0:
            for changed in zip(*map(layouts, arguments), strict=True):
                call(name, *changed)
    after = compilations()
    assert after == before
    assert set(after.values()) == {1}


@needs_numba
def test_an_exponential_in_float32_is_within_two_ulp(table):
    x = np.concatenate([np.linspace(-110, 0, 200_001), -np.logspace(-30, 2, 2001)])
    rows = np.stack([x.astype(np.float32), np.zeros(len(x), np.float32)], 1)
    rows[rows > 0] = 0
    (got,) = call("log_softmax_backward", np.ones_like(rows), rows, -1)
    want = 1 - 2 * np.exp(rows.astype(np.float64))
    assert np.max(np.abs(got - want)) <= 4e-7


NARROW = """
    import numpy as np
    from minidl.backends import reference
    from minidl.backends.numba_kernels import tiles
    tiles.shape = lambda size: (4, 64 // size)  # as where there is no AVX-512
    from minidl.backends.table import TABLES
    rng, table = np.random.default_rng(0), TABLES["numba"]
    for dtype, room in (("f4", 1e-5), ("f8", 1e-13)):
        q, k, v, g = (rng.standard_normal((2, 70, 9)).astype(dtype) for _ in range(4))
        want = reference.attention(q, k, v, None, True, 0.3)
        out, lse = table.attention(q, k, v, None, True, 0.3)
        given = g, q, k, v, None, True, 0.3, *want
        for a, b in zip(
            (out, lse, *table.attention_backward(*given)),
            (*want, *reference.attention_backward(*given)),
        ):
            assert np.abs(a - b).max() <= room, np.abs(a - b).max()
"""


@needs_numba
def test_tiles_of_narrow_vectors(tmp_path):
    program(NARROW, NUMBA_CACHE_DIR=str(tmp_path))


# ---------------------------------------------------------------- threads and forks


@needs_numba
@pytest.mark.parametrize("name", CALLS)
def test_results_do_not_depend_on_the_number_of_threads(name: str, table, threads):
    arguments = CALLS[name](*LARGE)
    if name == "attention":
        arguments = (*(normal(2, 3, 300, 32) for _ in range(3)), None, True, 0.3)
    threads(1)
    once = call(name, *arguments)
    for count in (2, 3):
        threads(count)
        for a, b in zip(once, call(name, *arguments), strict=True):
            if a is not None:
                np.testing.assert_array_equal(a, b)


@needs_numba
def test_two_threads_at_once():
    """Numba's workqueue layer would abort the process here."""
    program("""
        import threading, numpy as np, minidl
        minidl.set_num_threads(2)
        table = minidl.backends.table.TABLES["numba"]
        x = np.random.default_rng(0).standard_normal((1024, 1024)).astype("f4")
        want, bad = table.softmax(x, -1), []
        def work():
            for _ in range(30):
                if not np.array_equal(table.softmax(x, -1), want):
                    bad.append(1)
        workers = [threading.Thread(target=work) for _ in range(3)]
        [w.start() for w in workers]
        [w.join() for w in workers]
        assert not bad
    """)


@needs_numba
def test_a_forked_child_computes():
    """Numba's OpenMP layer would kill the child here."""
    program("""
        import os, numpy as np, minidl
        minidl.set_num_threads(2)
        table = minidl.backends.table.TABLES["numba"]
        x = np.random.default_rng(0).standard_normal((1024, 1024)).astype("f4")
        want = table.softmax(x, -1)
        child = os.fork()
        if not child:
            same = np.array_equal(table.softmax(x, -1), want)
            grand = os.fork()
            if not grand:
                os._exit(0 if np.array_equal(table.softmax(x, -1), want) else 3)
            os._exit(0 if same and os.waitstatus_to_exitcode(os.waitpid(grand, 0)[1]) == 0 else 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(table.softmax(x, -1), want)
    """, "-W", "ignore::DeprecationWarning")  # fmt: skip


@needs_numba
def test_a_fork_while_the_threads_work():
    """The child must not inherit a pool that is taken."""
    program("""
        import os, threading, numpy as np, minidl
        minidl.set_num_threads(2)
        table = minidl.backends.table.TABLES["numba"]
        x = np.random.default_rng(0).standard_normal((1024, 1024)).astype("f4")
        want, stop = table.softmax(x, -1), threading.Event()
        def work():
            while not stop.is_set():
                table.softmax(x, -1)
        worker = threading.Thread(target=work)
        worker.start()
        for _ in range(5):
            child = os.fork()
            if not child:
                os._exit(0 if np.array_equal(table.softmax(x, -1), want) else 2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stop.set()
        worker.join()
    """, "-W", "ignore::DeprecationWarning")  # fmt: skip


@needs_numba
def test_an_error_in_one_piece_reaches_the_caller(threads):
    from minidl.backends.numba_kernels import compiled

    def piece(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError("piece")

    for _ in range(2):  # the pool is free again afterwards
        with pytest.raises(ZeroDivisionError):
            compiled.together([(piece, n) for n in range(3)])
    assert compiled._pool.taken.acquire(blocking=False)
    compiled._pool.taken.release()


# ---------------------------------------------------------------- the cache


HITS = """
    import numpy as np
    from minidl.backends import report
    from minidl.backends.table import TABLES
    TABLES["numba"].softmax(np.ones((2, 3), "f4"), -1)
    assert report("numba")["softmax"]["layer"] == "numba", report("numba")["softmax"]
    from minidl.backends.numba_kernels import compiled
    found = [c for kernel in compiled.KERNELS for c in kernel.compiled.values()]
    assert len(found) == 1
    print(sum(found[0].stats.cache_hits.values()))
"""


@needs_numba
@pytest.mark.parametrize("place", ["package", "home", "nowhere"])
def test_the_cache(place: str, tmp_path: Path):
    """Machine code is kept beside the source, else in the user's folder, else not at all."""
    source, home = Path(minidl.__file__).parent, tmp_path / "home"
    copy = tmp_path / "site" / "minidl"
    home.mkdir()
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = copy / "backends" / "numba_kernels"
    if place != "package":  # root writes everywhere but into what is no folder
        (kernels / "__pycache__").write_text("")
    if place == "nowhere":
        (home / "file").write_text("")
    where = str(home / "file" / "cache") if place == "nowhere" else str(home)
    environment = {
        "PYTHONPATH": str(copy.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": where,
        "XDG_CACHE_HOME": where,
    }
    assert [int(program(HITS, folder=tmp_path, **environment)) for _ in range(2)] == [
        0,
        int(place != "nowhere"),
    ]
    kept = {"package": kernels, "home": home, "nowhere": kernels}[place]
    assert bool(list(kept.rglob("*.nbc"))) == (place != "nowhere")
    if place == "package":  # a change in a file that kernels share makes them anew
        elementary = kernels / "elementary.py"
        elementary.write_text(elementary.read_text() + "\n# changed\n")
        assert int(program(HITS, folder=tmp_path, **environment)) == 0


# ---------------------------------------------------------------- the tests catch what is planted


@needs_numba
def test_a_planted_fault_is_caught(table, monkeypatch):
    """A kernel whose last column is off by 1e-4 fails the row of its operator."""
    real = table.softmax

    def wrong(x: np.ndarray, axis: int) -> np.ndarray:
        out = real(x, axis)
        if out.ndim and out.shape[-1]:
            out[..., -1] *= out.dtype.type(1 + 1e-4)
        return out

    monkeypatch.setattr(table, "softmax", wrong)
    softmax = next(case for case in CASES if case.name == "softmax")
    with pytest.raises(AssertionError):
        for case, check, dtypes in jobs([softmax]):
            if check == "forward":
                run(case, check, dtypes, examples=100, shrink=False)


@needs_numba
def test_kernels_in_another_thread_of_python(table):
    """The table is chosen per thread; the kernels serve any."""
    x, results = normal(8, 9), []

    def work() -> None:
        with use_backend("numba"):
            results.append(call("softmax", x, -1)[0])

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    np.testing.assert_array_equal(results[0], call("softmax", x, -1)[0])

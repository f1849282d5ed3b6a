"""The emulator itself: right kernels give right numbers, and every planted fault is named.

Its probes (csrc/cuda/emulator/probes.cu) are kernels with one fault each; beyond them, faults are
planted in the text of real kernels.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from emulation import SANITIZE, Emulator, KernelFailure, build, emulated, linked, with_family

from minidl.backends.reference.softmax import logsumexp, softmax

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")
watched = pytest.mark.skipif(bool(SANITIZE), reason="sanitizers watch in place of the emulator")
TESTS = Path(__file__).parent
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
FLOATS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(params=[0, 1, 7], ids=["in order", "backwards", "shuffled"])
def machine(request: pytest.FixtureRequest) -> Emulator:
    return Emulator(request.param)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whichever tests ran before in this process."""
    RNG.bit_generator.state = START


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------- right kernels


@pytest.mark.parametrize("m,n,k", [(32, 32, 32), (40, 72, 104), (5, 8, 200), (64, 32, 8)])
@pytest.mark.parametrize("by_columns", [False, True], ids=["y", "y by columns"])
@pytest.mark.parametrize("kind", FLOATS)
def test_product(machine: Emulator, kind: str, by_columns: bool, m: int, n: int, k: int):
    x, y = normal(m, k, dtype=FLOATS[kind]), normal(k, n, dtype=FLOATS[kind])
    given = np.ascontiguousarray(y.T) if by_columns else y
    out = np.full((m, n), np.nan, np.float32)
    blocks = -(-m // 32) * -(-n // 32)
    name = f"probe_gemm_{'by_columns_' if by_columns else ''}{kind}"
    machine.run(name, blocks, 128, x, given, out, m, n, k)
    np.testing.assert_allclose(out, x.astype(np.float64) @ y.astype(np.float64), 1e-5, 1e-5)


def cut(x: np.ndarray) -> np.ndarray:
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def test_product_of_tf32(machine: Emulator):
    x, y, out = normal(16, 24), normal(24, 8), np.full((16, 8), np.nan, np.float32)
    machine.run("probe_product_tf32", 1, 32, x, y, out, 16, 8, 24)
    np.testing.assert_allclose(out, cut(x) @ cut(y), 1e-6, 1e-6)
    rounded = [(a.view(np.uint32) + np.uint32(0x1000)).view(np.float32) for a in (x, y)]
    machine.run("probe_product_tf32_rounded", 1, 32, x, y, out, 16, 8, 24)
    np.testing.assert_allclose(out, cut(rounded[0]) @ cut(rounded[1]), 1e-6, 1e-6)


@pytest.mark.parametrize("transposed", [False, True], ids=["", "transposed"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_fragments(machine: Emulator, count: int, transposed: bool):
    x = np.arange(64 * count, dtype=np.uint16).reshape(count, 8, 8)
    out = np.zeros((32, count, 2), np.uint16)
    name = f"probe_fragments_{count}{'_transposed' if transposed else ''}"
    machine.run(name, 1, 32, x, 0, out, 0, 0, 0)
    # lane l has the two neighbours at row l / 4 and columns l % 4 * 2
    found = out.reshape(8, 4, count, 2).transpose(2, 0, 1, 3).reshape(count, 8, 8)
    np.testing.assert_array_equal(found, x.transpose(0, 2, 1) if transposed else x)


@pytest.mark.parametrize("size,valid", [(4, 4), (4, 3), (8, 8), (8, 0), (16, 16), (16, 5)])
def test_copies(machine: Emulator, size: int, valid: int):
    x = RNG.integers(1, 255, (256, size), np.uint8)
    out = np.full_like(x, 255)
    machine.run(f"probe_copying_{size}", 1, 256, x, 0, out, valid, 0, 0)
    np.testing.assert_array_equal(out[:, :valid], x[:, :valid])
    assert (out[:, valid:] == 0).all()


def test_reduction(machine: Emulator):
    x, out = RNG.integers(-9, 9, (3, 256)).astype(np.float32), np.zeros((3, 2), np.float32)
    machine.run("probe_reduction", 3, 256, x, 0, out, 0, 0, 0)
    np.testing.assert_array_equal(out, x.sum(1)[:, None] * [1, 2])


@pytest.mark.parametrize("n", [1, 3, 4, 10, 300, 1024, 1027])
def test_tail(machine: Emulator, n: int):
    x = normal(3, n)
    x.flags.writeable = False
    out = np.zeros_like(x)
    machine.run("probe_tail", 3, 64, x, 0, out, 3, n, 0)
    np.testing.assert_array_equal(out, 2 * x)


def test_shuffle(machine: Emulator):
    x = RNG.integers(-(2**60), 2**60, (4, 32))
    out = np.zeros_like(x)
    machine.run("probe_shuffle", 2, 64, x, 0, out, 0, 0, 0)
    np.testing.assert_array_equal(out, x[:, ::-1])


def test_atomic_updates(machine: Emulator):
    x, out = RNG.integers(0, 32, 1000).astype(np.uint32), np.zeros(32, np.uint32)
    machine.run("probe_counting", 3, 128, x, 0, out, x.size, 0, 0)
    np.testing.assert_array_equal(out, np.bincount(x, minlength=32))
    out = np.array([3, 3, 3, 5, 1000], np.int32)
    machine.run("probe_atomics", 2, 50, 0, 0, out, 0, 0, 0)
    assert out[:4].tolist() == [99, 0, 7, 9] and out[4] in range(100)


@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, at signalling NaNs
@pytest.mark.parametrize("kind", FLOATS)
def test_numbers_of_16_bits(kind: str):
    every = np.arange(2**16, dtype=np.uint16).view(FLOATS[kind])
    wide = np.zeros(every.size, np.float32)
    Emulator().run(f"probe_widened_{kind}", 256, 256, every, 0, wide, every.size, 0, 0)
    np.testing.assert_array_equal(wide, every.astype(np.float32))
    # what lies between two of them, the middle among it, and numbers too large or small
    finite = np.sort(wide[np.isfinite(wide)])
    middle = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    near = [np.nextafter(middle.astype(np.float32), np.float32(to)) for to in (-1e38, 1e38)]
    x = np.concatenate([wide, middle.astype(np.float32), *near, [1e9, -1e9, 1e-45, np.nan]])
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = x.astype(FLOATS[kind])
    out = np.zeros(x.size, FLOATS[kind])
    Emulator().run(f"probe_narrowed_{kind}", -(-x.size // 256), 256, x, 0, out, x.size, 0, 0)
    np.testing.assert_array_equal(out.astype(np.float32), wanted.astype(np.float32))


# ---------------------------------------------------------------- planted faults

COPY_COMES = "to which an asynchronous copy is under way"
PLACE = r"probes.cu:\d+"
FAULTS = {
    "gemm_no_barrier": "a race: |which nobody wrote|" + COPY_COMES,
    "gemm_waits_for_few": COPY_COMES,
    "gemm_wrong_stage": COPY_COMES,
    "gemm_fills_too_early": "a race: writes byte .* which thread .* read|" + COPY_COMES,
    "gemm_stage_past_end": "writes 16 bytes behind the end of the shared array tiles|"
    "outside of every array",
    "copying_writes": COPY_COMES,
    "copying_changes": "changed while it was under way",
    "copying_misaligned": "cp.async: the address .* is not a multiple of 8",
    "copying_to_global": "an asynchronous copy to memory that is not shared",
    "copying_not_committed": COPY_COMES,
    "copying_no_sync": "a race: reads byte|which nobody wrote|" + COPY_COMES,
    "reduction_race": "a race: |which nobody wrote",
    "reduction_no_barrier": "a race: ",
    "reduction_unwritten": "reads byte 12 of the shared array of_warps, which nobody wrote",
    "reduction_past_end": "writes 4 bytes behind the end of the shared array of_warps",
    "reduction_far_past_end": "writes 4 bytes .*outside of every array",
    "reduction_dynamic": "writes 1 bytes .*outside of every array",
    "barriers_some": f"__syncthreads in divergent code: thread 0 waits at {PLACE}, thread 128 at",
    "barriers_ended": f"__syncthreads at {PLACE}: 255 of 256 threads wait there, 1 have ended",
    "barriers_two": f"__syncthreads in divergent code: thread 0 waits at {PLACE}, thread 128 at",
    "barriers_times": f"__syncthreads in divergent code: thread 0 waits at {PLACE}, thread 32 at",
    "barriers_warp": "__syncwarp: lanes 0000ffff of warp 0 wait for lanes ffff0000 of their mask",
    "readers": "a race: writes byte 0 of the shared array kept, which thread 32 of block . read"
    "|a race: reads byte 0 of the shared array kept, which thread 0 of block . wrote",
    "tail_next_row": "a race: writes byte .* of the array of 120 bytes",
    "tail_past_end": "writes 4 bytes behind the end of the array of 120 bytes",
    "tail_reads_past_end": "reads 4 bytes behind the end of the array of 120 bytes",
    "tail_misaligned": "(reads|writes) 16 bytes at once at .*, which is not a multiple of 16",
    "tail_far": "writes 4 bytes (behind the end|.*outside of every array)",
    "shuffle_not_in_mask": r"__shfl_sync: lane \d+ is not in its own mask ffff0000",
    "shuffle_ended": "__shfl_sync: the mask ffffffff names lane 7, which has ended",
    "shuffle_outside": r"a shuffle of lane \d+ reads lane \d+, which its mask \w+ leaves out",
    "shuffle_other_mask": "__shfl_sync with mask .* meets lane .* in __shfl_sync with mask",
    "shuffle_other_kind": "__shfl(_xor)?_sync with mask .* meets lane .* in __shfl(_xor)?_sync",
    "shuffle_elsewhere": "__shfl_sync: lanes ffffffdf of warp 0 wait for lanes 00000020",
    "shuffle_absent": "__shfl_sync: the mask ffffffff names lane 16, which does not exist",
    "counting_plain": "a race: ",
    "counting_reads": "a race: (reads|updates) byte",
    "counting_writes": "a race: (writes|updates) byte",
    "counting_blocks": "a race: reads byte .*, which thread .* of block .* wrote",
}


def arguments(family: str) -> tuple:
    """Blocks, threads and fields for a kernel of the probes."""
    if family == "gemm":
        x, y = normal(32, 160, dtype=np.float16), normal(160, 32, dtype=np.float16)
        return 1, 128, x, y, np.zeros((32, 32), np.float32), 32, 32, 160
    if family == "copying":
        x = np.zeros(256 * 8 + 8, np.uint8)
        return 1, 256, x, 0, np.zeros_like(x), 8, 0, 0
    if family == "tail":
        return 3, 64, normal(3, 10), 0, np.zeros((3, 10), np.float32), 3, 10, 0
    if family == "counting":
        x, out = np.arange(1000, dtype=np.uint32) % 32, np.zeros(32, np.uint32)
        return 3, 128, x, 0, out, x.size, 0, 0
    if family == "shuffle":
        return 2, 64, np.zeros(128, np.int64), 0, np.zeros(128, np.int64), 0, 0, 0
    return 2, 256, normal(512), 0, np.zeros(512, np.float32), 0, 0, 0


@watched
@pytest.mark.parametrize("fault", FAULTS)
def test_fault(machine: Emulator, fault: str):
    blocks, threads, *fields = arguments(fault.partition("_")[0])
    if fault == "shuffle_absent":
        threads = 16
    with pytest.raises(KernelFailure, match=FAULTS[fault]):
        machine.run(f"probe_{fault}", blocks, threads, *fields)
    # and it works on as before
    machine.run("probe_reduction", *arguments("reduction"))


def test_every_fault_of_the_probes_is_here():
    text = (build.CUDA / "emulator" / "probes.cu").read_text(encoding="utf-8")
    names = set(re.findall(r"K\(probe_(\w+),", text))
    right = {name for name in names if re.search(rf"K\(probe_{name},[^\n]*RIGHT", text)}
    others = {"atomics", "sanitized"}
    others |= {name for name in names if re.match("fragments|product|widened|narrowed|steps", name)}
    assert names - right - others == set(FAULTS)


def races(kinds: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether two steps of probe_steps race: the definition, with all that came before."""
    block = np.cumsum(kinds == 5, 1)  # barriers that each thread has passed
    warp = np.cumsum(kinds == 4, 1)
    done = [(t, i) for t, i in np.argwhere((kinds > 0) & (kinds < 4))]
    for n, (t, i) in enumerate(done):
        for u, j in done[:n]:
            apart = offsets[t, i] + sizes[t, i] <= offsets[u, j]
            apart |= offsets[u, j] + sizes[u, j] <= offsets[t, i]
            both = {int(kinds[t, i]), int(kinds[u, j])}
            ordered = t == u or block[t, i] != block[u, j]
            ordered |= t // 32 == u // 32 and warp[t, i] != warp[u, j]
            if not (apart or ordered or both in ({1}, {3})):
                return True
    return False


@watched
def test_races_are_what_the_definition_says(machine: Emulator):
    rng, threads, steps = np.random.default_rng(0), 96, 7
    seen, out = Counter(), np.zeros(threads, np.int32)
    any_of, few_of = [0, 1, 2, 31, 32, 40, 64], [0, 1, 2, 32]
    for number in range(800):
        kinds, sizes = np.zeros((2, threads, steps), np.int32)
        offsets = np.zeros_like(sizes)
        mostly = rng.choice([1, 3])
        few = rng.choice([k for k in (1, 2, 3) if k != mostly])
        chosen = rng.choice(few_of if number % 2 else any_of, rng.integers(3, 9))
        for n, t in enumerate(chosen):
            # one that races with all, or any accesses of any size
            i = rng.integers(3, steps) if n == 0 else rng.integers(steps)
            one = (few if n == 0 else mostly) if number % 2 else rng.choice([1, 1, 1, 2, 3])
            kinds[t, i], sizes[t, i] = one, 4
            if number % 2 == 0 and one != 3:
                sizes[t, i] = rng.choice([1, 2, 4, 16])
            if number % 2 == 0:
                offsets[t, i] = rng.integers(16) // sizes[t, i] * sizes[t, i]
        for i in range(steps):  # barriers take the place of what was there
            if rng.random() < (0.3 if i == 3 else 0.05):
                kinds[:, i] = 5
            for warp in range(0, threads, 32):
                if rng.random() < 0.2 and kinds[warp, i] != 5:
                    kinds[warp : warp + 32, i] = 4
        given = np.ascontiguousarray(kinds + 8 * offsets + 128 * sizes)
        wanted, found = races(kinds, offsets, sizes), False
        try:
            machine.run("probe_steps", 1, threads, given, 0, out, steps, 0, 0)
        except KernelFailure as failure:
            found = "a race: " in str(failure)
        assert found == wanted, np.argwhere(kinds)
        seen[wanted] += 1
    assert min(seen[True], seen[False]) > 100, seen


@watched
@pytest.mark.parametrize("first,second,third", [(0, 32, 33), (64, 33, 32)])
def test_reads_of_an_earlier_phase_hide_none(
    machine: Emulator, first: int, second: int, third: int
):
    kinds, four = np.zeros((96, 5), np.int32), np.int32(4 * 128)
    kinds[:, 1] = 5
    for thread, step in ((first, 0), (second, 0), (second, 2), (third, 3)):
        kinds[thread, step] = 1
    out = np.zeros(96, np.int32)
    machine.run("probe_steps", 1, 96, kinds + (kinds == 1) * four, 0, out, 5, 0, 0)
    kinds[third, 4] = 2
    with pytest.raises(KernelFailure, match="a race: "):
        machine.run("probe_steps", 1, 96, kinds + (kinds % 5 > 0) * four, 0, out, 5, 0, 0)


@watched
def test_an_array_that_is_only_read(machine: Emulator):
    out = np.zeros((3, 10), np.float32)
    out.flags.writeable = False
    with pytest.raises(KernelFailure, match="writes to the array of 120 bytes"):
        machine.run("probe_tail", 3, 64, normal(3, 10), 0, out, 3, 10, 0)


def test_launches_that_cannot_be(machine: Emulator):
    for threads, fields in ((257, 6), (0, 6), (256, 5)):
        with pytest.raises(KernelFailure, match=r"bytes of arguments for 48, 1 blocks, \d+ thr"):
            machine.run("probe_reduction", 1, threads, *[0] * fields)
    with pytest.raises(KernelFailure, match="there is no such kernel"):
        machine.run("probe_nothing", 1, 32, 0)


# ---------------------------------------------------------------- faults in real kernels

GUARD = "if (team.row >= p.rows) return;"
MUTATIONS = {
    "no barrier before a reduction": ("__syncthreads();  // the last reduction", "//"),
    "no barrier in a reduction": ("__syncthreads();\n    x = lane_of", "x = lane_of"),
    "one warp too many": ("lane_of_thread() < warps", "lane_of_thread() <= warps"),
    "a piece too many": ("return at < width;", "return at <= width;"),
    "an element too many": ("if (i < count) found", "if (i <= count) found"),
    "an element too many is stored": ("if (i < count) row", "if (i <= count) row"),
    "rows past the end": (GUARD, ""),
    "teams share a row's place": ("team.place * pitch", "0 * pitch"),
    "all accesses of 16 bytes": ("return together % 16 == 0;", "return true;"),
    "every thread stores the result": ("if (team.rank == 0)", ""),
    "a column too many": ("if (column >= p.rows) return;", "if (column > p.rows) return;"),
    "an axis too long": ("i < p.width; ++i) {", "i <= p.width; ++i) {"),
    "a lane too few is added": ("lanes / 2; distance;", "lanes / 2; distance > 1;"),
    "the elements past the end count": ("if (i < piece.count) total", "total"),
}


# out[i] = i times the sum of all threads' numbers
SUMS = """
__device__ inline void sums(const Softmax& p) {
    for (int i = 0; i < 5; ++i) {
        const float sum = block_reduce(((const float*)p.x)[threadIdx.x] * i, Sum(), 0.0f);
        if (threadIdx.x == 0) ((float*)p.out)[i] = sum;
    }
}
KERNEL(sums_of_block, Softmax, sums, 256)
#define WITH_SUMS(K) SOFTMAX_KERNELS(K) K(sums_of_block, Softmax, sums, 256)
"""


def mutant(folder: Path, old: str, new: str) -> Path:
    """The emulator with a changed softmax, of float32 alone."""
    text = build.text_of("softmax")
    assert old in text
    only = "#undef FOR_FLOATS\n#define FOR_FLOATS(K, name, A, function, threads) "
    only += "K(name##_float32, A, function<float>, threads)\n"
    last = "SOFTMAX_KERNELS(KERNEL)"
    text = text.replace(old, new, 1).replace(last, only + last) + SUMS
    return with_family("softmax", text, folder, "WITH_SUMS")


def try_softmax(path: Path | None) -> None:
    """Rows for a warp and for a block, aligned or not, and columns, against the"""
    for order in (0, 1):
        with emulated(order, path) as (kernels, machine):
            for shape in ((5, 7), (9, 128), (2, 2051), (2, 2048)):
                x = normal(*shape)
                given = kernels.asarray(x)
                found = kernels.softmax(given, -1).get()
                np.testing.assert_allclose(found, softmax(x, -1), 1e-5)
                found = kernels.logsumexp(given, (-1,), False).get()
                np.testing.assert_allclose(found, logsumexp(x, (-1,), False), 1e-5)
            x = normal(3, 5, 70)
            found = kernels.softmax(kernels.asarray(x), 1).get()
            np.testing.assert_allclose(found, softmax(x, 1), 1e-5)
            assert machine.started["softmax_columns_float32"] == 1
            if path:
                x, out = RNG.integers(0, 99, 256).astype(np.float32), np.zeros(5, np.float32)
                machine.run("sums_of_block", 1, 256, x, 0, out, *[0] * 5)
                np.testing.assert_array_equal(out, x.sum() * np.arange(5))


def test_softmax_is_right():
    try_softmax(None)


@watched
@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation(name: str, tmp_path: Path):
    library = mutant(tmp_path, *MUTATIONS[name])
    with pytest.raises(AssertionError) as caught:  # of the emulator, or of the comparison
        try_softmax(library)
    print(str(caught.value)[:200])


@watched
def test_no_mutation(tmp_path: Path):
    try_softmax(mutant(tmp_path, GUARD, GUARD))


# ---------------------------------------------------------------- the shared headers

SWIZZLE = """
#include "common/swizzle.h"

// Whether each place of `rows` rows is taken once, and eight pieces that a warp moves at a time,
// down a column or on from the start of a row, lie in eight different groups of banks.
constexpr bool right(int rows, int columns) {
    for (int place = 0; place < rows * columns; ++place) {
        int found = 0;
        for (int i = 0; i < rows * columns; ++i)
            found += swizzled(i / columns, i % columns, columns) == place;
        if (found != 1) return false;
    }
    for (int first = 0; first < rows * columns; first += 8) {
        unsigned banks = 0;
        for (int i = first; i < first + 8; ++i)
            banks |= 1u << swizzled(i / columns, i % columns, columns) % 8;
        if (banks != 0xff) return false;
    }
    for (int first = 0; first < rows; first += 8)
        for (int column = 0; column < columns; ++column) {
            unsigned banks = 0;
            for (int i = 0; i < 8; ++i) banks |= 1u << swizzled(first + i, column, columns) % 8;
            if (banks != 0xff) return false;
        }
    return true;
}
static_assert(right(16, 1) && right(16, 2) && right(32, 4) && right(16, 8) && right(16, 16), "");
static_assert(right(8, 32), "");
"""


def test_swizzle(tmp_path: Path):
    source = tmp_path / "swizzle.cpp"
    source.write_text(SWIZZLE, encoding="utf-8")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{build.CUDA}"]
    build.run([*build.compiler(), *flags, str(source)])


@watched
@pytest.mark.skipif(not build.cuda_compiler(), reason="needs nvcc")
def test_probes_assemble(tmp_path: Path):
    flags = ["-std=c++17", "-O1", "-arch=sm_80", "-Werror", "all-warnings", "-Xptxas=-v"]
    source, result = build.CUDA / "emulator" / "probes.cu", tmp_path / "probes.cubin"
    said = build.run([build.nvcc(), *flags, "-cubin", str(source), "-o", str(result)])
    assert "probe_gemm_bfloat16" in said
    spills = re.findall(r"(\d+) bytes spill", said)
    assert spills and set(spills) == {"0"}


def test_fibres_of_ucontext(tmp_path: Path):
    flags = [*build.EMULATOR_FLAGS, "-DEMULATOR_UCONTEXT", "-c"]
    source, result = build.CUDA / "emulator" / "machine.cpp", tmp_path / "machine.o"
    build.run([*build.compiler(), *flags, str(source), "-o", str(result)])
    machine = Emulator(0, linked([result], "machine", tmp_path))
    machine.run("probe_reduction", *arguments("reduction"))
    with pytest.raises(KernelFailure, match=FAULTS["barriers_ended"]):
        machine.run("probe_barriers_ended", *arguments("barriers"))


# ---------------------------------------------------------------- sanitizers

PROGRAM = """
import numpy as np
from emulation import Emulator
x, out = np.arange(4096, dtype=np.int32), np.zeros(4096, np.int32)
Emulator().run("probe_sanitized", 1, 32, x[:8], 0, out[:1], 5, 0, 7)
print("gave", out[0], flush=True)
Emulator().run(GIVEN)
print("gave", out[0], flush=True)
"""
SANITIZED = {
    "an overflow": (
        "'probe_sanitized', 1, 32, x[:8], 0, out[:1], 2**31 - 1, 0, 7",
        r"probes.cu:\d+.* signed integer overflow: 7 \+ 2147483647 cannot be represented",
    ),
    "past a local array": (
        "'probe_sanitized', 1, 32, x[:8], 0, out[:1], 5, 0, 8",
        r"probes.cu:\d+.* load of address .* with insufficient space|stack-buffer-overflow",
    ),
    "before a local array": (
        "'probe_sanitized', 1, 32, x[:8], 0, out[:1], 5, 0, -1",
        r"stack-buffer-underflow[\s\S]*probes.cu:\d+",
    ),
    "past a shared array": (
        "'probe_reduction_past_end', 2, 256, x[:512], 0, out[:4], 0, 0, 0",
        r"use-after-poison[\s\S]*probes.cu:\d+",
    ),
    "past an array": (
        "'probe_tail_past_end', 1, 64, x, 0, out, 1, 4096, 0",
        r"heap-buffer-overflow[\s\S]*probes.cu:\d+",
    ),
    "nothing": ("'probe_sanitized', 1, 32, x[:8], 0, out[:1], 5, 0, 6", ""),
}


# slow: the emulator is compiled again, with the sanitizers
@pytest.mark.slow
@pytest.mark.parametrize("name", SANITIZED)
def test_sanitizers(name: str):
    given, wanted = SANITIZED[name]
    libraries = [
        build.run([*build.compiler(), f"-print-file-name={library}"]).strip()
        for library in ("libasan.so", "libstdc++.so")
    ]
    places = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(places),
        "LD_PRELOAD": " ".join(libraries),
        "EMULATOR_SANITIZE": "address,undefined",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }
    command = [sys.executable, "-c", PROGRAM.replace("GIVEN", given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=TESTS)
    if wanted:
        assert re.search(wanted, done.stderr), done.stderr
        assert done.stdout == "gave 12\n" and done.returncode
    else:
        assert done.stdout == "gave 12\ngave 11\n" and not done.stderr

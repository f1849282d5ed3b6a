"""Every path of the native matrix product, against NumPy in float64, for any number of threads."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
from conftest import ISAS, on_table

import minidl
from minidl.backends import local, native
from minidl.errors import ShapeError, UnsupportedError

needs_kernels = pytest.mark.skipif(not ISAS, reason=f"no kernels: {native.layer().missing}")
rng = np.random.default_rng(0)

# rows, columns, terms: what each takes is said of 64-byte vectors of float32
SHAPES = {
    "in place": (65, 64, 70),
    "in place, tasks of rows": (200, 80, 33),
    "a large B, one row": (1, 2300, 301),
    "strips of a large B": (9, 1030, 310),
    "strips of a large B of whole lines": (2, 1104, 300),
    "packed": (30, 530, 530),
    "packed, blocks of rows and terms": (300, 70, 1100),
    "packed, A copied": (1024, 300, 20),
    "dot products": (7, 33, 100),
    "dot products, long": (3, 5, 17_000),
    "last column": (65, 65, 65),
    "last columns": (70, 68, 40),
    "a column": (130, 1, 70),
    "few columns": (130, 3, 300),
    "terms in parts": (40, 64, 8192),
    "terms in parts, no whole ones": (65, 66, 2500),
    "terms in parts, packed": (130, 100, 4100),
    "terms in parts, dot products": (9, 50, 5000),
    "no terms": (4, 5, 0),
    "no rows": (0, 5, 3),
}


def matrix(layout: str, rows: int, columns: int, dtype: type) -> np.ndarray:
    if layout == "transposed":
        return rng.standard_normal((columns, rows)).astype(dtype).T
    if layout == "with gaps":
        return rng.standard_normal((rows * 2, columns * 3)).astype(dtype)[::2, ::3]
    if layout == "off a line":
        return rng.standard_normal(rows * columns + 1).astype(dtype)[1:].reshape(rows, columns)
    return rng.standard_normal((rows, columns)).astype(dtype)


def with_threads(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with native.limit_threads(count):
        return local.state.cpu.matmul(a, b)


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_every_path_is_right_and_the_same_for_any_threads(name: str, dtype: type) -> None:
    m, n, k = SHAPES[name]
    layouts = ("plain", "transposed", "with gaps", "off a line")
    for left, right in product(layouts, layouts):
        a, b = matrix(left, m, k, dtype), matrix(right, k, n, dtype)
        want = a.astype(float) @ b.astype(float)
        floor = (8 + np.sqrt(k)) * np.finfo(dtype).eps * (abs(a).astype(float) @ abs(b))
        for isa in ISAS:
            with on_table(isa):
                first, *others = (with_threads(count, a, b) for count in (1, 2, 3, 8))
            assert (abs(first - want) <= floor).all(), (isa, left, right)
            for result in others:
                np.testing.assert_array_equal(result, first)


KERNELS_OF = {
    "relu": lambda k, pre: k.relu(pre),
    "gelu": lambda k, pre: k.gelu(pre, "none"),
    "gelu_tanh": lambda k, pre: k.gelu(pre, "tanh"),
    "silu": lambda k, pre: k.silu(pre),
    "tanh": lambda k, pre: k.tanh(pre),
    "sigmoid": lambda k, pre: k.sigmoid(pre),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SHAPES)
def test_activations_are_taken_of_what_the_product_alone_gives(name: str, dtype: type) -> None:
    m, n, k = SHAPES[name]
    bias = rng.standard_normal(n).astype(dtype)
    for layout, isa in product(("plain", "transposed"), ISAS):
        x, weight = matrix("plain", m, k, dtype), matrix(layout, n, k, dtype)
        if m * n:
            x[0] = np.inf  # and NaN, where infinities of two signs meet
        with on_table(isa), native.limit_threads(2), np.errstate(all="ignore"):
            table = local.state.cpu
            want, nothing = table.linear(x, weight, bias)
            assert nothing is None
            for activation, kernel in KERNELS_OF.items():
                out, pre = table.linear(x, weight, bias, activation, True)
                again, nothing = table.linear(x, weight, bias, activation, False)
                assert nothing is None
                assert (pre is not None) == (activation in ("gelu", "gelu_tanh", "silu"))
                if pre is not None:
                    np.testing.assert_array_equal(pre, want)
                np.testing.assert_array_equal(out, again)
                ulps = {} if dtype == np.float32 else {"rtol": 4e-15, "atol": 1e-15}
                same = np.testing.assert_allclose if ulps else np.testing.assert_array_equal
                same(out, kernel(table, want), err_msg=f"{isa} {activation}", **ulps)


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(8, 64, 64), (5, 33, 7), (40, 100, 70), (30, 10, 2000), (6, 8, 4)]
)
def test_weights_of_few_rows_are_packed_once_and_never_out_of_date(
    shape: tuple, dtype: type
) -> None:
    m, n, k = shape
    x, weight = matrix("plain", m, k, dtype), matrix("plain", n, k, dtype)
    changes = [
        lambda w: None,
        lambda w: np.negative(w, out=w),
        lambda w: w.__setitem__((n - 1, k - 1), 3),
        lambda w: w.__setitem__((0, 0), -w[0, 0]),
        lambda w: w.__setitem__(slice(2), w[1::-1].copy()),
        lambda w: np.multiply(w, 2, out=w),
    ]
    for isa in ISAS:
        with on_table(isa), native.limit_threads(1):
            table = local.state.cpu
            for change in [*changes, *reversed(changes)]:
                change(weight)
                for _ in range(4):  # as it is, packed for keeping, and from there
                    fresh = weight.copy()  # at another address: not known yet
                    want = table.linear(x, fresh)[0]
                    np.testing.assert_array_equal(table.linear(x, weight)[0], want)


@needs_kernels
def test_weights_are_told_apart_by_shape_and_dtype_too() -> None:
    memory = np.empty(64 * 64, np.float32)
    x, table = matrix("plain", 8, 64, np.float32), local.state.cpu
    for _ in range(3):
        memory[...] = rng.standard_normal(memory.shape)
        for shape in ((64, 64), (32, 64), (64, 32)) * 3:
            weight = memory[: shape[0] * shape[1]].reshape(shape)
            for _ in range(3):
                want = x[:, : shape[1]].astype(float) @ weight.T.astype(float)
                np.testing.assert_allclose(
                    table.linear(x[:, : shape[1]], weight)[0], want, 1e-4, 1e-4
                )
        wide, y = memory.view(np.float64).reshape(32, 64), x.astype(np.float64)
        wide[...] = rng.standard_normal(wide.shape)
        for _ in range(3):
            np.testing.assert_allclose(table.linear(y, wide)[0], y @ wide.T, atol=1e-9)


@needs_kernels
def test_threads_share_no_packed_weights() -> None:
    weights = [matrix("plain", 64, 64, np.float32) for _ in range(40)]
    x, table = matrix("plain", 8, 64, np.float32), local.state.cpu
    wants = [table.linear(x, weight.copy())[0] for weight in weights]

    def work(_: int) -> bool:
        return all(
            np.array_equal(table.linear(x, weight)[0], want)
            for _ in range(5)
            for weight, want in zip(weights, wants, strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.usefixtures("each_table")
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((), (3,)), "both tensors need at least one axis"),
        (((3,), ()), "both tensors need at least one axis"),
        (((1,), ()), "both tensors need at least one axis"),
        (((2, 3), (4, 2)), "inner sizes must agree"),
        (((5, 2, 3), (4, 2)), "inner sizes must agree"),
        (((3,), (4, 2)), "inner sizes must agree"),
        (((2, 4, 3), (3, 3, 2)), "shapes must broadcast"),
    ],
)
def test_shapes_that_do_not_fit(shapes: tuple, message: str) -> None:
    x, y = (minidl.ones(shape) for shape in shapes)
    with pytest.raises(ShapeError, match=message):
        minidl.matmul(x, y)


@pytest.mark.usefixtures("each_table")
@pytest.mark.parametrize("shapes", [((), (3,)), ((3,), (3,)), ((), (4, 3)), ((2, 3), (3, 4))])
def test_linear_says_what_does_not_fit(shapes: tuple) -> None:
    x, weight = (minidl.ones(shape) for shape in shapes)
    with pytest.raises(
        (ShapeError, UnsupportedError), match="axis of weight|needs two axes"
    ) as info:
        minidl.nn.functional.linear(x, weight)
    assert all(str(shape) in str(info.value) for shape in shapes)

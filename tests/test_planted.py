"""The checks of the operator table catch bugs that are planted in copies of its rows.

Each bug is planted in an operator or in the engine; the same rows without it pass every check.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl import dtypes
from minidl.autograd import engine
from minidl.autograd.op import Array, op
from minidl.dtypes import FLOATS, bfloat16, float32, float64, int64
from minidl.ops.views import expand
from minidl.tensor import Tensor
from minidl.testing.case import Case, sample
from minidl.testing.runner import CHECKS, jobs, run

EXAMPLES = 400  # a bug must be found whatever is drawn: some of these are hit by one example in ten


def pair(d: Any, dtype: Any) -> Any:
    shape = d.shape()
    return sample(d.array(shape, dtype), d.array(d.broadcastable(shape), dtype))


def matrices(d: Any, dtype: Any) -> Any:
    shape = d.shape(min_dims=2, min_side=2)
    return sample(d.array(shape, dtype), d.array(shape, dtype))


def product(forward: Any = None, gradient: Any = None, inputs: Any = pair) -> Case:
    """A row of the elementwise product with its forward or gradient replaced."""

    def product(k: Any, input: Array, other: Array) -> Any:
        return k.mul(input, other) if forward is None else forward(k, input, other)

    def sound(g: Tensor, input: Any, other: Any) -> Any:
        return g * other, g * input

    function = op(product)
    function.gradient(gradient or sound)
    return Case("product", function, np.multiply, inputs, dtypes=(*FLOATS, int64))


def total(forward: Any = None, **shape: Any) -> Case:
    """A row of the sum over all elements with its forward replaced."""

    @op(promote=None if forward else "same")
    def total(k: Any, input: Array) -> Any:
        return forward(k, input) if forward else k.sum(input)

    @total.gradient
    def _(g: Tensor, input_shape: Any) -> Any:
        return expand(g, input_shape)

    def inputs(d: Any, dtype: Any) -> Any:
        return sample(d.array(d.shape(**shape), dtype, low=0.5))

    return Case("total", total, np.sum, inputs)


def caught(case: Case, check: str, message: str) -> None:
    """Run one check of a row as the suite does: it must fail, and say why."""
    with pytest.raises(AssertionError, match=message):
        for job in jobs([case]):
            if job[1] == check:
                run(*job, examples=EXAMPLES, shrink=False)


@pytest.mark.parametrize("case", [product(), total()], ids=lambda case: case.name)
def test_sound_rows_pass(case):
    for job in jobs([case]):
        run(*job, examples=EXAMPLES)


def test_every_check_is_shown_to_catch_something():
    files = (Path(__file__), Path(__file__).with_name("test_verify.py"))  # there the kernels'
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [name for name in CHECKS if f'"{name}"' not in source] == []


# Gradients


def test_wrong_gradient():
    case = product(gradient=lambda g, input, other: (g * other, -(g * input)))
    caught(case, "gradcheck", "input 1.* analytic derivative")


def test_wrong_gradient_of_one_element():
    def wrong(g, input, other):
        right = g * input
        right.array.reshape(-1)[-1:] *= 1.01
        return g * other, right

    caught(product(gradient=wrong), "gradcheck", "input 1.* analytic derivative")


def test_gradient_that_forgets_what_it_depends_on():
    case = product(gradient=lambda g, input, other: (g * other.detach(), g * input))
    caught(case, "gradgradcheck", "gradient of product.* analytic derivative")


def test_gradient_that_is_wrong_where_one_input_is_a_constant():
    def wrong(g, input, other, needs):
        return g * other if needs[1] else g, g * input

    caught(product(gradient=wrong), "gradient", "gradient of input 0 alone")


def test_gradient_that_reads_past_a_stride():
    def wrong(g, input, other):
        in_memory_order = Tensor(np.ravel(other.array, order="K").reshape(other.shape))
        return g * in_memory_order, g * input

    case = product(gradient=wrong, inputs=matrices)
    caught(case, "gradient", "gradient of input 0: element")


def test_missing_sum_down_in_an_operator():
    """It returns the part of a broadcast element instead of the sum of the parts."""

    def first_part(g, shape):
        array = g.array[(0,) * (g.ndim - len(shape))] if g.array.size else g.array.sum()
        index = tuple(slice(0, 1) if side == 1 else slice(None) for side in shape)
        return Tensor(np.array(array[index] if array.ndim else np.broadcast_to(array, shape)))

    def wrong(g, input, other):
        return g * other, first_part(g * input, other.shape)

    caught(product(gradient=wrong), "gradcheck", "input 1.* analytic derivative")


def test_missing_sum_down_in_the_engine(monkeypatch):
    monkeypatch.setattr(engine._Operators, "sum_to", staticmethod(lambda g, shape: g))
    caught(product(), "gradcheck", "has shape|analytic derivative")
    caught(product(), "gradient", r"shape \(")


def test_missing_cast_in_the_engine(monkeypatch):
    monkeypatch.setattr(engine._Operators, "cast", staticmethod(lambda g, dtype: g))

    def wide(g, input, other):
        return g.double() * other, g * input

    caught(product(gradient=wide), "gradient", "dtype float64")


def test_gradient_that_others_hold(monkeypatch):
    monkeypatch.setattr(engine, "_takes_over", lambda r, g, node, results: True)
    case = product(lambda k, x, y: k.add(x, y), gradient=lambda g: (g, g))
    case = Case("sum", case.function, np.add, pair)
    caught(case, "gradient", "two .grad share memory|shares memory with an input, a result or g")


def test_gradient_that_writes_into_what_is_saved():
    def wrong(g, input, other):
        other.array *= 2
        return g * other, g * input

    caught(product(gradient=wrong), "gradient", "element|other gradients")


def test_gradient_where_there_is_none():
    case = product()
    case = Case("product", case.function, np.multiply, pair, grad=False)
    caught(case, "nondiff", "a result gives a gradient")


# Forward


def test_ignored_stride():
    def wrong(k, x, y):
        return k.mul(np.ravel(x, order="K").reshape(x.shape), y)

    caught(product(wrong, inputs=matrices), "forward", "element|is ")


def test_wrong_value_of_one_dtype():
    def wrong(k, x, y):
        right = k.mul(x, y)
        return right * np.float32(1 + 1e-5) if x.dtype == np.float32 else right

    caught(product(wrong), "forward", "should be .* within")


def test_half_precision_sum():
    """A plain NumPy sum of bfloat16 rounds after every element."""
    case = total(lambda k, x: np.asarray(np.sum(x)), min_dims=3, min_side=4)
    caught(Case("total", case.function, np.sum, case.inputs, dtypes=(bfloat16,)), "forward", "elem")


def test_result_of_another_shape():
    caught(product(lambda k, x, y: k.mul(x, y)[None]), "forward", "shape is")


def test_result_of_another_dtype():
    caught(product(lambda k, x, y: k.mul(x, y).astype(np.float64)), "forward", "dtype is float64")


def test_result_that_is_an_undeclared_view():
    case = Case("copy", op(_same), lambda x, y: x, pair, grad=False)
    caught(case, "forward", "shares memory with an input")


def _same(k: Any, input: Array, other: Array) -> Any:
    return input[...]


def test_input_that_is_written():
    def wrong(k, x, y):
        out = k.mul(x, y)
        if x.flags.writeable:
            x[...] = 0
        return out

    caught(product(wrong), "forward", "an input was changed")


@pytest.mark.parametrize("pair_of", [(float32, int64), (float64, float32), (bfloat16, int64)])
def test_broken_promotion(pair_of, monkeypatch):
    a, b = pair_of
    for key in ((a, b), (b, a)):
        monkeypatch.setitem(dtypes._PROMOTE, key, float64 if a is not float64 else float32)
    case = product()
    caught(Case("product", case.function, np.multiply, pair, dtypes=pair_of), "mixed", "dtype is")

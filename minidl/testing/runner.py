"""The checks that the rows of the operator table and of the kernel entries go through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.autograd import backward, no_grad
from minidl.backends import is_writable
from minidl.dtypes import (
    BOOL,
    FLOAT,
    HALVES,
    DType,
    dtype_of,
    finfo,
    float32,
    float64,
)
from minidl.errors import GradientError
from minidl.tensor import Tensor
from minidl.testing.case import Case, Sample
from minidl.testing.entry import Entry, check_kernel
from minidl.testing.gradcheck import gradcheck, gradgradcheck
from minidl.testing.oracles import (
    Mismatch,
    arrays_of,
    described,
    expected,
    flat,
    in_float64,
    is_float,
    promoted,
    replaced,
    sensitivity,
    tolerance,
    without_denormals,
    worst,
)
from minidl.testing.strategies import Constant, layout_of, samples
from minidl.testing.targets import flushes, host, kernels, placed

EVERY_ELEMENT = 10  # up to so many elements are differentiated one by one, more in one direction


# ---------------------------------------------------------------- calls


def _tensor(array: np.ndarray) -> Tensor:
    return Tensor(placed(array.view(np.ndarray)))


def _differentiable(array: np.ndarray) -> bool:
    return type(array) is not Constant and is_float(array)


def called(case: Case, sample: Sample, leaves: Sequence[Tensor]) -> list[Any]:
    """The results of a call; `leaves` take the place of the differentiable arrays."""
    left = iter(leaves)
    given = replaced(sample, lambda a: next(left) if _differentiable(a) else _tensor(a))
    return flat(case.function(*given.args, **given.kwargs))


def leaves_of(sample: Sample, only: int | None = None) -> list[Tensor]:
    """Leaves that share the differentiable arrays; `only` one of them requires a gradient."""
    found = [_tensor(a) for a in arrays_of(sample) if _differentiable(a)]
    for i, leaf in enumerate(found):
        leaf.requires_grad_(only is None or i == only)
    return found


def _rule(condition: bool, rule: str, case: Case, sample: Sample) -> None:
    if not condition:
        raise Mismatch(f"{rule}, in {described(case, sample)}")


# ---------------------------------------------------------------- forward


def check_forward(case: Case, sample: Sample) -> None:
    """Values, shape and dtype as they should be, in memory of their own; inputs unchanged."""
    arrays = arrays_of(sample)
    before = [a.tobytes() for a in arrays]
    wants = expected(case, sample)
    inputs: list[Tensor] = []
    given = replaced(sample, lambda a: inputs.append(_tensor(a)) or inputs[-1])
    with no_grad():
        results = flat(case.function(*given.args, **given.kwargs))
    unchanged = before == [a.tobytes() for a in arrays]
    _rule(unchanged, "an input was changed", case, sample)
    _rule(len(results) == len(wants), f"{len(results)} results, not {len(wants)}", case, sample)
    dtype = _dtype_of_call(case, sample)
    changes = None
    for y, want in zip(results, wants, strict=True):
        if type(y) is not Tensor:
            _rule(y == want, f"result is {y!r}, not {want!r}", case, sample)
            continue
        _check_memory(case, sample, y, inputs)
        _rule(y.shape == want.shape, f"shape is {y.shape}, not {want.shape}", case, sample)
        if want.dtype.kind != "f":
            kind = BOOL if want.dtype.kind == "b" else 1
            _rule(y.dtype.kind == kind, f"dtype is {y.dtype.name}", case, sample)
            got = host(y.array)
            _rule(np.array_equal(got, want), f"is {got}, not {want}", case, sample)
            continue
        _rule(y.dtype is dtype, f"dtype is {y.dtype.name}, not {dtype.name}", case, sample)
        if changes is None:
            # a 0-d input of another dtype is rounded to the result's before anything else
            alone = len({a.dtype for a in arrays if is_float(a)}) < 2
            eps = finfo(float32 if alone and dtype in HALVES else dtype).eps
            changes = sensitivity(case, sample, wants, eps)
        i = next(i for i, other in enumerate(wants) if other is want)
        allowed = tolerance(want, dtype, changes[i], case.scale)
        error = worst(in_float64(host(y.array)), want, allowed, dtype)
        _rule(error is None, str(error), case, sample)


def _dtype_of_call(case: Case, sample: Sample) -> DType:
    """The dtype that floating point results have."""
    named = [v for v in (*sample.args, *sample.kwargs.values()) if isinstance(v, DType)]
    if named:
        return named[0]
    operator = getattr(case.function, "op", None)
    operands: list[Any] = [a for a in arrays_of(sample) if is_float(a)]
    if operator is not None and operator.promote in ("same", "float"):
        bound = operator.signature.bind(*sample.args, **sample.kwargs).arguments
        operands = [v for name in operator.inputs for v in flat(bound.get(name)) if v is not None]
    return promoted(operands)


def _check_memory(case: Case, sample: Sample, y: Tensor, inputs: Sequence[Tensor]) -> None:
    _rule(type(y.array) is kernels().ndarray, f"result is a {type(y.array)}", case, sample)
    # a view says so: it has the storage, and so the version, of what it is a view of
    others = [x.array for x in inputs if x.storage is not y.storage]
    on_host = isinstance(y.array, np.ndarray)
    shared = on_host and any(np.may_share_memory(y.array, a) for a in others)
    _rule(not shared, "the result shares memory with an input", case, sample)


# ---------------------------------------------------------------- gradients


def _numbers(shape: Iterable[int], seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(tuple(shape)))


def _derived(case: Case, sample: Sample, only: int | None = None) -> tuple[Any, Any, Any]:
    """(leaves, differentiable results, weights) after the weighted results' backward pass."""
    leaves = leaves_of(sample, only)
    results = called(case, sample, leaves)
    # a result keeps its weight where another one requires no gradient
    places = [i for i, y in enumerate(results) if type(y) is Tensor and y.requires_grad]
    ys = [results[i] for i in places]
    if only is None:
        _rule(bool(ys) or not leaves, "no result requires a gradient", case, sample)
    weights = [
        Tensor(placed(_numbers(y.shape, i).astype(y.array.dtype)))  # which own their memory
        for i, y in zip(places, ys, strict=True)
    ]
    if ys:
        backward(ys, weights, retain_graph=True)
    return leaves, ys, weights


def check_gradient(case: Case, sample: Sample) -> None:
    """First derivatives in every dtype and layout equal those of contiguous float64 copies.

    So do those where only one input asks for a gradient. Each has its input's shape and dtype,
    and is a buffer of its own.
    """
    leaves, ys, weights = _derived(case, sample)
    if not ys:
        return
    exact, _, _ = _derived(case, replaced(sample, _contiguous))
    for i, (leaf, true) in enumerate(zip(leaves, exact, strict=True)):
        found = f"gradient of input {i}"
        _rule((leaf.grad is None) == (true.grad is None), f"{found} is missing", case, sample)
        if leaf.grad is None or true.grad is None:
            continue
        _rule(leaf.grad.shape == leaf.shape, f"{found}: shape {leaf.grad.shape}", case, sample)
        same = leaf.grad.dtype is leaf.dtype
        _rule(same, f"{found}: dtype {leaf.grad.dtype.name}", case, sample)
        error = _gradient_error(case, leaf.grad, host(true.grad.array), [y.dtype for y in ys])
        _rule(error is None, f"{found}: {error}", case, sample)
    _check_alone(case, sample, leaves)
    _check_ownership(case, sample, leaves, ys, weights)


def _contiguous(array: np.ndarray) -> np.ndarray:
    copy = in_float64(array)
    return copy.view(Constant) if type(array) is Constant else copy


def _gradient_error(
    case: Case, found: Tensor, want: np.ndarray, results: Sequence[DType]
) -> str | None:
    coarsest = max((*results, found.dtype), key=lambda dtype: finfo(dtype).eps)
    limits = finfo(coarsest)
    top = float(np.abs(want).max(initial=0))
    if not top <= limits.max / 8:
        return None  # between the ends of a half dtype's range and infinity nothing is promised
    # several roundings of the dtype, of terms of about the size of the weights that may cancel
    factor = (16 if coarsest in HALVES else 64) * case.scale
    allowed = factor * limits.eps * (np.abs(want) + max(top, 1.0))
    return worst(in_float64(host(found.array)), want, allowed, found.dtype)


def _whole(found: Tensor | None, leaf: Tensor) -> Tensor:
    """A gradient; zeros where none arrived."""
    return _tensor(np.zeros(leaf.shape, leaf.array.dtype)) if found is None else found


def _check_alone(case: Case, sample: Sample, leaves: Sequence[Tensor]) -> None:
    """An input gets the same gradient where no other asks for one."""
    if len(leaves) < 2:
        return
    i = sum(leaf.array.size for leaf in leaves) % len(leaves)
    alone = _derived(case, sample, only=i)[0]
    together, by_itself = leaves[i].grad, alone[i].grad
    if together is not None or by_itself is not None:
        error = _gradient_error(
            case,
            _whole(by_itself, leaves[i]),
            in_float64(host(_whole(together, leaves[i]).array)),
            [leaves[i].dtype],
        )
        _rule(error is None, f"gradient of input {i} alone: {error}", case, sample)
    others = all(leaf.grad is None for leaf in alone if leaf is not alone[i])
    _rule(others, "an input that asks for no gradient got one", case, sample)


def _check_ownership(
    case: Case,
    sample: Sample,
    leaves: Sequence[Tensor],
    ys: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> None:
    """A leaf's .grad may be written into: nothing else holds its memory."""
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    for g in grads:
        array = g.array
        kept = is_writable(array) and array.flags.c_contiguous
        _rule(kept, "a .grad is not a buffer", case, sample)
        _rule(array.flags.owndata, "a .grad does not own its memory", case, sample)
    copies = [g.array.copy() for g in grads]
    held = [y.array for y in ys] + [w.array for w in weights] + arrays_of(sample)
    before = [host(array).tobytes() for array in held]
    for i, g in enumerate(grads):
        g.array[...] = i + 77
    for i, g in enumerate(grads):
        _rule(bool((host(g.array) == i + 77).all()), "two .grad share memory", case, sample)
    unchanged = before == [host(array).tobytes() for array in held]
    _rule(unchanged, "a .grad shares memory with an input, a result or g", case, sample)
    for leaf in leaves:
        leaf.grad = None
    backward(ys, weights, retain_graph=True)  # from the saved arrays: a write would show
    again = [leaf.grad.array for leaf in leaves if leaf.grad is not None]
    if kernels().device == "cpu":
        same = all(np.array_equal(*pair, equal_nan=True) for pair in _wide(copies, again))
    else:  # what meets at a place is added there in any order
        same = all(np.allclose(*pair, rtol=1e-2, atol=1e-6, equal_nan=True)
                   for pair in _wide(copies, again))  # fmt: skip
    _rule(same, "a second backward pass gives other gradients", case, sample)


def _wide(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Any:
    return [(in_float64(host(a)), in_float64(host(b))) for a, b in zip(first, second, strict=True)]


def check_gradcheck(case: Case, sample: Sample) -> None:
    """First derivatives equal difference quotients (float64)."""
    _quotients(gradcheck, case, sample)


def check_gradgradcheck(case: Case, sample: Sample) -> None:
    """Second derivatives equal difference quotients of the first (float64)."""
    _quotients(gradgradcheck, case, sample)


def _quotients(check: Callable, case: Case, sample: Sample) -> None:
    sample = replaced(sample, lambda a: a if a.flags.writeable else _contiguous(a))
    leaves = leaves_of(sample)
    if not leaves:
        return

    def function(*inputs: Tensor) -> Any:
        return tuple(y for y in called(case, sample, inputs) if type(y) is Tensor)

    function.__name__ = case.name
    fast = sum(leaf.array.size for leaf in leaves) > EVERY_ELEMENT
    try:
        check(function, leaves, fast_mode=fast)
    except AssertionError as error:
        hint = "; an input without a gradient by design is drawn with d.constant(array)"
        raise Mismatch(f"{error}, in {described(case, sample)}{hint}") from error


def check_nondiff(case: Case, sample: Sample) -> None:
    """A result without gradient by nature does not ask for one; others refuse to give one."""
    for y in called(case, sample, leaves_of(sample)):
        if type(y) is Tensor and y.requires_grad:
            try:
                backward(y, _tensor(np.ones(y.shape, y.array.dtype)))
            except GradientError:
                continue
            _rule(False, "a result gives a gradient", case, sample)


# ---------------------------------------------------------------- the table of checks


@dataclass(frozen=True)
class Check:
    """One check of a row: what it needs drawn, and how large a share of the examples it gets."""

    function: Callable[[Any, Sample], None]
    applies: Callable[[Case], bool]
    dtypes: Callable[[Any], Sequence[DType]]
    share: float
    purpose: str = "values"
    mixed: bool = False
    per_dtype: bool = False


def _is_operator(case: Case) -> bool:
    return not isinstance(case, Entry)


def _floats(case: Case) -> list[DType]:
    return [dtype for dtype in case.dtypes if dtype.kind == FLOAT]


def _has_gradient(case: Case) -> bool:
    return case.grad and bool(_floats(case))


def _promotes(case: Case) -> bool:
    operator = getattr(case.function, "op", None) if _is_operator(case) else None
    if operator is None or operator.promote not in ("same", "float"):
        return False
    return (len(operator.inputs) > 1 or operator.sequence) and len(case.dtypes) > 1


CHECKS: dict[str, Check] = {
    "kernel": Check(
        check_kernel,
        lambda c: isinstance(c, Entry),
        lambda c: c.dtypes_on(kernels()),
        1.0,
        per_dtype=True,
    ),
    "forward": Check(check_forward, _is_operator, lambda c: c.dtypes, 0.25, per_dtype=True),
    "mixed": Check(check_forward, _promotes, lambda c: c.dtypes, 0.5, mixed=True),
    "gradient": Check(check_gradient, _has_gradient, _floats, 0.6, "gradients"),
    "gradcheck": Check(check_gradcheck, _has_gradient, lambda c: (float64,), 0.4, "quotients"),
    "gradgradcheck": Check(
        check_gradgradcheck,
        lambda c: _has_gradient(c) and c.gradgrad,
        lambda c: (float64,),
        0.3,
        "quotients",
    ),
    "nondiff": Check(
        check_nondiff,
        lambda c: _is_operator(c) and not c.grad and bool(_floats(c)),
        _floats,
        0.1,
        "gradients",
    ),
}


class Tally(Counter):
    """How often each (row, dtype, layout) went through the forward check."""

    def count(self, case: Case, sample: Sample) -> None:
        """Count the inputs of one call."""
        for array in arrays_of(sample):
            self[case.name, dtype_of(array.dtype).name, layout_of(array)] += 1

    def summary(self) -> str:
        """One line: rows, dtypes, layouts, combinations of them that ran, and arrays."""
        sizes = [len({key[i] for key in self}) for i in range(3)]
        return (
            f"operator table: {sizes[0]} rows, {sizes[1]} dtypes, {sizes[2]} layouts;"
            f" {len(self)} combinations of them, {sum(self.values())} arrays"
        )


def jobs(cases: Iterable[Case]) -> list[tuple[Case, str, tuple[DType, ...]]]:
    """(row, name of a check, dtypes): everything that a run of these rows consists of."""
    found = []
    for case in cases:
        for name, check in CHECKS.items():
            if not check.applies(case):
                continue
            dtypes = tuple(check.dtypes(case))
            found += [(case, name, (d,)) for d in dtypes] if check.per_dtype else [
                (case, name, dtypes)
            ]  # fmt: skip
    return found


def run(
    case: Case,
    name: str,
    dtypes: Sequence[DType],
    examples: int | None = None,
    tally: Tally | None = None,
    shrink: bool = True,
    seed: int | None = None,
    passed: Callable[[Sample], None] | None = None,
) -> None:
    """Run one check of a row on examples drawn by Hypothesis; raises for the smallest failure.

    examples: of a whole row (default: those of Hypothesis' profile); each check takes its share.
    shrink: whether to look for a smaller failure than the first. seed: draws the same examples
    for the same number (default: as Hypothesis' profile says). passed: called with every example
    that passed.
    """
    from hypothesis import HealthCheck, Phase, given, seed as seeded, settings

    check = CHECKS[name]
    most = settings().max_examples if examples is None else examples

    @settings(
        max_examples=max(4, round(most * check.share)),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
        report_multiple_bugs=False,
    )
    @given(samples(case, *dtypes, purpose=check.purpose, mixed=check.mixed))
    def example(sample: Sample) -> None:
        if flushes():
            sample = replaced(sample, without_denormals)
        if tally is not None and name in ("forward", "mixed"):
            tally.count(case, sample)
        check.function(case, sample)
        if passed is not None:
            passed(sample)

    (example if seed is None else seeded(seed)(example))()

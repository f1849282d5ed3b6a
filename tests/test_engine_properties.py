"""Random programs with views and in-place writes, run by minidl and by torch side by side.

A program starts from a few leaves and applies operations to a pool of tensors: arithmetic, views,
in-place writes (also through views, and of leaves), detached and no_grad parts. After every step
both libraries must have raised, or both not; all tensors of both pools must be equal, agree on
requires_grad and is_leaf; and at the end both backward passes must agree (order 1, order 2 by
`grad` with a graph, and 3 for order 1 with a graph), and no `.grad` may be shared.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from minidl import autograd
from minidl.errors import GradientError
from minidl.ops import creation  # noqa: F401 - attaches methods
from minidl.tensor import Tensor

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
pytestmark = pytest.mark.filterwarnings("ignore")

# Where the two differ on purpose. torch refuses x.add_(x[0]) or, where it does not see the overlap,
# gives garbage; NumPy, and so minidl, reads before it writes: such steps are left out. minidl
# refuses every write into an expanded tensor; torch allows those of single slices. minidl keeps
# what a gradient names even if the input that needs it asks for no gradient, so it may refuse a
# backward pass (never give a wrong one) because that was written.
WRITTEN = "a tensor that its gradient needs was written in place"

SHAPES = ((2, 3), (3, 2), (3,), (2, 1), ())


def set_first(x: Any, y: Any) -> Any:
    x[0] = y
    return x


def set_tail(x: Any, y: Any) -> Any:
    x[..., 1:] = y
    return x


def set_number(x: Any, y: Any) -> Any:
    x[..., 0] = 0.75
    return x


# Each operation takes one or two tensors of either library, and is the same line for both.
PLAIN = {
    "neg": lambda x, y: -x,
    "square": lambda x, y: x * x,
    "tanh": lambda x, y: x.tanh(),
    "exp": lambda x, y: (x * 0.1).exp(),
    "clone": lambda x, y: x.clone(),
    "scaled": lambda x, y: 1.5 * x - 1,
    "sum": lambda x, y: x.sum(),
    "sum of rows": lambda x, y: x.sum(0, keepdim=True),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y * y + 1),
    "picked": lambda x, y: x[[0, 0, -1]],
}
VIEWS = {
    "first": lambda x, y: x[0],
    "tail": lambda x, y: x[1:],
    "every other": lambda x, y: x[..., ::2],
    "new axis": lambda x, y: x[:, None],
    "transposed": lambda x, y: x.transpose(0, -1),
    "flat": lambda x, y: x.reshape(-1),
    "view": lambda x, y: x.view(-1),
    "expanded": lambda x, y: x.expand(2, *x.shape),
    "detached": lambda x, y: x.detach(),
}
WRITES = {
    "add_": lambda x, y: x.add_(y),
    "sub_": lambda x, y: x.sub_(y, alpha=0.5),
    "mul_": lambda x, y: x.mul_(y),
    "scale_": lambda x, y: x.mul_(0.5),
    "write the first": set_first,
    "write the tail": set_tail,
    "write a number": set_number,
    "write through a view": lambda x, y: x[0].mul_(2),
    "write through two views": lambda x, y: x.transpose(0, -1)[:1].add_(1),
}
SLICES = ("write the first", "write the tail")
OPERATIONS = {**PLAIN, **VIEWS, **WRITES}
NAMES = (*PLAIN, *VIEWS, *VIEWS, *WRITES, *WRITES)  # aliasing is what can go wrong


class Step(NamedTuple):
    """One operation on the tensors at two positions of the pool (counted modulo its size)."""

    name: str
    first: int
    second: int
    recorded: bool


steps = st.builds(
    Step,
    st.sampled_from(NAMES),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([True] * 7 + [False]),
)
leaf_kinds = st.lists(st.tuples(st.sampled_from(SHAPES), st.booleans()), min_size=1, max_size=3)


class Machine:
    """One library's side of a program."""

    def __init__(self, make: Any, library: Any, kinds: Any) -> None:
        rng = np.random.default_rng(0)
        self.no_grad, self.grad = library.no_grad, library.grad
        self.pool = []
        for shape, requires_grad in kinds:
            leaf = make(np.asarray(rng.standard_normal(shape)))
            self.pool.append(leaf.requires_grad_(requires_grad))
        self.leaves = list(self.pool)
        self.written_unrecorded = False

    def operands(self, step: Step) -> tuple[Any, Any]:
        """The tensors that a step works on."""
        return self.pool[step.first % len(self.pool)], self.pool[step.second % len(self.pool)]

    def do(self, step: Step) -> Exception | None:
        """Run one step; the error that it raised, if any."""
        x, y = self.operands(step)
        try:
            # torch 2.13 says that a view taken under no_grad requires a gradient, which then
            # arrives nowhere; ours does not, so views are always recorded here
            recorded = step.recorded or step.name in VIEWS
            with contextlib.nullcontext() if recorded else self.no_grad():
                result = OPERATIONS[step.name](x, y)
        except Exception as error:
            return error
        if step.name not in WRITES:
            self.pool.append(result)
        elif not recorded:
            self.written_unrecorded = True
        return None

    def backward(self, roots: list[int], order: int) -> Exception | None:
        """The backward pass of a weighted sum of some tensors, or of its gradients' squares."""
        loss = sum((i + 1) * self.pool[i].sum() for i in roots)
        try:
            if order == 2:
                # after a write under no_grad, torch counts only later uses of a view as uses of
                # it, but all uses of its base; ours counts all uses of both
                others = [] if self.written_unrecorded else [self.pool[roots[0]]]
                wanted = [x for x in (*self.leaves, *others) if x.requires_grad]
                found = self.grad(loss, wanted, create_graph=True, allow_unused=True)
                loss = sum((g * g).sum() for g in found if g is not None)
                if not loss.requires_grad:
                    return None
            loss.backward(create_graph=order == 3)
        except Exception as error:
            return error
        return None


def ours(kinds: Any) -> Machine:
    return Machine(lambda array: Tensor(array.copy()), autograd, kinds)


def theirs(kinds: Any) -> Machine:
    return Machine(lambda array: torch.from_numpy(array.copy()), torch.autograd, kinds)


def values(tensor: Any) -> np.ndarray:
    return tensor.array if type(tensor) is Tensor else tensor.detach().numpy()


def overlapping(step: Step, x: Any, y: Any) -> bool:
    """Whether a step writes elements that it reads elsewhere."""
    if step.name not in WRITES or not np.shares_memory(values(x), values(y)):
        return False
    # torch refuses some writes over the very same elements, too, by the strides of axes of size 1
    return x is not y or step.name in SLICES


def equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def same_pools(a: Machine, b: Machine) -> None:
    for i, (x, t) in enumerate(zip(a.pool, b.pool, strict=True)):
        assert equal(values(x), values(t)), f"tensor {i}: {x}, torch {t}"
        assert x.requires_grad == t.requires_grad, f"tensor {i}: requires_grad"
        assert x.is_leaf == t.is_leaf, f"tensor {i}: is_leaf"


@settings(max_examples=settings().max_examples * 10)
@given(
    leaf_kinds,
    st.lists(steps, min_size=1, max_size=9),
    st.integers(0, 2**10),
    st.sampled_from((1, 1, 2, 3)),
)
def test_programs(kinds, program, chosen, order):
    a, b = ours(kinds), theirs(kinds)
    for step in program:
        x, y = a.operands(step)
        if overlapping(step, x, y):
            continue
        if step.name in WRITES and not x.array.flags.writeable:
            assert a.do(step) is not None
            continue
        errors = a.do(step), b.do(step)
        assert (errors[0] is None) == (errors[1] is None), f"{step}: {errors}"
        assert not isinstance(errors[0], AttributeError), errors[0]
        same_pools(a, b)
    able = [i for i, t in enumerate(b.pool) if t.requires_grad]
    roots = [i for i in able if chosen >> i & 1] or able[-1:]
    if not roots:
        return
    errors = a.backward(roots, order), b.backward(roots, order)
    if errors[1] is None and WRITTEN in str(errors[0]):
        return
    assert (errors[0] is None) == (errors[1] is None), f"backward: {errors}"
    if errors[0] is not None:
        assert isinstance(errors[0], GradientError)
        return
    same_gradients(a, b)


def same_gradients(a: Machine, b: Machine) -> None:
    for i, (x, t) in enumerate(zip(a.leaves, b.leaves, strict=True)):
        assert (x.grad is None) == (t.grad is None), f"leaf {i}: {x.grad}, torch {t.grad}"
        if x.grad is not None:
            assert equal(values(x.grad), values(t.grad)), f"leaf {i}: {x.grad}, torch {t.grad}"
            others = [y.array for y in a.pool] + [
                y.grad.array for y in a.leaves if y.grad is not None
            ]
            shared = sum(np.may_share_memory(x.grad.array, other) for other in others)
            assert shared == 1 and x.grad.array.flags.writeable, f"leaf {i}: .grad is shared"

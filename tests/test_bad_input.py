"""Wrong input gets one clear error that names the operator, the rule and what was given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradientError,
    MinidlError,
    OutOfMemoryError,
    OutOfRangeError,
    ShapeError,
    UnsupportedError,
)
from minidl.nn import functional as F  # noqa: N812


def zeros(*shape: int, dtype: Any = None) -> minidl.Tensor:
    return minidl.zeros(*shape, dtype=dtype)


def counts(*values: int) -> minidl.Tensor:
    return minidl.tensor(list(values))


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # shapes
    "broadcast": (
        lambda: zeros(2, 3) + zeros(4),
        ShapeError,
        r"[add] shapes must broadcast, got (2, 3), (4,)",
    ),
    "matmul": (
        lambda: zeros(8, 64) @ zeros(32, 10),
        ShapeError,
        r"[matmul] inner sizes must agree, got (8, 64), (32, 10)",
    ),
    "linear": (
        lambda: F.linear(zeros(8, 5), zeros(3, 7)),
        ShapeError,
        r"[linear] last axis of input must equal the last axis of weight, got (8, 5), (3, 7)",
    ),
    "cat": (lambda: minidl.cat([zeros(2, 3), zeros(2, 4)]), ShapeError, r"[cat] "),
    "reshape": (
        lambda: zeros(6).reshape(4, 2),
        ShapeError,
        "[reshape] 6 elements do not fit the new shape, got (6,) to (4, 2)",
    ),
    "mask of attention": (
        lambda: F.scaled_dot_product_attention(*[zeros(2, 4, 8)] * 3, zeros(3, 3)),
        ShapeError,
        "must broadcast to the scores (..., T, S), got (3, 3), (2, 4, 4)",
    ),
    "classes that are not integers": (
        lambda: F.cross_entropy(zeros(2, 3), zeros(2)),
        ShapeError,
        "class indices are integers, got (2, 3), (2,) float32",
    ),
    "weight of a loss": (
        lambda: F.mse_loss(zeros(2, 3), zeros(2, 3), weight=zeros(3)),
        ShapeError,
        "[mse_loss] weight must have the shape of input, got (3,), (2, 3)",
    ),
    "labels of einsum": (
        lambda: minidl.einsum(zeros(2), [52], [0]),
        ArgumentError,
        "[einsum] labels are integers from 0 to 51, and Ellipsis, got 52",
    ),
    "einsum without an equation": (
        lambda: minidl.einsum(zeros(2), zeros(2)),
        ArgumentError,
        "[einsum] takes an equation and tensors",
    ),
    "negative triangle": (lambda: minidl.tril_indices(-1, 3), ShapeError, "[tril_indices]"),
    "negative size": (lambda: zeros(-1, 3), ShapeError, "[zeros]"),
    "attention": (
        lambda: F.scaled_dot_product_attention(
            zeros(1, 2, 3, 4), zeros(1, 2, 3, 5), zeros(1, 2, 3, 4)
        ),
        ShapeError,
        r"got (1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)",
    ),
    "cross entropy": (
        lambda: F.cross_entropy(zeros(4, 3), counts(0, 1)),
        ShapeError,
        "(4, 3)",
    ),
    "layer norm": (lambda: F.layer_norm(zeros(2, 3), (4,)), ShapeError, "(2, 3)"),
    # axes, indices, attributes
    "axis": (lambda: zeros(2, 3).sum(2), OutOfRangeError, "[sum] axis 2 of a tensor with 2 axes"),
    "index": (lambda: zeros(3)[5], OutOfRangeError, "5 is out of bounds for axis 0 with size 3"),
    "class": (lambda: F.cross_entropy(zeros(2, 3), counts(0, 3)), OutOfRangeError, "3"),
    "embedding": (lambda: F.embedding(counts(9), zeros(4, 2)), OutOfRangeError, "[embedding]"),
    "probability": (lambda: F.dropout(zeros(2), 1.5), ArgumentError, "[dropout] p must be"),
    "reduction": (
        lambda: F.mse_loss(zeros(2), zeros(2), reduction="average"),
        ArgumentError,
        "reduction",
    ),
    "topk": (lambda: zeros(3).topk(4), OutOfRangeError, "[topk] k=4"),
    # dtypes and types
    "array operand": (
        lambda: zeros(3) + np.ones(3),
        DTypeError,
        "[add] other must be a Tensor; wrap it with minidl.tensor(...)",
    ),
    "string operand": (lambda: zeros(3) * "2", DTypeError, "[mul] other must be a Tensor"),
    "matmul dtypes": (
        lambda: zeros(2, 2) @ zeros(2, 2, dtype=minidl.float64),
        DTypeError,
        "[matmul] all tensors must have the same dtype, got (2, 2) float32, (2, 2) float64",
    ),
    "float index": (lambda: zeros(3)[zeros(1)], DTypeError, "[getitem] indices must be"),
    "mean of integers": (lambda: counts(1, 2).mean(), DTypeError, "[mean]"),
    "complex": (lambda: minidl.tensor(1j), DTypeError, "[tensor] elements must be real"),
    "ragged": (lambda: minidl.tensor([[1, 2], [3]]), ShapeError, "[tensor]"),
    "text": (lambda: minidl.tensor(["a"]), DTypeError, "[tensor]"),
    "dtype name": (lambda: zeros(2, dtype="float99"), DTypeError, "dtype must be one of float64"),
    "integer gradient": (
        lambda: counts(1).requires_grad_(),
        DTypeError,
        "only floating point tensors can require gradients",
    ),
    "default dtype": (
        lambda: minidl.set_default_dtype(minidl.int64),
        DTypeError,
        "must be a floating point one",
    ),
    # devices
    "device": (lambda: zeros(2).to("tpu"), DeviceError, "'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
    "creation device": (lambda: minidl.zeros(2, device="gpu:1"), DeviceError, "'gpu:1'"),
    "module device": (lambda: nn.Linear(2, 2).to("gpu"), DeviceError, "'gpu'"),
    # memory
    "huge": (lambda: zeros(10**7, 10**7), OutOfMemoryError, "(10000000, 10000000)"),
    "huge result": (
        lambda: zeros(10**6, 1) + zeros(1, 10**7),
        OutOfMemoryError,
        "[add] out of memory",
    ),
    "huge copy": (
        lambda: minidl.tensor(zeros(1).expand(10**13)),
        OutOfMemoryError,
        "[tensor] out of memory",
    ),
    "huge repeats": (
        lambda: zeros(3).repeat_interleave(10**15),
        OutOfMemoryError,
        "[repeat_interleave] ",
    ),
    "huge triangle": (
        lambda: minidl.triu_indices(10**8, 10**8),
        OutOfMemoryError,
        "[triu_indices] out of memory",
    ),
    "huge draw": (lambda: minidl.normal(0.0, 1.0, (10**14,)), OutOfMemoryError, "[empty]"),
    "huge probabilities": (
        lambda: minidl.bernoulli(zeros(1).expand(10**13), 0.5),
        OutOfMemoryError,
        "[empty]",
    ),
    # empty
    "max of nothing": (lambda: zeros(0).max(), MinidlError, "[max] no elements"),
    "argmax of nothing": (lambda: zeros(0).argmax(), MinidlError, "[argmax]"),
    "item of many": (lambda: zeros(2).item(), ShapeError, "[item] needs a tensor of one element"),
    # modules and optimisers
    "optimiser without parameters": (
        lambda: optim.SGD([], lr=0.1),
        ArgumentError,
        "[SGD] the parameter list is empty",
    ),
    "negative rate": (
        lambda: optim.Adam([nn.Parameter(zeros(2))], lr=-1.0),
        ArgumentError,
        "lr must not be negative, got -1.0",
    ),
    "sparse embedding": (lambda: nn.Embedding(3, 2, sparse=True), UnsupportedError, "sparse"),
    "backward of a constant": (
        lambda: zeros(1).sum().backward(),
        GradientError,
        "[backward] the tensor does not require gradients",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal(name: str) -> None:
    function, error, text = REFUSED[name]
    with pytest.raises(error, match=re.escape(text)) as caught:
        function()
    assert "\n" not in str(caught.value)


class Feed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(768, 3072)

    def forward(self, x: minidl.Tensor) -> minidl.Tensor:
        return self.fc1(x)


def test_message_carries_the_path_of_the_module() -> None:
    block = nn.ModuleDict({"ffn": Feed()})

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.ModuleList([block])

        def forward(self, x: minidl.Tensor) -> minidl.Tensor:
            return self.encoder[0]["ffn"](x)

    with pytest.raises(ShapeError) as caught:
        Encoder()(zeros(8, 128, 512))
    assert str(caught.value) == (
        "encoder.0.ffn.fc1: [linear] last axis of input must equal the last axis of weight,"
        " got (8, 128, 512), (3072, 768), (3072,)"
    )


# what is unusual but right


def test_zero_size_batches() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3), nn.Linear(3, 2))
    x = minidl.zeros(0, 4, requires_grad=True)
    out = model(x)
    assert out.shape == (0, 2)
    out.sum().backward()
    assert x.grad.shape == (0, 4)
    assert all((p.grad.numpy() == 0).all() for p in model.parameters())
    assert F.cross_entropy(out, minidl.zeros(0, dtype=minidl.int64), reduction="sum").item() == 0
    assert np.isnan(F.cross_entropy(out, minidl.zeros(0, dtype=minidl.int64)).item())


@pytest.mark.filterwarnings("error")
def test_nan_and_inf_pass_without_warnings() -> None:
    x = minidl.tensor([0.0, -1.0, float("inf"), float("nan")], requires_grad=True)
    for function in (minidl.log, minidl.sqrt, minidl.exp, minidl.reciprocal, F.softplus):
        y = function(x)
        y.sum().backward()
    assert np.isnan(x.grad.numpy()[3])
    assert (minidl.tensor([1.0]) / minidl.tensor([0.0])).item() == float("inf")
    assert np.isnan(F.softmax(x, 0).detach().numpy()).all()
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        np.float64(1.0) / np.zeros(1)  # the caller's own NumPy still warns


def test_negative_strides_and_read_only_arrays() -> None:
    source = np.arange(6.0).reshape(2, 3)
    flipped = minidl.from_numpy(source[:, ::-1])
    np.testing.assert_array_equal(
        (flipped @ flipped.T).numpy(), source[:, ::-1] @ source[:, ::-1].T
    )
    source.flags.writeable = False
    frozen = minidl.from_numpy(source)
    np.testing.assert_array_equal((frozen * 2).numpy(), source * 2)
    with pytest.raises(MinidlError, match=r"\[mul_\] the tensor is read-only"):
        frozen.mul_(2)
    with pytest.raises(MinidlError, match="read-only"):
        frozen[0] = 1


def test_a_failed_operator_changes_nothing() -> None:
    x = minidl.ones(3)
    version = x.storage.version
    with pytest.raises(ShapeError):
        x.add_(zeros(4))
    with pytest.raises(ShapeError):
        x[0:2] = zeros(3)
    assert x.tolist() == [1.0] * 3 and x.storage.version == version


def test_unknown_backend_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import minidl; minidl.zeros(1) + 1"],
        env={**os.environ, "MINIDL_BACKEND": "gpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    message = f"backend must be one of {', '.join(minidl.backends.available())}, got 'gpu'"
    assert done.stderr.splitlines()[-1].endswith(message)
    block = minidl.backends.use_backend("gpu")
    with pytest.raises(ArgumentError, match=message), block:
        pass

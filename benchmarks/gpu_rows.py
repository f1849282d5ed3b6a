"""The rows of `benchmarks.gpu_kernels`: what is called on which data, and the fewest bytes of it.

Every row calls entries of a kernel table, so that the same call runs on our kernels, on CuPy's
entries and, in float64, on the specification, which says what is right. 16-bit floats reach an
entry that does not take them as the operators send them: widened, and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": BFLOAT16}
SEED = 5


class Source(Protocol):
    """Where the arrays of a row come from."""

    def normal(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> Any:
        """Standard normal values, of float32 by default."""

    def integers(self, high: int, shape: tuple[int, ...]) -> Any:
        """int64 in [0, high)."""

    def filled(self, shape: tuple[int, ...], value: float) -> Any:
        """One float32 value throughout."""


@dataclass
class Row:
    """One kernel at one shape and dtype.

    bytes: the fewest that the result needs, of a shape. make(source, dtype, shape) -> inputs.
    ours(k, *inputs, *saved) -> arrays; saved(k, *inputs): what the forward pass leaves behind.
    theirs(torch, *inputs): PyTorch's; mode "backward": its gradients for inputs[0] with respect to
    the inputs `wrt` (and it takes the others but inputs[0]), "both": forward and gradients of a
    scalar. rivals(torch, inputs) -> further calls by name, each on copies of its own.
    wants(k, *inputs): what is right, if the specification has no such entry; needs: entries without
    which the row is left out; alone: not on CuPy's table. writes: inputs are written; restores: and
    must be put back before the next window. alike: whether PyTorch's values are ours. small: the
    shape that is compared with the specification, tiny: the same on the emulator. bars: the least
    ratio by rival, and the least share of the copy bandwidth ("copy").
    """

    kernel: str
    dtype: str
    shape: tuple[int, ...]
    bytes: Callable[[tuple[int, ...]], float]
    make: Callable[[Any, np.dtype, tuple[int, ...]], tuple]
    ours: Callable[..., Any]
    theirs: Callable[..., Any] | None = None
    mode: str = "forward"
    wrt: tuple[int, ...] = ()
    saved: Callable[..., tuple] | None = None
    rivals: Callable[[Any, tuple], dict[str, Callable[[], Any]]] | None = None
    wants: Callable[..., Any] | None = None
    needs: tuple[str, ...] = ()
    compiled: bool = False
    alone: bool = False
    writes: bool = False
    restores: bool = False
    alike: bool = True
    small: tuple[int, ...] = ()
    tiny: tuple[int, ...] = ()
    bars: dict[str, float] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        first, *rest = self.shape
        if not self.small:
            rows = max(1, min(first, 2**20 // math.prod(rest)))
            self.small = (rows, *rest)
        if not self.tiny:  # a warp's row and a block's
            self.tiny = (5, *(1030 if n > 1024 else min(n, 72) for n in rest))
        self.label = self.label or "x".join(map(str, self.shape))

    @property
    def name(self) -> str:
        """What --only looks in."""
        return f"{self.kernel} {self.label} {self.dtype}"


# ---------------------------------------------------------------- calls of entries

_MOVING = ("take", "copy", "cast")  # of any dtype


def is_half(x: Any) -> bool:
    """Whether x is an array of 16-bit floats."""
    return getattr(x, "dtype", None) in (BFLOAT16, np.float16)


def entry(k: Any, name: str, *given: Any, half: str = "") -> Any:
    """Call an entry as its operator (of the name `half` if it has another) does."""
    function = getattr(k, name)
    halves = [x.dtype for x in given if is_half(x)]
    if not halves or name in _MOVING or (half or name) in k.half:
        return function(*given)
    out = function(*(k.cast(x, np.dtype(np.float32)) if is_half(x) else x for x in given))

    def rounded(x: Any) -> Any:  # not the statistics of rows
        return k.cast(x, halves[0]) if x is not None and x.ndim > 1 else x

    return tuple(map(rounded, out)) if isinstance(out, tuple) else rounded(out)


def _call(name: str, *more: Any, half: str = "") -> Callable[..., Any]:
    """A call whose only operands are the inputs and these."""
    return lambda k, *inputs: entry(k, name, *inputs, *more, half=half)


# ---------------------------------------------------------------- data and bytes


def _normals(count: int) -> Callable[..., tuple]:
    return lambda source, dtype, shape: tuple(source.normal(shape, dtype) for _ in range(count))


def _moved(count: float, dtype: str) -> Callable[[tuple[int, ...]], float]:
    """The bytes of `count` arrays of that shape."""
    return lambda shape: count * math.prod(shape) * DTYPES[dtype].itemsize


def _normed(factors: int, first: int = 1) -> Callable[..., tuple]:
    """`first` arrays of the shape, then weight and bias."""

    def make(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        arrays = [source.normal(shape, dtype) for _ in range(first)]
        return (*arrays, *(source.normal(shape[-1:], dtype) for _ in range(factors)))

    return make


ROWS_BAR = {"copy": 0.85, "torch.compile": 1.0}
BOTH = ("bfloat16", "float32")
NORMS = ((16384, 768), (65536, 4096))
WIDE = ((16384, 1024), (4096, 50304))
HIDDEN = (16384, 3072)


def _layer_norms() -> Iterator[Row]:
    def theirs(torch: Any, x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], w, b)

    def residual(torch: Any, x: Any, y: Any, w: Any, b: Any) -> Any:
        total = x + y
        return torch.nn.functional.layer_norm(total, x.shape[-1:], w, b), total

    def forward(k: Any, x: Any, w: Any, b: Any) -> Any:
        return entry(k, "layer_norm", x, 1, w, b, 1e-5)[0]

    def added(k: Any, x: Any, y: Any, w: Any, b: Any) -> Any:
        return entry(k, "add_layer_norm", x, y, 1, w, b, 1e-5)[:2]

    def saved(k: Any, g: Any, x: Any, w: Any, b: Any) -> tuple:
        return entry(k, "layer_norm", x, 1, w, b, 1e-5)[1:]

    def backward(k: Any, g: Any, x: Any, w: Any, b: Any, mean: Any, rstd: Any) -> Any:
        return entry(k, "layer_norm_backward", g, x, 1, w, mean, rstd)

    more: dict[str, Any] = {"compiled": True, "bars": ROWS_BAR}
    for dtype in BOTH:
        for shape in NORMS:
            moved = _moved(2, dtype)
            yield Row("layer_norm", dtype, shape, moved, _normed(2), forward, theirs, **more)
            yield Row(
                "layer_norm backward", dtype, shape, _moved(3, dtype), _normed(2, 2), backward,
                theirs, "backward", (1, 2, 3), saved, **more,
            )  # fmt: skip
            moved = _moved(4, dtype)
            yield Row("residual + layer_norm", dtype, shape, moved, _normed(2, 2), added, residual,
                      **more)  # fmt: skip


def _rms_norms() -> Iterator[Row]:
    def theirs(torch: Any, x: Any, w: Any) -> Any:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], w, 1e-5)

    def forward(k: Any, x: Any, w: Any) -> Any:
        return entry(k, "rms_norm", x, 1, w, 1e-5)[0]

    def saved(k: Any, g: Any, x: Any, w: Any) -> tuple:
        return entry(k, "rms_norm", x, 1, w, 1e-5)[1:]

    def backward(k: Any, g: Any, x: Any, w: Any, rstd: Any) -> Any:
        return entry(k, "rms_norm_backward", g, x, 1, w, rstd)

    for dtype in BOTH:
        for shape in NORMS:
            moved = _moved(2, dtype)
            more: dict[str, Any] = {"compiled": shape == NORMS[1], "bars": ROWS_BAR}
            yield Row("rms_norm", dtype, shape, moved, _normed(1), forward, theirs, **more)
            yield Row(
                "rms_norm backward", dtype, shape, _moved(3, dtype), _normed(1, 2), backward,
                theirs, "backward", (1, 2), saved, **more,
            )  # fmt: skip


def _softmaxes() -> Iterator[Row]:
    for name in ("softmax", "log_softmax"):

        def theirs(torch: Any, x: Any, name: str = name) -> Any:
            return getattr(torch.nn.functional, name)(x, -1)

        def saved(k: Any, g: Any, x: Any, name: str = name) -> tuple:
            return (entry(k, name, x, -1),)

        def backward(k: Any, g: Any, x: Any, out: Any, name: str = name) -> Any:
            return entry(k, f"{name}_backward", g, out, -1)

        for shape in WIDE:
            for dtype in BOTH:
                yield Row(
                    name, dtype, shape, _moved(2, dtype), _normals(1), _call(name, -1), theirs,
                    compiled=name == "softmax" or dtype == "bfloat16", bars=ROWS_BAR,
                )  # fmt: skip
        for dtype in BOTH:
            yield Row(
                f"{name} backward", dtype, WIDE[0], _moved(3, dtype), _normals(2), backward,
                theirs, "backward", (1,), saved, compiled=dtype == "bfloat16", bars=ROWS_BAR,
            )  # fmt: skip


def _losses() -> Iterator[Row]:
    ignored = -100

    def logits(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        return source.normal(shape, dtype), source.integers(shape[1], shape[:1])

    def with_share(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        return (*logits(source, dtype, shape), source.filled((), 1 / shape[0]))

    def forward(k: Any, x: Any, target: Any) -> Any:
        return entry(k, "cross_entropy", x, target, None, ignored, 0.0)[0]

    def each(torch: Any, x: Any, target: Any) -> Any:
        return torch.nn.functional.cross_entropy(x, target, reduction="none")

    def both(k: Any, x: Any, target: Any, share: Any) -> Any:
        _, lse, _ = entry(k, "cross_entropy", x, target, None, ignored, 0.0)
        return entry(k, "cross_entropy_backward", share, x, target, None, ignored, 0.0, lse)

    def mean(torch: Any, x: Any, target: Any, share: Any) -> Any:
        return torch.nn.functional.cross_entropy(x, target)

    def with_one(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        return (*logits(source, dtype, shape), source.filled((), 1.0))

    def in_place(k: Any, x: Any, target: Any, one: Any) -> Any:
        k.cross_entropy_in_place(x, target, None, ignored, 0.0)  # logits become gradients
        return x

    def total(torch: Any, x: Any, target: Any, one: Any) -> Any:
        return torch.nn.functional.cross_entropy(x, target, reduction="sum")

    shape = (16384, 50304)
    for dtype in BOTH:
        moved = _moved(1, dtype)
        yield Row("cross_entropy", dtype, shape, moved, logits, forward, each, compiled=True,
                  bars=ROWS_BAR)  # fmt: skip
    moved = _moved(2, "bfloat16")
    yield Row(
        "cross_entropy + backward", "bfloat16", shape, moved, with_share, both, mean, "both", (0,),
        compiled=True,
    )  # fmt: skip
    yield Row(
        "cross_entropy in place", "bfloat16", shape, moved, with_one, in_place, total, "both",
        (0,), wants=both, needs=("cross_entropy_in_place",), compiled=True, alone=True, writes=True,
        restores=True, bars={"copy": 0.85, "torch.compile": 1.4},
    )  # fmt: skip


def _activations() -> Iterator[Row]:
    def gelu(approximate: str) -> Callable[..., Any]:
        return lambda torch, x: torch.nn.functional.gelu(x, approximate=approximate)

    def kept(k: Any, g: Any, x: Any) -> tuple:
        return ()

    def squashed(k: Any, g: Any, x: Any) -> tuple:
        return (entry(k, "sigmoid", x),)

    forwards: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "gelu": (_call("gelu", "none"), gelu("none")),
        "gelu tanh": (_call("gelu", "tanh"), gelu("tanh")),
        "silu": (_call("silu"), lambda torch, x: torch.nn.functional.silu(x)),
        "sigmoid": (_call("sigmoid"), lambda torch, x: torch.sigmoid(x)),
    }
    backwards: dict[str, tuple[Callable[..., Any], Callable[..., tuple]]] = {
        "gelu": (_call("gelu_backward", "none"), kept),
        "gelu tanh": (_call("gelu_backward", "tanh"), kept),
        "silu": (_call("silu_backward"), kept),
        "sigmoid": (lambda k, g, x, out: entry(k, "sigmoid_backward", g, out), squashed),
    }
    for name, (forward, theirs) in forwards.items():
        for dtype in BOTH if name != "gelu tanh" else ("bfloat16",):
            bars = ROWS_BAR if name.startswith("gelu") else {}
            moved = _moved(2, dtype)
            more: dict[str, Any] = {"compiled": bool(bars), "bars": bars}
            yield Row(name, dtype, HIDDEN, moved, _normals(1), forward, theirs, **more)
            backward, saved = backwards[name]
            yield Row(
                f"{name} backward", dtype, HIDDEN, _moved(3, dtype), _normals(2), backward, theirs,
                "backward", (1,), saved, **more,
            )  # fmt: skip

    def biased(k: Any, x: Any, b: Any) -> Any:
        if hasattr(k, "bias_gelu"):
            return entry(k, "bias_gelu", x, b, "tanh")
        return entry(k, "gelu", entry(k, "add", x, b), "tanh")

    def theirs_biased(torch: Any, x: Any, b: Any) -> Any:
        return torch.nn.functional.gelu(x + b, approximate="tanh")

    yield Row(
        "bias + gelu tanh", "bfloat16", HIDDEN, _moved(2, "bfloat16"), _normed(1), biased,
        theirs_biased, compiled=True,
    )  # fmt: skip


def _embeddings() -> Iterator[Row]:
    def table(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        tokens, rows, width = shape
        return source.integers(rows, (tokens,)), source.normal((rows, width), dtype)

    def graded(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        index, weight = table(source, dtype, shape)
        return source.normal((shape[0], shape[2]), dtype), index, weight

    def looked_up(k: Any, index: Any, weight: Any) -> Any:
        return entry(k, "take", weight, index, 0)

    def theirs(torch: Any, index: Any, weight: Any) -> Any:
        return torch.nn.functional.embedding(index, weight)

    def backward(k: Any, g: Any, index: Any, weight: Any) -> Any:
        return entry(k, "embedding_backward", g, index, len(weight), None)

    shape = (16384, 50304, 768)
    sizes: dict[str, Any] = {"small": (2000, 3000, 768), "tiny": (40, 12, 70)}
    for dtype in BOTH:
        size = DTYPES[dtype].itemsize
        yield Row(
            "embedding", dtype, shape, lambda s, size=size: s[0] * (2 * size * s[2] + 8), table,
            looked_up, theirs, **sizes,
        )  # fmt: skip
        yield Row(
            "embedding backward", dtype, shape,
            lambda s, size=size: s[0] * (size * s[2] + 8) + size * s[1] * s[2],
            graded, backward, theirs, "backward", (2,), bars={"torch": 1.5}, **sizes,
        )  # fmt: skip


# ---------------------------------------------------------------- optimisers


def gpt2_shapes(vocab: int, context: int, layers: int, width: int) -> list[tuple[int, ...]]:
    """The shapes of GPT-2's parameters, 124.4M of them for (50257, 1024, 12, 768)."""
    found: list[tuple[int, ...]] = [(vocab, width), (context, width)]
    for _ in range(layers):
        found += [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
        found += [(width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width)]
        found += [(width,)]
    return [*found, (width,), (width,)]


def _optimizers() -> Iterator[Row]:
    def elements(shape: tuple[int, ...]) -> int:
        return sum(math.prod(s) for s in gpt2_shapes(*shape))

    def stepped(states: int) -> Callable[..., tuple]:
        def make(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
            shapes = gpt2_shapes(*shape)
            arrays = [[source.normal(s) for s in shapes] for _ in range(2)]
            return (*arrays, *([source.filled(s, 0.0) for s in shapes] for _ in range(states)))

        return make

    def gradients(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        return ([source.normal(s) for s in gpt2_shapes(*shape)],)

    def adamw(k: Any, params: list, grads: list, means: list, squares: list) -> Any:
        none, first = [None] * len(params), [1] * len(params)
        k.adam_step(
            params, grads, means, squares, none, first, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8,
            weight_decay=0.01, amsgrad=False, maximize=False, decoupled=True,
        )  # fmt: skip
        return params

    def sgd(k: Any, params: list, grads: list, momenta: list) -> Any:
        k.sgd_step(
            params, grads, momenta, [False] * len(params), lr=1e-3, momentum=0.9, dampening=0.0,
            weight_decay=0.0, nesterov=False, maximize=False,
        )  # fmt: skip
        return params

    def norm(k: Any, grads: list) -> Any:
        return k.grad_norm(grads, 2.0)

    def clip(k: Any, grads: list) -> Any:
        k.grad_scale(grads, k.minimum(1.0 / (k.grad_norm(grads, 2.0) + 1e-6), 1.0))
        return grads

    def stepping(torch: Any, inputs: tuple, make: Callable[[list], Any]) -> Callable[[], Any]:
        params = [p.clone().requires_grad_() for p in inputs[0]]
        for p, g in zip(params, inputs[1], strict=True):
            p.grad = g
        optimizer = make(params)

        def step() -> list:
            optimizer.step()
            return params

        return step

    def adamw_rivals(torch: Any, inputs: tuple) -> dict[str, Callable[[], Any]]:
        def made(**how: bool) -> Callable[[], Any]:
            options = {"lr": 1e-3, "weight_decay": 0.01, **how}
            return stepping(torch, inputs, lambda ps: torch.optim.AdamW(ps, **options))

        return {"torch": made(fused=True), "torch foreach": made(foreach=True)}

    def sgd_rivals(torch: Any, inputs: tuple) -> dict[str, Callable[[], Any]]:
        def made(**how: bool) -> Callable[[], Any]:
            return stepping(
                torch, inputs, lambda ps: torch.optim.SGD(ps, lr=1e-3, momentum=0.9, **how)
            )

        return {"torch": made(fused=True), "torch foreach": made(foreach=True)}

    def clip_rivals(torch: Any, inputs: tuple) -> dict[str, Callable[[], Any]]:
        params = [g.clone().requires_grad_() for g in inputs[0]]
        for p in params:
            p.grad = p.detach().clone()

        def step() -> list:
            torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
            return [p.grad for p in params]

        return {"torch": step}

    model = (50257, 1024, 12, 768)
    more: dict[str, Any] = {"small": (500, 32, 2, 96), "tiny": (19, 8, 1, 16), "label": "124M"}
    yield Row(
        "AdamW", "float32", model, lambda s: 28 * elements(s), stepped(2), adamw, writes=True,
        rivals=adamw_rivals, bars={"copy": 0.88, "torch": 1.0, "torch foreach": 1.3}, **more,
    )  # fmt: skip
    yield Row(
        "SGD with momentum", "float32", model, lambda s: 20 * elements(s), stepped(1), sgd,
        writes=True, rivals=sgd_rivals, **more,
    )  # fmt: skip
    yield Row(
        "gradient norm", "float32", model, lambda s: 4 * elements(s), gradients, norm,
        lambda torch, grads: torch.nn.utils.get_total_norm(grads), **more,
    )  # fmt: skip
    yield Row(
        "gradient norm + clip", "float32", model, lambda s: 12 * elements(s), gradients, clip,
        writes=True, rivals=clip_rivals, **more,
    )  # fmt: skip


# ---------------------------------------------------------------- random numbers, sums, copies


def _random() -> Iterator[Row]:
    def nothing(source: Source, dtype: np.dtype, shape: tuple[int, ...]) -> tuple:
        return (shape,)

    def device(torch: Any) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    f32 = np.dtype(np.float32)
    more: dict[str, Any] = {"alike": False, "tiny": (5, 70)}
    yield Row(
        "dropout", "bfloat16", HIDDEN, _moved(2, "bfloat16"), _normals(1),
        _call("dropout", 0.1, SEED, 0),
        lambda torch, x: torch.nn.functional.dropout(x, 0.1), **more,
    )  # fmt: skip
    yield Row(
        "dropout", "float32", HIDDEN, _moved(2, "float32"), _normals(1),
        _call("dropout", 0.1, SEED, 0),
        lambda torch, x: torch.nn.functional.dropout(x, 0.1), **more,
    )  # fmt: skip
    yield Row(
        "rand", "float32", (16384, 4096), _moved(1, "float32"), nothing,
        lambda k, shape: k.uniform(shape, f32, SEED, 0),
        lambda torch, shape: torch.rand(shape, device=device(torch)), **more,
    )  # fmt: skip
    yield Row(
        "randn", "float32", (16384, 4096), _moved(1, "float32"), nothing,
        lambda k, shape: k.normal(shape, f32, SEED, 0),
        lambda torch, shape: torch.randn(shape, device=device(torch)), **more,
    )  # fmt: skip
    yield Row(
        "bernoulli", "bool", (16384, 4096), lambda s: math.prod(s), nothing,
        lambda k, shape: k.bernoulli(shape, 0.3, SEED, 0),
        lambda torch, shape: torch.empty(
            shape, dtype=torch.bool, device=device(torch)
        ).bernoulli_(0.3),
        **more,
    )  # fmt: skip


def _sums() -> Iterator[Row]:
    places = {"of rows": (1,), "over rows": (0,), "of all": (0, 1)}
    for dtype in ("float32", "bfloat16"):
        for name, axes in places.items():
            yield Row(
                f"sum {name}", dtype, (16384, 4096), _moved(1, dtype), _normals(1),
                _call("sum", axes), lambda torch, x, axes=axes: x.sum(axes),
            )  # fmt: skip


def _copies() -> Iterator[Row]:
    f32 = np.dtype(np.float32)
    yield Row(
        "cast to bfloat16", "float32", (16384, 4096), lambda s: 6 * math.prod(s), _normals(1),
        _call("cast", BFLOAT16), lambda torch, x: x.to(torch.bfloat16), tiny=(5, 70),
    )  # fmt: skip
    yield Row(
        "cast to float32", "bfloat16", (16384, 4096), lambda s: 6 * math.prod(s), _normals(1),
        _call("cast", f32), lambda torch, x: x.to(torch.float32), tiny=(5, 70),
    )  # fmt: skip
    for dtype in BOTH:
        yield Row(
            "transpose", dtype, (8192, 8192), _moved(2, dtype), _normals(1),
            lambda k, x: entry(k, "copy", x.T), lambda torch, x: x.t().contiguous(),
            small=(1000, 1001), tiny=(35, 70),
        )  # fmt: skip


def rows() -> list[Row]:
    """Every row, the ones with bars first: what a short time leaves out are the last."""
    parts = (
        _layer_norms, _losses, _softmaxes, _optimizers, _embeddings, _activations, _rms_norms,
        _sums, _copies, _random,
    )  # fmt: skip
    return [row for part in parts for row in part()]

"""JAX as a rival in a process of its own: `python -P jax_side.py`, which remote.py speaks to.

Messages are pickles, each answered by one. ("prepare", case, arguments) makes and compiles a call
and answers whether there is such a case; ("call",) runs it once and answers its value; ("time", n)
answers the seconds of n calls, each waited for until its result is there.

Everything is jitted: operators one by one (with backward: the value of the sum and the gradients),
training steps whole, state donated. So XLA fuses across what eager libraries do one after the
other. This file imports nothing of minidl, so that any interpreter that has JAX can run it.
"""

from __future__ import annotations

import inspect
import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np

Call = Callable[[], Any]


def drawn(shapes: list[tuple[int, ...]], dtype: str = "float32") -> list[Any]:
    """Normal numbers."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(s).astype(np.float32), dtype=dtype) for s in shapes]


def bound(function: Callable, inputs: list[Any], backward: bool) -> Call:
    """The compiled call."""
    if not backward:
        compiled = jax.jit(function)
    else:
        every = tuple(range(len(inputs)))
        compiled = jax.jit(jax.value_and_grad(lambda *x: function(*x).sum(), every))
    return lambda: compiled(*inputs)


# ---------------------------------------------------------------- operators


def matmul(left: tuple[int, ...], right: tuple[int, ...], layout: str) -> Call:
    """Products; operands lie transposed where the layout says T."""

    def product(a: Any, b: Any) -> Any:
        a = a.swapaxes(-1, -2) if layout[0] == "T" else a
        return a @ (b.swapaxes(-1, -2) if layout[1] == "T" else b)

    return bound(product, drawn([left, right]), False)


def attention(b: int, h: int, t: int, s: int, d: int, causal: bool, backward: bool) -> Call:
    """(batch, length, heads, depth), as JAX wants it."""

    def attend(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal)

    return bound(attend, drawn([(b, n, h, d) for n in (t, s, s)]), backward)


def layer_norm(x: Any, w: Any, b: Any) -> Any:
    """Over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w + b


def rms_norm(x: Any, w: Any) -> Any:
    """Over the last axis."""
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + jnp.finfo(x.dtype).eps) * w


def cross_entropy(logits: Any, target: Any) -> Any:
    """The mean over rows."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits, -1), target[:, None], 1).mean()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "log_softmax": lambda x: jax.nn.log_softmax(x, -1),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "gelu tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu erf": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "add": lambda x, y, r: x + y,
    "sub": lambda x, y, r: x - y,
    "mul": lambda x, y, r: x * y,
    "div": lambda x, y, r: x / y,
    "mul by a number": lambda x, y, r: x * 2.0,
    "add of a row": lambda x, y, r: x + r,
    "neg": lambda x, y, r: -x,
    "maximum": lambda x, y, r: jnp.maximum(x, y),
    "square": lambda x, y, r: x * x,
    "sqrt": lambda x, y, r: jnp.sqrt(jnp.abs(x)),
    "greater": lambda x, y, r: x > y,
    "where": lambda x, y, r: jnp.where(x > 0, x, y),
    "relu": lambda x, y, r: jax.nn.relu(x),
    "exp": lambda x, y, r: jnp.exp(x),
    "tanh": lambda x, y, r: jnp.tanh(x),
    "sigmoid": lambda x, y, r: jax.nn.sigmoid(x),
    "sum": lambda x, y, r: x.sum(),
    "sum over rows": lambda x, y, r: x.sum(0),
    "sum of rows": lambda x, y, r: x.sum(1),
}


def function(name: str, shapes: list[tuple[int, ...]], dtype: str, backward: bool) -> Call | None:
    """A row's operator by the name of the row, less sizes and dtypes."""
    size = re.compile(r"\d+x\d+|bfloat16")
    plain = " ".join(word for word in name.split() if not size.fullmatch(word))
    inputs = drawn(shapes, dtype)
    rng = np.random.default_rng(0)
    if plain == "cross_entropy":
        classes = jnp.asarray(rng.integers(0, shapes[0][1], shapes[0][0]))
        return bound(lambda x: cross_entropy(x, classes), inputs[:1], backward)
    if plain == "embedding 4096 of":
        index = jnp.asarray(rng.integers(0, shapes[0][0], 4096))
        return bound(lambda w: w[index], inputs[:1], backward)
    found = FUNCTIONS.get(plain)
    if found is None:
        return None
    return bound(found, inputs[: len(inspect.signature(found).parameters)], backward)


# ---------------------------------------------------------------- training steps


def linear(p: dict[str, Any], name: str, x: Any) -> Any:
    """x W^T + b with PyTorch's names of weights."""
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def norm(p: dict[str, Any], name: str, x: Any) -> Any:
    """layer_norm with PyTorch's names of weights."""
    return layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"])


def heads_of(x: Any, heads: int) -> list[Any]:
    """Queries, keys and values (batch, length, heads, depth) of (batch, length, 3 width)."""
    b, t, c = x.shape
    return [part.reshape(b, t, heads, c // 3 // heads) for part in jnp.split(x, 3, -1)]


def sequential(p: dict[str, Any], x: Any, between: Callable) -> Any:
    """Linear layers with something between them."""
    names = sorted({int(name.split(".")[0]) for name in p})
    for n in names[:-1]:
        x = between(linear(p, str(n), x))
    return linear(p, str(names[-1]), x)


def gpt(p: dict[str, Any], index: Any, heads: int) -> Any:
    """The causal Transformer of benchmarks/models.py."""
    x = p["tokens.weight"][index] + p["positions.weight"][: index.shape[1]]
    layers = len([name for name in p if name.endswith("qkv.weight")])
    for n in range(layers):
        at = f"blocks.{n}"
        q, k, v = heads_of(linear(p, f"{at}.qkv", norm(p, f"{at}.norm1", x)), heads)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + linear(p, f"{at}.out", y)
        up = jax.nn.gelu(linear(p, f"{at}.up", norm(p, f"{at}.norm2", x)), approximate=False)
        x = x + linear(p, f"{at}.down", up)
    logits = linear(p, "head", norm(p, "norm", x))
    return logits.reshape(-1, logits.shape[-1])


def encoder(p: dict[str, Any], index: Any, heads: int) -> Any:
    """The classifier of benchmarks/models.py."""
    x = p["tokens.weight"][index]
    for n in range(2):
        at = f"encoder.layers.{n}"
        wide = x @ p[f"{at}.self_attn.in_proj_weight"].T + p[f"{at}.self_attn.in_proj_bias"]
        y = jax.nn.dot_product_attention(*heads_of(wide, heads)).reshape(x.shape)
        x = norm(p, f"{at}.norm1", x + linear(p, f"{at}.self_attn.out_proj", y))
        up = jax.nn.relu(linear(p, f"{at}.linear1", x))
        x = norm(p, f"{at}.norm2", x + linear(p, f"{at}.linear2", up))
    return linear(p, "head", x.mean(1))


def bce(z: Any, y: Any) -> Any:
    """Binary cross-entropy of logits."""
    return (jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))).mean()


MODELS: dict[str, tuple[Callable, Callable]] = {
    "mlp": (lambda p, x, heads: sequential(p, x, jax.nn.relu), cross_entropy),
    "small": (lambda p, x, heads: sequential(p, x, jax.nn.sigmoid), bce),
    "gpt": (gpt, cross_entropy),
    "encoder": (encoder, cross_entropy),
}


def train(model: str, heads: int, decay: float, weights: dict, x: Any, y: Any) -> Call:
    """A step of Adam (decoupled decay), as one compiled function."""
    net, loss = MODELS[model]
    x, y = jnp.asarray(x), jnp.asarray(y)

    def step(state: Any) -> tuple[Any, Any]:
        p, m, v, count = state
        value, g = jax.value_and_grad(lambda p: loss(net(p, x, heads), y))(p)
        m = jax.tree.map(lambda m, g: m + (g - m) * 0.1, m, g)
        v = jax.tree.map(lambda v, g: v + (g * g - v) * 0.001, v, g)
        count = count + 1
        size, root = 1e-3 / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        p = jax.tree.map(
            lambda w, m, v: w * (1 - 1e-3 * decay) - size * m / (jnp.sqrt(v) / root + 1e-8), p, m, v
        )
        return (p, m, v, count), value

    compiled = jax.jit(step, donate_argnums=0)
    p = {name: jnp.asarray(w) for name, w in weights.items()}
    zeros = [jax.tree.map(jnp.zeros_like, p) for _ in range(2)]
    state: Any = (p, *zeros, jnp.zeros((), jnp.float32))

    def run() -> Any:
        nonlocal state
        state, value = compiled(state)
        jax.block_until_ready(state)
        return value

    return run


CASES: dict[str, Callable[..., Call | None]] = {
    "matmul": matmul,
    "attention": attention,
    "function": function,
    "train": train,
}


def main() -> None:
    """Answer messages until there are no more."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    call: Call | None = None
    pickle.dump(jax.__version__, sink)
    sink.flush()
    while True:
        try:
            what, *given = pickle.load(source)
        except EOFError:
            return
        answer: Any
        try:
            if what == "prepare":
                call = None  # frees what the case before held
                call = CASES[given[0]](*given[1:])
                if call and given[0] != "train":  # whose first step compiles, and is compared
                    jax.block_until_ready(call())
                answer = call is not None
            elif what == "call":
                value = jax.block_until_ready(call())  # type: ignore[misc]
                answer = float(value) if getattr(value, "size", 0) == 1 else math.nan
            else:
                start = perf_counter()
                for _ in range(given[0]):
                    jax.block_until_ready(call())  # type: ignore[misc]
                answer = perf_counter() - start
        except Exception as error:  # noqa: BLE001 - the other side raises it
            answer = f"{type(error).__name__}: {error}"
        pickle.dump(answer, sink)
        sink.flush()


if __name__ == "__main__":
    main()

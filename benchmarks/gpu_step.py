"""Training steps on a GPU: minidl eager, minidl as a graph, torch eager, torch as a graph.

`python -m benchmarks.gpu_step [--rounds 20] [--json FILE] [--dry]`: an MLP and a small Transformer
in float32, AdamW, dropout. In every round each side takes a few steps, in turns, between two waits
for the GPU; printed are medians of milliseconds per step with the middle half of the rounds, and
the ratio of torch's eager step to each. --dry takes eager steps of ours without a GPU, tiny ones
on the emulator of the tests, to show that all of it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import minidl
from benchmarks.gpu_place import emulator
from minidl import cuda, nn, optim
from minidl.models import GPT


@dataclass(frozen=True)
class Size:
    """Of the Transformer, of the MLP and its batch; steps of a side in a round."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    vocab: int = 512
    length: int = 128
    batch: int = 16
    sizes: tuple[int, ...] = (784, 512, 512, 10)
    rows: int = 128
    steps: int = 10


TINY = Size(16, 1, 2, 11, 4, 2, (8, 6, 6, 3), 4, 1)


def layers(lib: Any, size: Size) -> Any:
    """The MLP, of minidl.nn or torch.nn."""
    parts: list[Any] = []
    for inner, outer in zip(size.sizes, size.sizes[1:], strict=False):
        parts += [lib.Linear(inner, outer), lib.GELU(), lib.Dropout(0.1)]
    return lib.Sequential(*parts[:-2])


def torch_transformer(torch: Any, size: Size) -> Any:
    """The same Transformer as `minidl.models.GPT`."""
    lib, F, width, heads = torch.nn, torch.nn.functional, size.width, size.heads

    class Attention(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = lib.Linear(width, 3 * width), lib.Linear(width, width)

        def forward(self, x: Any) -> Any:
            parts = self.c_attn(x).view(*x.shape[:2], 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
            return F.dropout(self.c_proj(mixed.transpose(1, 2).reshape(x.shape)), 0.1)

    class Block(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = lib.LayerNorm(width), lib.LayerNorm(width)
            self.attn = Attention()
            self.mlp = lib.Sequential(
                lib.Linear(width, 4 * width), lib.GELU(), lib.Linear(4 * width, width),
                lib.Dropout(0.1),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Transformer(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = lib.Embedding(size.vocab, width), lib.Embedding(size.length, width)
            self.h = lib.Sequential(*(Block() for _ in range(size.layers)))
            self.ln_f = lib.LayerNorm(width)
            self.lm_head = lib.Linear(width, size.vocab, bias=False)
            self.wte.weight = self.lm_head.weight
            lib.init.normal_(self.lm_head.weight, 0.0, 0.02)

        def forward(self, ids: Any) -> Any:
            where = torch.arange(ids.shape[1], device=ids.device)
            x = F.dropout(self.wte(ids) + self.wpe(where), 0.1)
            return self.lm_head(self.ln_f(self.h(x)))

    return Transformer()


def data(lib: Any, kind: str, size: Size) -> tuple[Any, Any]:
    """Inputs and classes on the GPU, of minidl or torch."""
    lib.manual_seed(0)
    if kind == "mlp":
        x = lib.randn(size.rows, size.sizes[0])
        return x.cuda(), lib.randint(0, size.sizes[-1], (size.rows,)).cuda()
    ids = lib.randint(0, size.vocab, (size.batch, size.length + 1)).cuda()
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def sides(
    kind: str, size: Size, dry: bool
) -> dict[str, tuple[Callable[[], Any], Callable[[], None]]]:
    """Name -> (a step, the wait for its GPU); torch's only where it is installed."""
    found: dict[str, tuple[Callable[[], Any], Callable[[], None]]] = {}
    for name in ("eager",) if dry else ("eager", "graph"):
        minidl.manual_seed(0)
        model = (
            layers(nn, size)
            if kind == "mlp"
            else GPT(
                size.vocab, size.length, size.layers, size.heads, size.width, dropout=0.1, bias=True
            )
        ).to("cuda")
        step = training_step(
            model,
            optim.AdamW(model.parameters(), lr=1e-3),
            nn.functional.cross_entropy,
            *data(minidl, kind, size),
        )
        for _ in range(3):
            step()
        if name == "graph":
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                step()
            step = replaying(graph, step)
        found[f"minidl {name}"] = step, (lambda: None) if dry else cuda.synchronize
    if dry:
        return found
    try:
        import torch
    except ImportError:
        return found
    for name in ("eager", "graph"):
        torch.manual_seed(0)
        model = (layers(torch.nn, size) if kind == "mlp" else torch_transformer(torch, size)).cuda()
        step = training_step(
            model,
            torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=name == "graph"),
            torch.nn.functional.cross_entropy,
            *data(torch, kind, size),
        )
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        if name == "graph":
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                step()
            step = replaying(captured, step)
        found[f"torch {name}"] = step, torch.cuda.synchronize
    return found


def replaying(graph: Any, step: Callable[[], Any]) -> Callable[[], Any]:
    """Replays that keep alive what was captured: the graph reads inputs and writes state."""

    def replay() -> None:
        graph.replay()

    replay.captured = step  # type: ignore[attr-defined]
    return replay


def training_step(
    model: Any, optimizer: Any, criterion: Callable[..., Any], x: Any, y: Any
) -> Callable[[], Any]:
    """One step as programs write it."""

    def step() -> None:
        optimizer.zero_grad()
        out = model(x)
        criterion(out.reshape(-1, out.shape[-1]), y.reshape(-1)).backward()
        optimizer.step()

    return step


def measured(kind: str, rounds: int, size: Size, dry: bool) -> dict[str, dict[str, float]]:
    """Milliseconds per step of all sides, in turns."""
    there = sides(kind, size, dry)
    times: dict[str, list[float]] = {name: [] for name in there}
    for turn in range(rounds + 2):
        order = list(there) if turn % 2 else list(there)[::-1]
        for name in order:
            step, wait = there[name]
            wait()
            start = perf_counter()
            for _ in range(size.steps):
                step()
            wait()
            if turn > 1:  # the first two warm up
                times[name].append((perf_counter() - start) / size.steps * 1e3)
    found = {}
    for name, own in times.items():
        low, middle, high = statistics.quantiles(own, n=4)
        found[name] = {"ms": middle, "low": low, "high": high}
    for row in found.values():
        if "torch eager" in found:
            row["ratio"] = found["torch eager"]["ms"] / row["ms"]
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Training steps on a GPU.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry", action="store_true", help="without a GPU")
    options = parser.parse_args()
    if not options.dry and (why := cuda.missing()):
        raise SystemExit(f"benchmarks.gpu_step needs a GPU, or --dry: {why}")
    with emulator() if options.dry else nullcontext():
        report = run(options.rounds, TINY if options.dry else Size(), options.dry)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run(rounds: int, size: Size, dry: bool) -> dict[str, Any]:
    """Measure and print."""
    report = {"gpu": "none: the emulator" if dry else cuda.get_device_name(), "steps": {}}
    print(report["gpu"])
    for kind in ("mlp", "transformer"):
        report["steps"][kind] = found = measured(kind, rounds, size, dry)
        for name, row in found.items():
            spread = f"({row['low']:.3f} to {row['high']:.3f})"
            ratio = f"torch eager / this: {row['ratio']:.2f}" if "ratio" in row else ""
            print(f"{kind:12} {name:14} {row['ms']:8.3f} ms {spread:20} {ratio}".rstrip())
    return report


if __name__ == "__main__":
    main()

"""Training steps on a GPU: minidl eager, minidl as a graph, torch eager, torch as a graph.

`python -m benchmarks.gpu_step [--rounds 20] [--json FILE]`: an MLP and a small Transformer in
float32, AdamW, dropout. In every round each side takes a few steps, in turns, between two waits for
the GPU; printed are medians of milliseconds per step with the middle half of the rounds, and the
ratio of torch's eager step to each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import minidl
from minidl import cuda, nn, optim
from minidl.models import GPT

WIDTH, LAYERS, HEADS, VOCAB, LENGTH, BATCH = 256, 4, 4, 512, 128, 16
SIZES = (784, 512, 512, 10)
ROWS = 128
STEPS = 10  # of a side in a round


def layers(lib: Any) -> Any:
    """The MLP, of minidl.nn or torch.nn."""
    parts: list[Any] = []
    for inner, outer in zip(SIZES, SIZES[1:], strict=False):
        parts += [lib.Linear(inner, outer), lib.GELU(), lib.Dropout(0.1)]
    return lib.Sequential(*parts[:-2])


def torch_transformer(torch: Any) -> Any:
    """The same Transformer as `minidl.models.GPT`."""
    lib, F = torch.nn, torch.nn.functional

    class Attention(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = lib.Linear(WIDTH, 3 * WIDTH), lib.Linear(WIDTH, WIDTH)

        def forward(self, x: Any) -> Any:
            parts = self.c_attn(x).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            heads = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
            return F.dropout(self.c_proj(heads.transpose(1, 2).reshape(x.shape)), 0.1)

    class Block(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = lib.LayerNorm(WIDTH), lib.LayerNorm(WIDTH)
            self.attn = Attention()
            self.mlp = lib.Sequential(
                lib.Linear(WIDTH, 4 * WIDTH), lib.GELU(), lib.Linear(4 * WIDTH, WIDTH),
                lib.Dropout(0.1),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Transformer(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = lib.Embedding(VOCAB, WIDTH), lib.Embedding(LENGTH, WIDTH)
            self.h = lib.Sequential(*(Block() for _ in range(LAYERS)))
            self.ln_f = lib.LayerNorm(WIDTH)
            self.lm_head = lib.Linear(WIDTH, VOCAB, bias=False)
            self.wte.weight = self.lm_head.weight
            lib.init.normal_(self.lm_head.weight, 0.0, 0.02)

        def forward(self, ids: Any) -> Any:
            where = torch.arange(ids.shape[1], device=ids.device)
            x = F.dropout(self.wte(ids) + self.wpe(where), 0.1)
            return self.lm_head(self.ln_f(self.h(x)))

    return Transformer()


def data(lib: Any, kind: str) -> tuple[Any, Any]:
    """Inputs and classes on the GPU, of minidl or torch."""
    lib.manual_seed(0)
    if kind == "mlp":
        return lib.randn(ROWS, SIZES[0]).cuda(), lib.randint(0, 10, (ROWS,)).cuda()
    ids = lib.randint(0, VOCAB, (BATCH, LENGTH + 1)).cuda()
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def sides(kind: str) -> dict[str, tuple[Callable[[], Any], Callable[[], None]]]:
    """Name -> (a step, the wait for its GPU); torch's only where it is installed."""
    found: dict[str, tuple[Callable[[], Any], Callable[[], None]]] = {}
    for name in ("eager", "graph"):
        minidl.manual_seed(0)
        model = (
            layers(nn)
            if kind == "mlp"
            else GPT(VOCAB, LENGTH, LAYERS, HEADS, WIDTH, dropout=0.1, bias=True)
        ).to("cuda")
        step = training_step(
            model,
            optim.AdamW(model.parameters(), lr=1e-3),
            nn.functional.cross_entropy,
            *data(minidl, kind),
        )
        for _ in range(3):
            step()
        if name == "graph":
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                step()
            step = replaying(graph, step)
        found[f"minidl {name}"] = step, cuda.synchronize
    try:
        import torch
    except ImportError:
        return found
    for name in ("eager", "graph"):
        torch.manual_seed(0)
        model = (layers(torch.nn) if kind == "mlp" else torch_transformer(torch)).cuda()
        step = training_step(
            model,
            torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=name == "graph"),
            torch.nn.functional.cross_entropy,
            *data(torch, kind),
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


def measured(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds per step of all sides, in turns."""
    there = sides(kind)
    times: dict[str, list[float]] = {name: [] for name in there}
    for turn in range(rounds + 2):
        order = list(there) if turn % 2 else list(there)[::-1]
        for name in order:
            step, wait = there[name]
            wait()
            start = perf_counter()
            for _ in range(STEPS):
                step()
            wait()
            if turn > 1:  # the first two warm up
                times[name].append((perf_counter() - start) / STEPS * 1e3)
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
    options = parser.parse_args()
    if why := cuda.missing():
        raise SystemExit(f"benchmarks.gpu_step needs a GPU: {why}")
    report = {"gpu": cuda.get_device_name(), "steps": {}}
    print(report["gpu"])
    for kind in ("mlp", "transformer"):
        report["steps"][kind] = found = measured(kind, options.rounds)
        for name, row in found.items():
            spread = f"({row['low']:.3f} to {row['high']:.3f})"
            ratio = f"torch eager / this: {row['ratio']:.2f}" if "ratio" in row else ""
            print(f"{kind:12} {name:14} {row['ms']:8.3f} ms {spread:20} {ratio}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

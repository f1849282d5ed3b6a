"""The character model of `minidl train --recipe chars` beside the same model written for torch.

Both start from the same weights and see the same batches, so what differs is the arithmetic:

    python benchmarks/chars_parity.py --text tinyshakespeare/input.txt

prints the loss over every position of the validation part for both, and their difference, for
`--seeds` seeds of the settings that `--preset` names (needs the extra `parity`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import minidl
from minidl.models import GPT
from minidl.train import parse_assignment, resolve
from minidl.train.chars import (
    Text,
    build_model,
    build_optimizer,
    full_loss,
    grid,
    read_text,
    sample_batch,
)
from minidl.train.loop import step
from minidl.train.settings import Chars

_EVALUATED = 64  # windows at a time


class TorchBlock(nn.Module):
    """One block with the names of minidl's, so that `state_dict` passes over."""

    def __init__(self, s: Chars) -> None:
        super().__init__()
        self.heads, self.approximate = s.heads, s.gelu
        self.ln_1 = nn.LayerNorm(s.width, bias=False)
        self.attn = nn.ModuleDict(
            {
                "c_attn": nn.Linear(s.width, 3 * s.width, bias=False),
                "c_proj": nn.Linear(s.width, s.width, bias=False),
            }
        )
        self.ln_2 = nn.LayerNorm(s.width, bias=False)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(s.width, 4 * s.width, bias=False),
                "c_proj": nn.Linear(4 * s.width, s.width, bias=False),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (B, T, C) -> same."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.attn["c_attn"](self.ln_1(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn["c_proj"](attended.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate=self.approximate)
        return x + self.mlp["c_proj"](hidden)


class TorchGPT(nn.Module):
    """The torch side of `minidl.models.GPT`, without dropout."""

    def __init__(self, s: Chars, vocab: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab, s.width)
        self.wpe = nn.Embedding(s.context, s.width)
        self.h = nn.ModuleList(TorchBlock(s) for _ in range(s.layers))
        self.ln_f = nn.LayerNorm(s.width, bias=False)
        self.lm_head = nn.Linear(s.width, vocab, bias=False)
        self.wte.weight = self.lm_head.weight

    def loss(self, ids: np.ndarray, targets: np.ndarray, reduction: str = "mean") -> torch.Tensor:
        """Cross entropy in nats; ids, targets: (B, T) int64."""
        x, y = torch.from_numpy(ids.copy()), torch.from_numpy(targets.copy())
        z = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        for block in self.h:
            z = block(z)
        logits = self.lm_head(self.ln_f(z))
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction=reduction)


def train_minidl(s: Chars, text: Text, model: GPT, seed: int) -> float:
    """Train with minidl; return the full validation loss."""
    rng = np.random.default_rng(seed)
    optimizer, schedule = build_optimizer(s, model)
    for _ in range(s.steps):
        x, y = sample_batch(text.train, s.batch_size, s.context, rng)
        step(model.loss(minidl.tensor(x), minidl.tensor(y)), optimizer, schedule, s.grad_clip)
    return full_loss(model, text.validation)


def train_torch(s: Chars, text: Text, model: TorchGPT, factors: list[float], seed: int) -> float:
    """Train with torch at the learning rates `s.lr * factors`; return the full validation loss."""
    rng = np.random.default_rng(seed)
    params = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": s.weight_decay},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=s.lr, betas=(0.9, s.beta2))
    for factor in factors:
        for group in optimizer.param_groups:
            group["lr"] = s.lr * factor
        loss = model.loss(*sample_batch(text.train, s.batch_size, s.context, rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(params, s.grad_clip)
        optimizer.step()
    return torch_full_loss(model, text.validation, s.context)


@torch.no_grad()
def torch_full_loss(model: TorchGPT, ids: np.ndarray, context: int) -> float:
    """The counterpart of `full_loss`."""
    inputs, targets = grid(ids, context)
    total = sum(
        model.loss(inputs[i : i + _EVALUATED], targets[i : i + _EVALUATED], "sum").item()
        for i in range(0, len(inputs), _EVALUATED)
    )
    rest = (len(ids) - 1) % context
    if rest:
        total += model.loss(ids[None, -rest - 1 : -1], ids[None, -rest:], "sum").item()
    return total / (len(ids) - 1)


def main() -> None:
    """Run both for every seed and print the losses."""
    torch.set_num_threads(minidl.get_num_threads())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", help="UTF-8 file; by default the topics of Python's own help")
    parser.add_argument("--preset", default="nanogpt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE"
    )
    options = parser.parse_args()
    values = dict(parse_assignment(text) for text in options.assignments)
    s: Chars = resolve("chars", {"text": options.text, **values}, options.preset)
    if s.dropout:
        parser.error("masks of dropout differ, so the settings must have dropout 0")
    text = Text(read_text(s.text), s.val_fraction, s.context)
    print(
        f"{'seed':>4} {'minidl':>9} {'torch':>9} {'difference':>11}   ms per step with evaluation"
    )
    results = []
    for seed in range(s.seed, s.seed + options.seeds):
        minidl.manual_seed(seed)
        model = build_model(s, len(text.vocab))
        _, schedule = build_optimizer(s, model)
        factors = [schedule.lr_lambdas[0](number) for number in range(s.steps)]
        twin = TorchGPT(s, len(text.vocab))
        state = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}
        twin.load_state_dict(state)
        start = time.perf_counter()
        ours = train_minidl(s, text, model, seed)
        middle = time.perf_counter()
        theirs = train_torch(s, text, twin, factors, seed)
        end = time.perf_counter()
        results.append((ours, theirs))
        cost = [1e3 * seconds / s.steps for seconds in (middle - start, end - middle)]
        print(
            f"{seed:>4} {ours:9.4f} {theirs:9.4f} {ours - theirs:+11.5f}   "
            f"minidl {cost[0]:.1f}, torch {cost[1]:.1f}",
            flush=True,
        )
    ours, theirs = np.mean(results, axis=0)
    print(f"mean {ours:9.4f} {theirs:9.4f} {ours - theirs:+11.5f}")


if __name__ == "__main__":
    main()

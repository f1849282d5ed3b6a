"""Recipe `chars`: a causal Transformer that predicts the next character of a text."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.errors import ArgumentError
from minidl.evaluate import CharTrigram
from minidl.models import GPT
from minidl.optim import AdamW
from minidl.optim.lr_scheduler import warmup_cosine
from minidl.serialization import save
from minidl.train.loop import Line, Outcome, Run, diverged, mean_and_deviation, step
from minidl.train.plots import Panel, curves
from minidl.train.progress import Progress, Stop
from minidl.train.settings import Chars

_WINDOWS = 64  # windows of one evaluation batch, and of the estimate between the steps
_STOPPED_SAMPLE = 80  # characters of the sample after Ctrl-C


class Text:
    """A text as ids of its characters, cut into a training and a validation part.

    `vocab` lists the characters in the order of their ids; `ids[:split]` is for training.
    """

    def __init__(self, text: str, val_fraction: float, context: int) -> None:
        self.vocab = sorted(set(text))
        codes = {character: code for code, character in enumerate(self.vocab)}
        self.ids = np.fromiter((codes[c] for c in text), dtype=np.int64, count=len(text))
        self.split = int((1 - val_fraction) * len(text))
        needed = max(context + 1, 20)
        if len(self.vocab) < 2 or min(self.split, len(text) - self.split) < needed:
            raise ArgumentError(
                f"the text is too short: it needs two different characters, and {needed} in each "
                f"part (training, validation) for a context of {context}",
                got=f"{len(text)} characters, {len(self.vocab)} different",
            )

    @property
    def train(self) -> np.ndarray:
        """The ids for training."""
        return self.ids[: self.split]

    @property
    def validation(self) -> np.ndarray:
        """The ids for validation."""
        return self.ids[self.split :]


def read_text(path: str | None) -> str:
    """Read a UTF-8 file (line ends become newlines), or the topics of Python's own help.

    Raises OSError if it cannot be read, ArgumentError if it is not a file of UTF-8 text.
    """
    if path is None:
        import pydoc_data.topics

        topics = pydoc_data.topics.topics
        return "\n".join(topics[name] for name in sorted(topics))
    # It is read twice, to check and to train; a pipe has nothing the second time, a device no end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ArgumentError(f"'{path}' is not a regular file")
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    if "\0" in text:
        raise ArgumentError(f"{path} is not text: it holds a zero byte")
    return text.replace("\r\n", "\n")


def sample_batch(
    ids: np.ndarray, batch_size: int, context: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows at random places: inputs (B, context) and what follows each position."""
    places = rng.integers(0, len(ids) - context, batch_size)
    windows = ids[places[:, None] + np.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


def grid(ids: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut `ids` into windows that follow each other, without the shorter rest."""
    count = (len(ids) - 1) // context
    used = count * context
    return ids[:used].reshape(count, context), ids[1 : used + 1].reshape(count, context)


def full_loss(model: GPT, ids: np.ndarray, stop: Stop | None = None) -> float:
    """Mean cross entropy in nats over every position of `ids` but the first, each once.

    Windows of the model's context follow each other; the last one may be shorter. Once asked to
    stop, it returns the mean over those done, NaN for none.
    """
    inputs, targets = grid(ids, model.context)
    batches = [
        (inputs[i : i + _WINDOWS], targets[i : i + _WINDOWS])
        for i in range(0, len(inputs), _WINDOWS)
    ]
    if rest := (len(ids) - 1) % model.context:
        batches.append((ids[None, -rest - 1 : -1], ids[None, -rest:]))
    return _loss(model, batches, stop)


def estimate_loss(model: GPT, ids: np.ndarray) -> float:
    """The same over `_WINDOWS` of the full windows, spread evenly: enough to follow a training."""
    inputs, targets = grid(ids, model.context)
    spread = np.unique(np.linspace(0, len(inputs) - 1, _WINDOWS).astype(np.int64))
    return _loss(model, [(inputs[spread], targets[spread])])


def _loss(
    model: GPT, batches: list[tuple[np.ndarray, np.ndarray]], stop: Stop | None = None
) -> float:
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with no_grad():
        for x, y in batches:
            if stop:
                break
            total += model.loss(ops.tensor(x), ops.tensor(y), reduction="sum").item()
            count += y.size
    model.train(was_training)
    if not math.isfinite(total):
        raise diverged(f"the validation loss is {total}")
    return total / count if count else math.nan


def build_model(settings: Chars, vocab: int) -> GPT:
    """The Transformer that the settings describe, its weights drawn from the default generator."""
    return GPT(
        vocab,
        settings.context,
        settings.layers,
        settings.heads,
        settings.width,
        dropout=settings.dropout,
        gelu=settings.gelu,
    )


def build_optimizer(settings: Chars, model: GPT) -> tuple[AdamW, Any]:
    """AdamW that decays matrices only, and its warm-up and cosine schedule."""
    optimizer = AdamW(
        model.decay_groups(settings.weight_decay), lr=settings.lr, betas=(0.9, settings.beta2)
    )
    warmup = min(settings.warmup_steps, settings.steps)
    bottom = settings.min_lr / settings.lr
    return optimizer, warmup_cosine(optimizer, warmup, settings.steps, bottom)


def check_chars(settings: Chars) -> None:
    """Refuse a text, a model or a schedule that cannot be, before any recipe has started."""
    if settings.min_lr > settings.lr:
        raise ArgumentError(
            "recipe 'chars': min_lr, where the learning rate ends, must not exceed lr",
            got=f"min_lr={settings.min_lr:g}, lr={settings.lr:g}",
        )
    text = Text(read_text(settings.text), settings.val_fraction, settings.context)
    build_model(settings, len(text.vocab))


def run_chars(run: Run) -> Outcome:
    """Train on the first part of the text, compare with a trigram on the last, write a sample."""
    settings: Chars = run.settings
    text = Text(read_text(settings.text), settings.val_fraction, settings.context)
    run.folder.write_json("vocabulary.json", text.vocab)
    trigram = CharTrigram(text.train, len(text.vocab))
    baseline = trigram.loss(text.ids, text.split + 1)
    losses: list[float] = []
    estimated, sample = False, ""
    with Progress(run.recipe, settings.steps * settings.seeds) as progress:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            model = _train(run, progress, text, seed)
            if run.stop and losses:
                break  # a seed cut short says nothing beside complete ones
            if not losses:
                save(model.state_dict(), run.folder.path / "model.safetensors")
                sample = _sample(run, model, text)
                run.folder.write("sample.txt", sample)
            loss = full_loss(model, text.validation, run.stop)
            if estimated := bool(run.stop):  # nobody wants to wait for every position
                loss = estimate_loss(model, text.validation)
            losses.append(loss)
    summary = mean_and_deviation(losses)
    loss = summary["mean"]
    _draw(run, baseline, loss)
    metrics = {
        "val_loss": summary,
        "val_loss_is_estimate": estimated,
        "val_bits_per_character": loss / math.log(2),
        "trigram_loss": baseline,
        "trigram_weights": trigram.weights,
        "parameters": sum(p.numel() for p in model.parameters()),
        "characters": {"train": text.split, "validation": len(text.validation)},
        "vocabulary": len(text.vocab),
    }
    kind = "estimated" if estimated else "every position"
    kind += f", mean of {len(losses)} seeds" if len(losses) > 1 else ""
    measure = f"validation loss in nats, {kind}"
    line = Line(measure, loss, "interpolated trigram", baseline, loss < baseline)
    return Outcome(metrics, [line], f"a sample:\n{sample}")


def _train(run: Run, progress: Progress, text: Text, seed: int) -> GPT:
    settings: Chars = run.settings
    ops.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build_model(settings, len(text.vocab))
    optimizer, schedule = build_optimizer(settings, model)
    losses: list[float] = []  # since the last row of the metrics
    number = 0
    while number < settings.steps and not run.stop:
        number += 1
        x, y = sample_batch(text.train, settings.batch_size, settings.context, rng)
        loss = model.loss(ops.tensor(x), ops.tensor(y))
        losses.append(step(loss, optimizer, schedule, settings.grad_clip))
        progress.advance(loss=losses[-1])
        if number % settings.eval_every == 0 or number == settings.steps or run.stop:
            run.folder.log(
                x=number,
                seed=seed,
                train_loss=sum(losses) / len(losses),
                val_loss_estimate=estimate_loss(model, text.validation),
                lr=optimizer.param_groups[0]["lr"],
            )
            losses.clear()
    return model


def _sample(run: Run, model: GPT, text: Text) -> str:
    settings: Chars = run.settings
    length = min(settings.sample_length, _STOPPED_SAMPLE) if run.stop else settings.sample_length
    start = text.vocab.index("\n") if "\n" in text.vocab else int(text.validation[0])
    ids = model.generate(ops.tensor([[start]]), length, settings.temperature)
    return "".join(text.vocab[int(i)] for i in ids.numpy()[0, 1:]) + "\n"


def _draw(run: Run, baseline: float, loss: float) -> None:
    series = {"train_loss": "training", "val_loss_estimate": f"validation, {_WINDOWS} windows"}
    levels = {"trigram": baseline, "validation at the end": loss}
    rate = Panel("learning rate", {"lr": "learning rate"})
    panels = [Panel("cross entropy, nats per character", series, levels), rate]
    run.folder.write("curves.png", curves(run.recipe, "step", run.folder.rows, "seed", panels))

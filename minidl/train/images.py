"""Recipes `digits` and `mnist`: an MLP on images of handwritten digits."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minidl.nn.functional as F
import minidl.ops as ops
from minidl.errors import ArgumentError
from minidl.evaluate import confusion, multiclass_metrics
from minidl.models import MLP, Standardize
from minidl.optim import AdamW
from minidl.optim.lr_scheduler import warmup_cosine
from minidl.serialization import save
from minidl.train.loop import Line, Outcome, Run, fit, mean_and_deviation, predict
from minidl.train.plots import Panel, confusions, curves
from minidl.train.progress import Progress
from minidl.train.settings import Classifier, Digits, Mnist

_CLASSES = 10
_DIGITS_ROWS, _DIGITS_PIXELS, _MNIST_PIXELS = 1797, 8 * 8, 28 * 28
_DIGITS_BAR, _MNIST_BAR = 0.97, 0.98
# name of an IDX file -> its magic number: type unsigned byte, and the number of axes
_IDX = {"images-idx3-ubyte": 0x0803, "labels-idx1-ubyte": 0x0801}


class Split(NamedTuple):
    """Images (N, pixels) float32 in [0, 1] and labels (N,) int64, for training and for test."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def run_digits(run: Run) -> Outcome:
    """Train on scikit-learn's 1,797 digits of 8 x 8 pixels; each seed has a split of its own."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    settings: Digits = run.settings
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype(np.float32), y.astype(np.int64)
    test = _test_rows(settings)

    def split(seed: int) -> Split:
        inside, outside = train_test_split(
            np.arange(len(y)), test_size=test, stratify=y, random_state=seed
        )
        return Split(x[inside], y[inside], x[outside], y[outside])

    parts = [split(settings.seed + i) for i in range(settings.seeds)]
    return _classify(run, parts, _DIGITS_BAR)


def check_digits(settings: Digits) -> None:
    """Refuse a split or a model that cannot be, before any recipe has started."""
    _test_rows(settings)
    MLP((_DIGITS_PIXELS, *settings.hidden, _CLASSES), settings.activation)


def _test_rows(settings: Digits) -> int:
    rows = round(settings.test_size * _DIGITS_ROWS)
    if not _CLASSES <= rows <= _DIGITS_ROWS - _CLASSES:
        raise ArgumentError(
            f"test_size must leave every class in both parts of {_DIGITS_ROWS} images",
            got=str(settings.test_size),
        )
    return rows


def check_mnist(settings: Mnist) -> None:
    """Refuse missing files or a model that cannot be, before any recipe has started."""
    MLP((_MNIST_PIXELS, *settings.hidden, _CLASSES), settings.activation)
    folder = _mnist_folder(settings.data)
    for part in ("train", "t10k"):
        for name in _IDX:
            if not (path := folder / f"{part}-{name}.gz").is_file():
                raise ArgumentError(f"recipe 'mnist' needs {path}, which is not there")


def run_mnist(run: Run) -> Outcome:
    """Train on MNIST's own split, read from the four gzipped IDX files."""
    settings: Mnist = run.settings
    folder = _mnist_folder(settings.data)
    parts = []
    for part in ("train", "t10k"):
        images, labels = (read_idx(folder / f"{part}-{name}.gz", _IDX[name]) for name in _IDX)
        if len(images) != len(labels):
            raise ArgumentError(f"{folder}: {len(images)} images but {len(labels)} labels")
        pixels = images.reshape(len(images), -1).astype(np.float32) / 255
        parts += [pixels, labels.astype(np.int64)]
    x, y, x_test, y_test = parts
    if settings.train_limit is not None:
        x, y = x[: settings.train_limit], y[: settings.train_limit]
    return _classify(run, [Split(x, y, x_test, y_test)] * settings.seeds, _MNIST_BAR)


def _mnist_folder(named: str | None) -> Path:
    if named is not None:
        return Path(named)
    if data := os.environ.get("MINIDL_DATA"):
        return Path(data) / "mnist"
    raise ArgumentError(
        "recipe 'mnist' needs the four gzipped IDX files: set MINIDL_DATA to a folder that has "
        "them in mnist/, or --set data=FOLDER"
    )


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes; `magic` is the number that it has to start with.

    Raises OSError if it cannot be read, ArgumentError if it is not what it should be. Format:
    yann.lecun.com/exdb/mnist (big-endian sizes, then the values row by row).
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArgumentError(f"{path} is not a complete gzip file: {error}") from error
    axes = magic & 0xFF
    start = 4 * (axes + 1)
    if len(content) < start or int.from_bytes(content[:4], "big") != magic:
        raise ArgumentError(f"{path} is not an IDX file of {axes} axes of unsigned bytes")
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if values.size != np.prod(shape):
        raise ArgumentError(f"{path} states shape {shape} but holds {values.size} values")
    return values.reshape(shape)


def _classify(run: Run, splits: list[Split], bar: float) -> Outcome:
    """Train one MLP per split with the seeds that follow each other, and report their mean."""
    settings: Classifier = run.settings
    steps = [math.ceil(len(part.y) / settings.batch_size) * settings.epochs for part in splits]
    scores: list[dict[str, float]] = []
    matrix = np.zeros((_CLASSES, _CLASSES), dtype=np.int64)
    with Progress(run.recipe, sum(steps)) as progress:
        for index, (part, total) in enumerate(zip(splits, steps, strict=True)):
            model = _train(run, progress, part, settings.seed + index, total)
            if run.stop and scores:
                break  # a seed cut short says nothing beside complete ones
            predicted = predict(model, part.x_test).argmax(1)
            scores.append(multiclass_metrics(part.y_test, predicted))
            matrix += confusion(part.y_test, predicted, _CLASSES)
            if index == 0:
                save(model.state_dict(), run.folder.path / "model.safetensors")
    summary = {name: mean_and_deviation([s[name] for s in scores]) for name in scores[0]}
    accuracy = summary["accuracy"]["mean"]
    _draw(run, matrix, bar)
    seeds = f"mean of {len(scores)} seeds" if len(scores) > 1 else "one seed"
    line = Line(f"test accuracy, {seeds}", accuracy, "bar, at least", bar, accuracy >= bar)
    return Outcome({"test": summary, "confusion": matrix, "bar": bar}, [line])


def _train(run: Run, progress: Progress, part: Split, seed: int, total: int) -> MLP:
    settings: Classifier = run.settings
    ops.manual_seed(seed)
    # One scale for all pixels: those at the rim vary too little for one of their own.
    scaler = Standardize(part.x.mean(0), part.x.std())
    sizes = (part.x.shape[1], *settings.hidden, _CLASSES)
    model = MLP(sizes, settings.activation, settings.dropout, scaler)
    optimizer = AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = warmup_cosine(optimizer, min(settings.warmup_steps, total), total)

    def after_epoch() -> dict[str, float]:
        logits = predict(model, part.x_test)
        loss = F.cross_entropy(ops.tensor(logits), ops.tensor(part.y_test)).item()
        accuracy = float((logits.argmax(1) == part.y_test).mean())
        return {"seed": seed, "test_loss": loss, "test_accuracy": accuracy}

    loss = F.cross_entropy
    fit(run, progress, model, loss, part.x, part.y, optimizer, schedule, after_epoch)
    return model


def _draw(run: Run, matrix: np.ndarray, bar: float) -> None:
    losses = Panel("cross entropy, nats", {"train_loss": "training", "test_loss": "test"})
    accuracy = Panel("test accuracy", {"test_accuracy": "test"}, {"bar": bar})
    picture = curves(run.recipe, "epoch", run.folder.rows, "seed", [losses, accuracy])
    run.folder.write("curves.png", picture)
    labels = [str(digit) for digit in range(_CLASSES)]
    picture = confusions(f"{run.recipe}: test images", {"MLP": matrix}, labels)
    run.folder.write("confusion.png", picture)

"""The recipes of `minidl train`, and how one is run."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from minidl.backends import native
from minidl.train.chars import check_chars, run_chars
from minidl.train.folder import RunFolder, check_out, cores
from minidl.train.images import check_digits, check_mnist, run_digits, run_mnist
from minidl.train.loop import Outcome, Run
from minidl.train.progress import Stop
from minidl.train.settings import (
    BreastCancer,
    Chars,
    Digits,
    Mnist,
    build,
    check_names,
    names,
)
from minidl.train.tabular import check_breast_cancer, run_breast_cancer

# What a run may differ in from its defaults and still be held to its bar.
_NEUTRAL = ("seed", "data", "threads")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training job with its settings; `quick` and `presets` are settings by another name."""

    name: str
    summary: str
    settings: type
    run: Callable[[Run], Outcome]
    packages: tuple[str, ...]
    quick: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    by_default: bool = True
    check: Callable[[Any], None] = lambda settings: None


_PLOTTING = ("pydantic", "matplotlib")
_TABLE = (
    Recipe(
        "digits",
        "MLP on scikit-learn's handwritten digits",
        Digits,
        run_digits,
        (*_PLOTTING, "sklearn"),
        {"seeds": 1, "epochs": 8},
        check=check_digits,
    ),
    Recipe(
        "breast-cancer",
        "MLP beside logistic regression on scikit-learn's Wisconsin data",
        BreastCancer,
        run_breast_cancer,
        (*_PLOTTING, "sklearn"),
        {"epochs": 8},
        check=check_breast_cancer,
    ),
    Recipe(
        "chars",
        "causal Transformer on the characters of a text",
        Chars,
        run_chars,
        _PLOTTING,
        {"steps": 50, "eval_every": 10, "warmup_steps": 10, "sample_length": 120},
        presets={
            # The CPU configuration of github.com/karpathy/nanoGPT ("I only have a macbook") with
            # twice its learning rate: at its own 1e-3 a torch model ends at 1.909 over every
            # position of tinyshakespeare's validation part (mean of three seeds; nanoGPT's 1.88 is
            # an estimate from 20 batches), at 2e-3 near 1.80.
            "nanogpt": {
                "layers": 4,
                "heads": 4,
                "width": 128,
                "context": 64,
                "dropout": 0.0,
                "steps": 2000,
                "batch_size": 12,
                "lr": 2e-3,
                "min_lr": 2e-4,
                "warmup_steps": 100,
                "beta2": 0.99,
                "weight_decay": 0.1,
                "grad_clip": 1.0,
                "val_fraction": 0.1,
            }
        },
        check=check_chars,
    ),
    Recipe(
        "mnist",
        "MLP on MNIST, from the folder that MINIDL_DATA names",
        Mnist,
        run_mnist,
        (*_PLOTTING, "sklearn"),
        {"epochs": 1, "train_limit": 6000},
        by_default=False,
        check=check_mnist,
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _TABLE}


def require(packages: Iterable[str]) -> None:
    """Import packages before the work starts; ModuleNotFoundError names the one that is missing."""
    for package in packages:
        importlib.import_module(package)


def resolve(
    name: str, values: Mapping[str, Any], preset: str | None = None, quick: bool = False
) -> Any:
    """The checked settings of a recipe: defaults, then preset, then quick, then `values`."""
    check_names([name], RECIPES, "unknown recipe")
    recipe = RECIPES[name]
    layers: dict[str, Any] = {}
    if preset is not None:
        check_names([preset], recipe.presets, f"recipe '{name}' has no preset")
        layers |= recipe.presets[preset]
    if quick:
        layers |= recipe.quick
    return build(name, recipe.settings, layers | dict(values))


def split_settings(chosen: list[str], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each chosen recipe the values that it has a setting for; each must suit one of them."""
    check_names(chosen, RECIPES, "unknown recipe")
    known = {name: names(RECIPES[name].settings) for name in chosen}
    everything = {key for keys in known.values() for key in keys}
    who = f"recipe '{chosen[0]}' has" if len(chosen) == 1 else "these recipes have"
    check_names(values, everything, f"{who} no setting")
    return {
        name: {key: value for key, value in values.items() if key in keys}
        for name, keys in known.items()
    }


def prepare(name: str, settings: Any, out: Path | None) -> None:
    """Find out what would stop a recipe before the first one has started."""
    require(RECIPES[name].packages)
    RECIPES[name].check(settings)
    if out is not None:
        check_out(out)


def run_recipe(name: str, settings: Any, out: Path | None, stop: Stop) -> Outcome:
    """Run a recipe and write its folder: a new one under `runs`, or `out`."""
    from threadpoolctl import threadpool_limits

    recipe = RECIPES[name]
    start = time.monotonic()
    folder = RunFolder.create(name, out)
    folder.write_config(name, settings)
    try:
        # More threads than cores wait for each other: such a run hardly moves.
        threads = settings.threads and min(settings.threads, cores())
        with threadpool_limits(threads, user_api="blas"), native.limit_threads(threads):
            outcome = recipe.run(Run(name, settings, folder, stop))
    finally:
        folder.flush()
    outcome.recipe, outcome.folder = name, folder.path
    outcome.interrupted = bool(stop)
    neutral = {key: value for key, value in vars(settings).items() if key in _NEUTRAL}
    as_meant = settings == dataclasses.replace(recipe.settings(), **neutral)
    outcome.judged = as_meant and not outcome.interrupted
    outcome.seconds = time.monotonic() - start
    folder.write_json("metrics.json", describe(outcome))
    return outcome


def describe(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain values, for `metrics.json` and `--json`."""
    return {
        "recipe": outcome.recipe,
        "folder": str(outcome.folder),
        "seconds": round(outcome.seconds, 2),
        "interrupted": outcome.interrupted,
        "judged": outcome.judged,
        "results": [dataclasses.asdict(line) for line in outcome.lines],
        "metrics": outcome.metrics,
    }

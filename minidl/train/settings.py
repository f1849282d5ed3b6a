"""What a recipe can be told: dataclasses that pydantic checks."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from minidl.errors import ArgumentError

_LISTED = 30  # names that an error message lists


def setting(default: Any, **bounds: Any) -> Any:
    """Declare a field with its default and its bounds by pydantic's names (`ge`, `gt`, `le`...)."""
    return dataclasses.field(default=default, metadata=bounds)


# `threads` is how many a kernel may use at most, None for its own choice. Matrices this small gain
# little from a second thread, and beside other work OpenBLAS's threads wait for each other: 150
# steps of `chars` on two busy cores took 57 s with one thread and 185 s with two.


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Settings of an image classifier: an MLP on a training and a test part."""

    threads: int | None = setting(1, ge=1)
    seed: int = setting(0, ge=0, le=2**31)
    seeds: int = setting(3, ge=1, le=100)
    epochs: int = setting(30, ge=1)
    batch_size: int = setting(64, ge=1)
    hidden: tuple[int, ...] = setting((128, 64), min_length=1)
    activation: str = setting("relu")
    dropout: float = setting(0.1, ge=0, lt=1)
    lr: float = setting(3e-3, gt=0)
    weight_decay: float = setting(1e-2, ge=0)
    warmup_steps: int = setting(50, ge=0)


@dataclasses.dataclass(frozen=True)
class Digits(Classifier):
    """Settings of `digits`."""

    test_size: float = setting(0.2, gt=0, lt=1)


@dataclasses.dataclass(frozen=True)
class Mnist(Classifier):
    """Settings of `mnist`; `data` is the folder of the four gzipped IDX files."""

    data: str | None = setting(None)
    seeds: int = setting(1, ge=1, le=100)
    epochs: int = setting(5, ge=1)
    batch_size: int = setting(128, ge=1)
    hidden: tuple[int, ...] = setting((512, 256), min_length=1)
    lr: float = setting(2e-3, gt=0)
    warmup_steps: int = setting(100, ge=0)
    train_limit: int | None = setting(None, ge=100)


@dataclasses.dataclass(frozen=True)
class BreastCancer:
    """Settings of `breast-cancer`.

    The weight decay is the penalty of the logistic regression beside it, 1 / (C N) with C = 1,
    in round figures.
    """

    threads: int | None = setting(1, ge=1)
    seed: int = setting(0, ge=0, le=2**31)
    folds: int = setting(5, ge=2, le=50)  # the smaller class has 212 rows
    epochs: int = setting(40, ge=1)
    batch_size: int = setting(32, ge=1)
    hidden: tuple[int, ...] = setting((32,), min_length=1)
    activation: str = setting("sigmoid")
    lr: float = setting(0.1, gt=0)
    momentum: float = setting(0.9, ge=0, lt=1)
    weight_decay: float = setting(2e-3, ge=0)


@dataclasses.dataclass(frozen=True)
class Chars:
    """Settings of `chars`; `text` is a UTF-8 file, by default the topics of Python's own help."""

    text: str | None = setting(None)
    threads: int | None = setting(1, ge=1)
    seed: int = setting(0, ge=0, le=2**31)
    seeds: int = setting(1, ge=1, le=100)
    layers: int = setting(2, ge=1)
    heads: int = setting(4, ge=1)
    width: int = setting(96, ge=1)
    context: int = setting(64, ge=1)
    gelu: str = setting("none", pattern="^(none|tanh)$")
    dropout: float = setting(0.0, ge=0, lt=1)
    steps: int = setting(1500, ge=1)
    batch_size: int = setting(16, ge=1)
    lr: float = setting(4e-3, gt=0)
    min_lr: float = setting(4e-4, ge=0)
    warmup_steps: int = setting(100, ge=0)
    beta2: float = setting(0.99, ge=0, lt=1)
    weight_decay: float = setting(0.1, ge=0)
    grad_clip: float = setting(1.0, gt=0)
    val_fraction: float = setting(0.1, gt=0, lt=1)
    eval_every: int = setting(50, ge=1)
    sample_length: int = setting(400, ge=1, le=100_000)
    temperature: float = setting(0.8, ge=0)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Say the closest known name, or all of them where they fit into a line or two."""
    known = sorted(known) or ["none"]
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"did you mean '{close[0]}'?"
    rest = "" if len(known) <= _LISTED else f" and {len(known) - _LISTED} more"
    return f"there are {', '.join(known[:_LISTED])}{rest}"


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse the first given name that is not known: `what` and the name, with the closest one."""
    known = list(known)
    for name in given:
        if name not in known:
            raise ArgumentError(f"{what} '{name}'; {suggestion(name, known)}")


def names(kind: type) -> list[str]:
    """The settings that a recipe has."""
    return [field.name for field in dataclasses.fields(kind)]


def build(recipe: str, kind: type, values: Mapping[str, Any]) -> Any:
    """Check `values` and return an instance of `kind`; a rule broken is one ArgumentError."""
    from pydantic import ConfigDict, Field, ValidationError, create_model

    check_names(values, names(kind), f"recipe '{recipe}' has no setting")
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        f.name: (hints[f.name], Field(f.default, **f.metadata)) for f in dataclasses.fields(kind)
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model = create_model(kind.__name__, __config__=config, **fields)
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        rules = []
        for item in error.errors(include_url=False, include_context=False):
            place = ".".join(map(str, item["loc"]))
            rules.append(f"{place}: {_lower_first(item['msg'])}, got {item['input']!r}")
        raise ArgumentError(f"recipe '{recipe}': {'; '.join(rules)}") from error
    return kind(**checked.model_dump())


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; the value is JSON where it can be read as such, else a string."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ArgumentError("--set takes KEY=VALUE", got=repr(text))
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def read_config(path: str) -> tuple[str, dict[str, Any]]:
    """Read the recipe and its settings from a `config.json` as a run writes it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), str):
        raise ArgumentError(f"{path} must be an object with 'recipe' and 'settings'")
    check_names(content, ("recipe", "settings", "environment"), f"{path} must not have the key")
    settings = content.get("settings", {})
    if not isinstance(settings, dict):
        raise ArgumentError(f"'settings' of {path} must be an object")
    return content["recipe"], settings


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]

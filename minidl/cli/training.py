"""`minidl train`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidl import train
from minidl.cli.common import MISSED, fail, say, stopped
from minidl.errors import ArgumentError

_log = logging.getLogger("minidl.cli")


def run(
    recipes: tuple[str, ...],
    assignments: tuple[str, ...],
    config: str | None,
    out: str | None,
    preset: str | None,
    quick: bool,
    as_json: bool,
    debug: bool,
    **overrides: Any,
) -> int:
    """Run the recipes one after the other; 1 if one misses its bar."""
    overrides = {key: value for key, value in overrides.items() if value is not None}
    overrides |= dict(train.parse_assignment(text) for text in assignments)
    settings = _settings(recipes, config, preset, quick, overrides)
    folders = {name: _folder(out, name, alone=len(settings) == 1) for name in settings}
    for name in settings:
        train.prepare(name, settings[name], folders[name])
    outcomes = []
    with train.Stop() as stop:
        for name in settings:
            if stop:
                break
            _log.info("%s: %s", name, train.RECIPES[name].summary)
            outcomes.append(train.run_recipe(name, settings[name], folders[name], stop))
    _print_result(outcomes, bool(stop), as_json)
    if stop:
        done = ", ".join(outcome.recipe for outcome in outcomes)
        return stopped(stop, f"; what was reached by then is written ({done})")
    missed = [outcome.recipe for outcome in outcomes if outcome.missed]
    return fail(f"bar missed: {', '.join(missed)}", MISSED) if missed else 0


def _settings(
    recipes: Sequence[str],
    config: str | None,
    preset: str | None,
    quick: bool,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """The recipes to run, in order, each with its checked settings."""
    chosen = list(dict.fromkeys(recipes))
    values: dict[str, Any] = {}
    if config is not None:
        recipe, values = train.read_config(config)
        if chosen not in ([], [recipe]):
            raise ArgumentError(f"{config} is for recipe '{recipe}', not for --recipe {chosen[0]}")
        chosen = [recipe]
    if preset is not None and len(chosen) != 1:
        raise ArgumentError("--preset needs one --recipe")
    chosen = chosen or [name for name, recipe in train.RECIPES.items() if recipe.by_default]
    return {
        name: train.resolve(name, own, preset, quick)
        for name, own in train.split_settings(chosen, values | overrides).items()
    }


def _folder(out: str | None, recipe: str, alone: bool) -> Path | None:
    if out is None:
        return None
    return Path(out) if alone else Path(out) / recipe


def _print_result(outcomes: list[train.Outcome], interrupted: bool, as_json: bool) -> None:
    if as_json:
        runs = [train.describe(outcome) for outcome in outcomes]
        say(train.to_json({"interrupted": interrupted, "runs": runs}, indent=2))
    else:
        say(train.table(outcomes))

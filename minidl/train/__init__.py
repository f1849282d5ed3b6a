"""Training recipes: settings, the loop, run folders, progress and reports."""

from minidl.train.folder import environment, to_json
from minidl.train.loop import Line, Outcome
from minidl.train.progress import Progress, Stop
from minidl.train.recipes import (
    RECIPES,
    Recipe,
    describe,
    prepare,
    require,
    resolve,
    run_recipe,
    split_settings,
)
from minidl.train.report import table
from minidl.train.settings import check_names, parse_assignment, read_config

__all__ = [
    "RECIPES",
    "Line",
    "Outcome",
    "Progress",
    "Recipe",
    "Stop",
    "check_names",
    "describe",
    "environment",
    "parse_assignment",
    "prepare",
    "read_config",
    "require",
    "resolve",
    "run_recipe",
    "split_settings",
    "table",
    "to_json",
]

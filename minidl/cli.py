"""The command line: `minidl train`, `minidl info`, `minidl verify`.

Exit codes: 0 done; 1 a bar is missed, a check fails, or minidl itself does; 2 bad input; 130
stopped by Ctrl-C, 143 by SIGTERM. An error is one line on stderr; `--debug` shows its traceback.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidl import backends, train
from minidl.errors import ArgumentError, MinidlError
from minidl.testing.cases import CASES
from minidl.testing.runner import Tally, verify

MISSED, BAD_INPUT, INTERRUPTED = 1, 2, 130
# module -> the name it is installed by, and the extra that brings it
_EXTRAS = {
    "click": ("click", "train"),
    "matplotlib": ("matplotlib", "train"),
    "pydantic": ("pydantic", "train"),
    "sklearn": ("scikit-learn", "train"),
    "hypothesis": ("hypothesis", "verify"),
}
_log = logging.getLogger("minidl.cli")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        backends.check_environment()
        with _logging_to_stderr():
            return _dispatch(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        message, code = _explain(error)
        return _fail(message, code)


def _dispatch(arguments: list[str]) -> int:
    import click

    try:
        # Outside of standalone mode click returns the command's value and raises its errors.
        return _commands().main(arguments, "minidl", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return BAD_INPUT
    except click.ClickException as error:
        return _fail(error.format_message(), BAD_INPUT)
    except click.Abort:
        return _fail("interrupted", INTERRUPTED)


def _explain(error: Exception) -> tuple[str, int]:
    """The message of an error, and the exit code."""
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in _EXTRAS:
            name, extra = _EXTRAS[module]
            return f"this needs {name}: pip install 'minidl[{extra}]'", BAD_INPUT
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename or repr('')}: {error.strerror}", BAD_INPUT
    if isinstance(error, MinidlError | OSError | MemoryError):
        return str(error) or type(error).__name__, BAD_INPUT
    kind = type(error).__name__
    return f"internal error, {kind}: {error} (--debug shows the traceback)", MISSED


def _fail(message: str, code: int) -> int:
    print(f"minidl: {' '.join(message.split())}", file=sys.stderr)
    return code


def _stopped(stop: train.Stop, reached: str) -> int:
    name = "SIGTERM" if stop.signal == signal.SIGTERM else "Ctrl-C"
    return _fail(f"stopped by {name}{reached}", 128 + (stop.signal or signal.SIGINT))


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Show minidl's log for the time of a command; a library sets up no handler by itself."""
    logger = logging.getLogger("minidl")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _commands() -> Any:
    """Build the click group; click is an extra, so it is imported when it is used."""
    import click

    recipes = "\n\n".join(f"{r.name}: {r.summary}" for r in train.RECIPES.values())
    default = ", ".join(name for name, r in train.RECIPES.items() if r.by_default)
    debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

    @click.group(context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(train.environment()["minidl"], prog_name="minidl")
    def group() -> None:
        """minidl, a deep-learning engine small enough to read."""

    @group.command("train", help=f"Train on real data; without --recipe: {default}.\n\n{recipes}")
    @click.option(
        "--recipe", "recipes", multiple=True, metavar="NAME", help="Run one (repeatable)."
    )
    @click.option("--quick", is_flag=True, help="A short look: less training, no bar is judged.")
    @click.option("--preset", metavar="NAME", help="Named settings of a recipe (chars: nanogpt).")
    @click.option("--text", metavar="FILE", help="chars: train on this UTF-8 text.")
    @click.option("--seed", type=int, help="The first seed.")
    @click.option("--seeds", type=int, help="How many seeds follow each other.")
    @click.option("--epochs", type=int, help="Passes over the training data.")
    @click.option("--steps", type=int, help="chars: number of updates.")
    @click.option(
        "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any other setting."
    )
    @click.option("--config", metavar="FILE", help="Settings from a run's config.json.")
    @click.option("--out", metavar="DIR", help="Folder of the run (default: runs/DATE-RECIPE).")
    @as_json
    @debug
    def train_command(**options: Any) -> int:
        return _train(**options)

    @group.command("info")
    @as_json
    @debug
    def info_command(as_json: bool, debug: bool) -> int:
        """Show versions, cores, and which kernel serves each entry."""
        return _info(as_json)

    @group.command("verify")
    @click.option("--row", "rows", multiple=True, metavar="NAME", help="Check one (repeatable).")
    @click.option("--examples", type=click.IntRange(1), default=25, show_default=True)
    @as_json
    @debug
    def verify_command(rows: tuple[str, ...], examples: int, as_json: bool, debug: bool) -> int:
        """Check the operators on this machine: values, gradients, dtypes, layouts."""
        return _verify(rows, examples, as_json)

    return group


def _train(
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
        return _stopped(stop, f"; what was reached by then is written ({done})")
    missed = [outcome.recipe for outcome in outcomes if outcome.missed]
    return _fail(f"bar missed: {', '.join(missed)}", MISSED) if missed else 0


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
        _say(train.to_json({"interrupted": interrupted, "runs": runs}, indent=2))
    else:
        _say(train.table(outcomes))


def _say(text: str) -> None:
    """Print what may hold any character on a terminal that may not know it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _info(as_json: bool) -> int:
    facts = train.environment()
    facts["kernels"] = backends.report()
    if as_json:
        print(train.to_json(facts, indent=2))
        return 0
    for key, value in facts.items():
        if key != "kernels":
            print(f"{key:9} {value}")
    print(f"\n{'kernel':42} served by")
    for entry, source in facts["kernels"].items():
        reasons = "".join(f"; {reason}" for reason in source["reasons"])
        print(f"{entry:42} {source['layer']}{reasons}")
    return 0


def _verify(rows: tuple[str, ...], examples: int, as_json: bool) -> int:
    train.require(["hypothesis"])
    table = {case.name: case for case in CASES}
    train.check_names(rows, table, "the operator table has no row")
    chosen = [table[name] for name in rows] or list(CASES)
    tally, failed, done = Tally(), [], 0
    with train.Stop() as stop, train.Progress("verify", len(chosen), "row") as progress:
        for case in chosen:
            if stop:
                break
            wrong, counted = verify([case], examples)
            failed += wrong
            tally.update(counted)
            done += 1
            progress.advance(name=case.name, failed=len(failed))
    if as_json:
        _say(train.to_json({"rows": done, "checked": tally.summary(), "failed": failed}, indent=2))
    else:
        _say("\n".join([*failed, f"{tally.summary()}; {len(failed)} checks failed"]))
    if stop:
        return _stopped(stop, f" after {done} of {len(chosen)} rows")
    return MISSED if failed else 0

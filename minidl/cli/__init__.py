"""The command line: `minidl train`, `info`, `verify`, `gradcheck`.

Exit codes: 0 done; 1 a bar is missed, a check fails, or minidl itself does; 2 bad input; 130
stopped by Ctrl-C, 143 by SIGTERM. An error is one line on stderr; `--debug` shows its traceback.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from minidl import backends, train
from minidl.cli import gradcheck, info, training, verify
from minidl.cli.common import BAD_INPUT, INTERRUPTED, MISSED, fail
from minidl.errors import MinidlError
from minidl.testing.runner import CHECKS

# module -> the name it is installed by, and the extra that brings it
_EXTRAS = {
    "click": ("click", "train"),
    "matplotlib": ("matplotlib", "train"),
    "pydantic": ("pydantic", "train"),
    "sklearn": ("scikit-learn", "train"),
    "hypothesis": ("hypothesis", "verify"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        backends.check_environment()
        with _logging_to_stderr():
            return _dispatch(arguments)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        message, code = _explain(error)
        return fail(message, code)


def _dispatch(arguments: list[str]) -> int:
    import click

    try:
        # Outside of standalone mode click returns the command's value and raises its errors.
        return _commands().main(arguments, "minidl", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return BAD_INPUT
    except click.ClickException as error:
        return fail(error.format_message(), BAD_INPUT)
    except click.Abort:
        return fail("interrupted", INTERRUPTED)


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
        return training.run(**options)

    @group.command("info")
    @as_json
    @debug
    def info_command(as_json: bool, debug: bool) -> int:
        """Show versions, processor, threads and why, GPUs, and what serves each kernel and why."""
        return info.run(as_json)

    @group.command("verify")
    @click.option(
        "--backend", "names", multiple=True, metavar="NAME",
        help="Check this kernel table (repeatable; default: all that are here).",
    )  # fmt: skip
    @click.option("--isa", metavar="NAME", help="One instruction set of the native table.")
    @click.option(
        "--op", "patterns", multiple=True, metavar="NAME",
        help="Check these operators and kernels (repeatable; * and ? match).",
    )  # fmt: skip
    @click.option(
        "--check", "checks", multiple=True, type=click.Choice(list(CHECKS)),
        help="Run only this check (repeatable).",
    )  # fmt: skip
    @click.option(
        "--examples", type=click.IntRange(1), default=25, show_default=True,
        help="Examples of each row; every check takes its share.",
    )  # fmt: skip
    @click.option(
        "--seconds", type=click.FloatRange(0, min_open=True),
        help="Instead of a number of examples: rounds of ever more, until the time is over.",
    )  # fmt: skip
    @click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True,
        help="The same seed draws the same examples.",
    )  # fmt: skip
    @click.option("--details", is_flag=True, help="A line per operator (as with --op).")
    @click.option("--out", metavar="DIR", help="Folder of the report (default: runs/DATE-verify).")
    @as_json
    @debug
    def verify_command(debug: bool, **options: Any) -> int:
        """Check operators and kernels on this machine: values, gradients, dtypes, layouts.

        Every kernel and every operator on every kernel table, against the NumPy reference in
        float64; exit code 1 and the smallest failing example if one is wrong.
        """
        return verify.run(**options)

    @group.command("gradcheck")
    @click.argument("spec", metavar="PACKAGE.MODULE:FACTORY")
    @click.option("--full", is_flag=True, help="Every element, not some and random directions.")
    @click.option(
        "--eval",
        "evaluate",
        is_flag=True,
        help="In eval mode (default: the mode that the factory left).",
    )
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @as_json
    @debug
    def gradcheck_command(debug: bool, **options: Any) -> int:
        """Check the gradients of a whole model against differences.

        FACTORY() returns (model, inputs) or (model, inputs, loss): a minidl.nn.Module; its input
        tensor, or a tuple or dict of inputs; and a function of the model's output that gives a
        scalar (default: the output weighted by random numbers). A copy of the model is checked
        in float64.
        """
        return gradcheck.run(**options)

    return group

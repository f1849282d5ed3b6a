"""`minidl gradcheck package.module:factory`: a user's model, and what its gradients are worth."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from minidl import train
from minidl.cli.common import MISSED, fail, say
from minidl.errors import ArgumentError, MinidlError
from minidl.nn import Module
from minidl.tensor import Tensor
from minidl.testing.model_check import (
    BAD,
    DIRECTIONS,
    FROZEN,
    UNUSED,
    ModelReport,
    check_model,
    tensors_in,
)
from minidl.train.report import columns


def run(spec: str, full: bool, evaluate: bool, seed: int, as_json: bool) -> int:
    """Check the model that the factory gives; 1 if a parameter does not get its gradient."""
    with _current_folder():
        model, inputs, loss = load(spec)
        try:
            report = check_model(
                model, inputs, loss, full=full, training=False if evaluate else None, seed=seed
            )
        except MinidlError:
            raise  # it says by itself what is wrong, and in which module
        except Exception as error:
            raise ArgumentError(f"{spec}: the model raised {_told(error)}") from error
    if as_json:
        say(train.to_json({"model": spec, "sound": report.sound} | asdict(report), indent=2))
    else:
        say(text(spec, report))
    wrong = [v.name for v in report.verdicts if v.verdict in BAD]
    if report.sound:
        return 0
    return fail(f"{len(wrong)} of {len(report.verdicts)} parameters and inputs fail", MISSED)


@contextmanager
def _current_folder() -> Iterator[None]:
    """Import from the current folder too, as `python -m` does."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def load(spec: str) -> tuple[Module, Any, Callable[..., Any] | None]:
    """(model, inputs, loss or None) of `package.module:factory`; ArgumentError otherwise."""
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise ArgumentError("the model must be named as package.module:factory", got=repr(spec))
    try:
        value: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ArgumentError(f"cannot import {module_name}: {_told(error)}") from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise ArgumentError(f"{module_name} has no '{name}'")
        value = getattr(value, part)
    if not callable(value):
        raise ArgumentError(f"{spec} is not a function", got=type(value).__name__)
    try:
        made = value()
    except Exception as error:
        raise ArgumentError(f"{spec} raised {_told(error)}") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise ArgumentError(
            f"{spec} must return (model, inputs) or (model, inputs, loss)", got=_shown(made)
        )
    model, inputs, loss = (*made, None)[:3]
    if not isinstance(model, Module):
        raise ArgumentError(f"{spec}: the model must be a minidl.nn.Module", got=_shown(model))
    if not isinstance(inputs, Tensor | tuple | list | dict) or not tensors_in(inputs):
        raise ArgumentError(
            f"{spec}: the inputs must be a Tensor, or a tuple or dict of them", got=_shown(inputs)
        )
    if loss is not None and not callable(loss):
        raise ArgumentError(f"{spec}: the loss must be a function", got=_shown(loss))
    return model, inputs, loss


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__


def text(spec: str, report: ModelReport) -> str:
    """The verdict of every parameter in columns, then what stands out."""
    mode = "train" if report.training else "eval"
    rows = [("parameter", "shape", "elements", "max error", "relative", "verdict")]
    for v in report.verdicts:
        tried = v.checked or v.absolute or v.verdict not in (FROZEN, *BAD)
        rows.append(
            (
                v.name,
                "x".join(map(str, v.shape)) or "()",
                str(v.checked) if tried else "-",
                f"{v.absolute:.1e}" if tried else "-",
                f"{v.relative:.1e}" if tried else "-",
                v.verdict,
            )
        )
    table = columns(rows, right=(2, 3, 4))
    lines = [
        f"{spec}: float64 copy in {mode} mode, loss {report.loss:.6g}; elements one by one and"
        f" {DIRECTIONS} random directions",
        "",
        *table[:1],
        "-" * max(map(len, table)),
        *table[1:],
    ]
    lines += [""] if report.notes or report.origin else []
    lines += report.notes
    lines += [report.origin] if report.origin else []
    lines += [f"{v.name}: {v.where}" for v in report.verdicts if v.where]
    for verdict, why in (
        (UNUSED, "the loss does not depend on them; freeze them (requires_grad_(False)) if meant"),
        (FROZEN, "requires_grad is False"),
    ):
        names = [v.name for v in report.verdicts if v.verdict == verdict]
        if names:
            lines.append(f"{verdict}: {', '.join(names)} ({why})")
    return "\n".join(lines)

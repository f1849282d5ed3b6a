"""What this thread records: `no_grad`, `enable_grad`, `inference_mode`, recorders.

`local.state.recording` is False or what `local.state.recorder` is: True, or a function that is
shown every node right after it was recorded (anomaly detection and checkpointing are such).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from minidl.backends import local


def _current() -> tuple[Any, Any, bool]:
    state = local.state
    return state.recording, state.recorder, state.inference


def _restore(before: tuple[Any, Any, bool]) -> None:
    state = local.state
    state.recording, state.recorder, state.inference = before


class _Mode:
    """A value of `recording` for a block (context manager) or a function (decorator)."""

    recording: bool | None = False  # None: as it is
    inference: bool | None = None

    def __init__(self) -> None:
        self._before: list[tuple[Any, Any, bool]] = []

    def __enter__(self) -> None:
        self._before.append(_current())
        self._activate()

    def _activate(self) -> None:
        state = local.state
        on = state.recording if self.recording is None else self.recording
        state.recording = on and state.recorder
        if self.inference is not None:
            state.inference = self.inference

    def __exit__(self, *error: Any) -> None:
        _restore(self._before.pop())

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._copy():
                return function(*args, **kwargs)

        @functools.wraps(function)
        def wrapped_generator(*args: Any, **kwargs: Any) -> Any:
            items = function(*args, **kwargs)
            step, given = items.send, None
            try:
                while True:
                    with self._copy():  # not where the items are used
                        item = step(given)
                    try:
                        step, given = items.send, (yield item)
                    except BaseException as error:  # thrown in, or GeneratorExit
                        step, given = items.throw, error
            except StopIteration as end:
                return end.value
            finally:
                given = None  # or an error and this frame would hold each other

        return wrapped_generator if inspect.isgeneratorfunction(function) else wrapped

    def _copy(self) -> _Mode:
        return type(self)()


class no_grad(_Mode):  # noqa: N801 - PyTorch's names
    """Nothing computed inside is recorded."""

    def __new__(cls, function: Callable | None = None) -> Any:
        """Decorate at once when used as `@no_grad` without parentheses."""
        mode = super().__new__(cls)
        if function is None:
            return mode
        mode.__init__()
        return mode(function)

    def __init__(self, function: Callable | None = None) -> None:
        super().__init__()


class enable_grad(no_grad):  # noqa: N801
    """Record inside a `no_grad` block."""

    recording = True


class Immediate(_Mode):
    """A mode by a flag that acts at once when it is not used as a block or decorator."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = bool(mode)
        self._outer = _current()
        self._activate()

    def __enter__(self) -> None:
        self._before.append(self._outer)
        self._activate()

    def _copy(self) -> _Mode:
        return type(self)(self.mode)

    def __call__(self, function: Callable) -> Callable:
        """Decorate: the flag holds inside the function only."""
        _restore(self._outer)
        return super().__call__(function)


class set_grad_enabled(Immediate):  # noqa: N801
    """Record or not, by a flag; acts at once when it is not used as a block."""

    def __init__(self, mode: bool) -> None:
        self.recording = bool(mode)
        super().__init__(mode)


class inference_mode(_Mode):  # noqa: N801
    """`no_grad` for code that never trains: also reported by `is_inference_mode_enabled`."""

    def __new__(cls, mode: Any = True) -> Any:
        """Decorate at once when used as `@inference_mode` without parentheses."""
        return super().__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.recording = not mode
        self.inference = mode

    def _copy(self) -> _Mode:
        return type(self)(self.inference)


class recorded_by(_Mode):  # noqa: N801
    """Show every node that is recorded to `recorder`, after any that is active already.

    alone: record in any case, and show the nodes to no other recorder.
    """

    recording = None

    def __init__(self, recorder: Callable[[Any], None], alone: bool = False) -> None:
        super().__init__()
        self.recorder, self.alone = recorder, alone

    def _activate(self) -> None:
        state = local.state
        outer, inner = state.recorder, self.recorder

        def both(node: Any) -> None:
            outer(node)
            inner(node)

        both.parts = (*getattr(outer, "parts", (outer,)), inner)  # type: ignore[attr-defined]
        state.recorder = inner if outer is True or self.alone else both
        state.recording = (state.recording or self.alone) and state.recorder


def is_grad_enabled() -> bool:
    """Whether operators are recorded in this thread."""
    return local.state.recording is not False


def is_inference_mode_enabled() -> bool:
    """Whether an `inference_mode` block is active in this thread."""
    return local.state.inference

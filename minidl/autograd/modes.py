"""What this thread records: `no_grad`, `enable_grad`, `inference_mode`, recorders.

`local.state.recording` is False, True, or a recorder: a function that is shown every node right
after it was recorded (anomaly detection and checkpointing are recorders).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from minidl.backends import local


class _Mode:
    """A value of `recording` for a block (context manager) or a function (decorator)."""

    recording: Any = False
    inference: bool | None = None  # None: as it is

    def __init__(self) -> None:
        self._before: list[tuple[Any, bool]] = []

    def __enter__(self) -> None:
        state = local.state
        self._before.append((state.recording, state.inference))
        self._activate()

    def _activate(self) -> None:
        state = local.state
        if self.recording is not True or not state.recording:  # a recorder that is active stays
            state.recording = self.recording
        if self.inference is not None:
            state.inference = self.inference

    def __exit__(self, *error: Any) -> None:
        state = local.state
        state.recording, state.inference = self._before.pop()

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{type(self).__name__} cannot decorate a generator function; use it as a block"
                " inside the function"
            )

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._copy():
                return function(*args, **kwargs)

        return wrapped

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


class set_grad_enabled(_Mode):  # noqa: N801
    """Record or not, by a flag; acts at once when it is not used as a block."""

    def __init__(self, mode: bool) -> None:
        super().__init__()
        state = local.state
        self.recording = bool(mode)
        self._outer = (state.recording, state.inference)
        self._activate()

    def __enter__(self) -> None:
        self._before.append(self._outer)
        self._activate()

    def _copy(self) -> _Mode:
        return type(self)(self.recording)

    def __call__(self, function: Callable) -> Callable:
        """Decorate: the flag holds inside the function only."""
        local.state.recording = self._outer[0]
        return super().__call__(function)


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
    """Record, and show every node to `recorder` (after any recorder that is active already)."""

    def __init__(self, recorder: Callable[[Any], None]) -> None:
        super().__init__()
        self.recorder = recorder

    def __enter__(self) -> None:
        outer = local.state.recording
        inner = self.recorder

        def both(node: Any) -> None:
            outer(node)
            inner(node)

        self.recording = both if callable(outer) else inner
        super().__enter__()


def is_grad_enabled() -> bool:
    """Whether operators are recorded in this thread."""
    return local.state.recording is not False


def is_inference_mode_enabled() -> bool:
    """Whether an `inference_mode` block is active in this thread."""
    return local.state.inference

"""Progress on stderr, and signals as a question that the loop asks between two steps."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

LOG_SECONDS = 5.0
log = logging.getLogger("minidl.train")


class Progress:
    """A tqdm bar on a terminal or in a notebook, elsewhere a log line every few seconds.

    `MINIDL_PROGRESS=0` turns both off. Use as a context manager.
    """

    def __init__(self, label: str, total: int, unit: str = "step") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._bar: Any = None
        self._quiet = os.environ.get("MINIDL_PROGRESS") == "0"
        self._start = self._said = time.monotonic()
        if not self._quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total, desc=label, unit=unit, file=sys.stderr, leave=False, mininterval=0.2
            )

    def advance(self, **shown: float | int | str) -> None:
        """Count one step and show `shown` beside it."""
        self.done += 1
        if self._bar is not None:
            if self._bar.update(1):
                self._bar.set_postfix_str(_shown(shown))
        elif not self._quiet and (now := time.monotonic()) - self._said >= LOG_SECONDS:
            self._said = now
            rate = self.done / (now - self._start)
            log.info(
                "%s: %s %d of %d, %s, %.1f per second",
                *(self.label, self.unit, self.done, self.total, _shown(shown), rate),
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Stop:
    """True once Ctrl-C or SIGTERM came inside the block; a second one raises KeyboardInterrupt.

    `signal` is the one that came. A signal that is ignored, as the shell has it for background
    jobs, stays ignored.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> Stop:
        # Python delivers signals to the main thread only, and lets no other set a handler.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # None is a handler that was not set from Python, and cannot be put back.
                if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                    self._before[number] = handler
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


def _shown(values: dict[str, float | int | str]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )

"""Progress on stderr, and Ctrl-C as a question that the loop asks between two steps."""

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
    """True once Ctrl-C was pressed inside the block; a second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __bool__(self) -> bool:
        return self._asked

    def __enter__(self) -> Stop:
        # Python delivers signals to the main thread only, and lets no other set a handler.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True


def _shown(values: dict[str, float | int | str]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )

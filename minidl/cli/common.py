"""What all commands share: exit codes, the line of an error, printing."""

from __future__ import annotations

import signal
import sys

from minidl import train

MISSED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def fail(message: str, code: int) -> int:
    """Print one line on stderr and return the code."""
    print(f"minidl: {' '.join(message.split())}", file=sys.stderr)
    return code


def stopped(stop: train.Stop, reached: str) -> int:
    """Say which signal ended the command and how far it came; its exit code."""
    name = "SIGTERM" if stop.signal == signal.SIGTERM else "Ctrl-C"
    return fail(f"stopped by {name}{reached}", 128 + (stop.signal or signal.SIGINT))


def say(text: str) -> None:
    """Print what may hold any character on a terminal that may not know it."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))

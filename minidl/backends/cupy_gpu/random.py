"""Random numbers in pieces that keep a GPU busy."""

from __future__ import annotations

__all__ = ["_COUNTERS"]

_COUNTERS = 2**22  # per piece: the working arrays take 300 MiB

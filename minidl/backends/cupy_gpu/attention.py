"""Attention in blocks as large as the memory of a GPU allows, mostly one."""

from __future__ import annotations

__all__ = ["BLOCK", "ROWS"]

BLOCK = 2**28  # scores per block: 1 GiB of float32
ROWS = 2**28  # query rows per block at most

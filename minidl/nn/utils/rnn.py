"""Sequences of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import minidl.ops as ops
from minidl.errors import ArgumentError, ShapeError
from minidl.tensor import Tensor


def pad_sequence(
    sequences: Tensor | Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stack sequences of shapes (L_i, *) to (L, N, *), filled up to the longest.

    (N, L, *) with `batch_first`; `padding_side` says where a short one is filled up.
    """
    sequences = list(sequences)
    if not sequences:
        raise ArgumentError("there must be a sequence", operator="pad_sequence")
    if padding_side not in ("left", "right"):
        raise ArgumentError(
            "padding_side must be 'left' or 'right'", operator="pad_sequence", got=padding_side
        )
    rest = sequences[0].shape[1:]
    for x in sequences:
        if not x.ndim or x.shape[1:] != rest:
            raise ShapeError(
                "the sequences may differ in their first axis only",
                operator="pad_sequence",
                got=", ".join(str(x.shape) for x in sequences),
            )
    longest = max(len(x) for x in sequences)
    rows = []
    for x in sequences:
        filler = x.new_full((longest - len(x), *rest), padding_value)
        rows.append(ops.cat([filler, x] if padding_side == "left" else [x, filler]))
    return ops.stack(rows, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """Take the sequences of `lengths` (N,) out of what `pad_sequence` filled up on the right."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


__all__ = ["pad_sequence", "unpad_sequence"]

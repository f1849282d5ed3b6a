"""Embedding: a table of vectors looked up by index."""

from __future__ import annotations

from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from minidl.nn import init
from minidl.nn.module import Module
from minidl.tensor import Parameter, Tensor


class Embedding(Module):
    """Rows of `weight` by integer index.

    input: (*) integers in [0, num_embeddings) -> (*, embedding_dim). The row `padding_idx` starts
    at zero and gets no gradient. The weights start standard normal.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if max_norm is not None:
            raise UnsupportedError(
                "max_norm is not supported; renormalise the rows of weight.data after each step",
                operator="Embedding",
            )
        if scale_grad_by_freq:
            raise UnsupportedError(
                "scale_grad_by_freq is not supported; divide the loss of each token by its count",
                operator="Embedding",
            )
        if sparse:
            raise UnsupportedError(
                "sparse gradients are not supported; use sparse=False", operator="Embedding"
            )
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(
                    f"padding_idx must lie in [{-num_embeddings}, {num_embeddings})",
                    operator="Embedding",
                    got=str(padding_idx),
                )
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        size = (num_embeddings, embedding_dim)
        if _weight is None:
            empty = ops.empty(size, device=device, dtype=dtype)
            self.weight = Parameter(empty, requires_grad=not _freeze)
            self.reset_parameters()
        elif not isinstance(_weight, Tensor):
            raise _not_a_tensor("Embedding", _weight)
        elif tuple(_weight.shape) != size:
            raise ShapeError(
                f"weight must have shape {size}",
                operator="Embedding",
                got=str(tuple(_weight.shape)),
            )
        else:
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """Make an embedding whose weight is `embeddings`, a (num, dim) tensor."""
        if not isinstance(embeddings, Tensor):
            raise _not_a_tensor("Embedding.from_pretrained", embeddings)
        if embeddings.dim() != 2:
            raise ShapeError(
                "embeddings must have 2 axes",
                operator="Embedding.from_pretrained",
                got=str(tuple(embeddings.shape)),
            )
        rows, columns = embeddings.shape
        return cls(
            rows,
            columns,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight=embeddings,
            _freeze=freeze,
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew and clear the padding row."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        """Look up (*) indices: (*, embedding_dim)."""
        return ops.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """Show the sizes and the padding index."""
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


def _not_a_tensor(operator: str, value: object) -> DTypeError:
    return DTypeError(
        "the weights must be a Tensor; wrap them with minidl.tensor(...)",
        operator=operator,
        got=type(value).__name__,
    )

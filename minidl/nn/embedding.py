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
    at zero and gets no gradient. `max_norm` scales rows that are looked up down, in the weight
    itself; `scale_grad_by_freq` divides a row's gradient by how often it is looked up. The weights
    start standard normal.
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
        if self.max_norm is None and not self.scale_grad_by_freq:
            return ops.embedding(input, self.weight, self.padding_idx)
        return ops.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
        )

    def extra_repr(self) -> str:
        """Show the sizes, and what differs from the defaults."""
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        return text + (", scale_grad_by_freq=True" if self.scale_grad_by_freq else "")


class EmbeddingBag(Module):
    """Sums, means or maxima of bags of rows, without storing the rows' table look-up per sample.

    input: (B, N), or (N,) with offsets (B,) -> (B, embedding_dim). The weights start standard
    normal, the row `padding_idx`, which is left out of its bag, at zero.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if sparse:
            raise UnsupportedError(
                "sparse gradients are not supported; use sparse=False", operator="EmbeddingBag"
            )
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ArgumentError(
                    f"padding_idx must lie in [{-num_embeddings}, {num_embeddings})",
                    operator="EmbeddingBag",
                    got=str(padding_idx),
                )
            padding_idx %= num_embeddings
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.padding_idx = padding_idx
        size = (num_embeddings, embedding_dim)
        if _weight is None:
            self.weight = Parameter(ops.empty(size, device=device, dtype=dtype))
            self.reset_parameters()
        elif not isinstance(_weight, Tensor):
            raise _not_a_tensor("EmbeddingBag", _weight)
        elif tuple(_weight.shape) != size:
            raise ShapeError(
                f"weight must have shape {size}",
                operator="EmbeddingBag",
                got=str(tuple(_weight.shape)),
            )
        else:
            self.weight = Parameter(_weight)
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> EmbeddingBag:
        """Make one whose weight is `embeddings`, a (num, dim) tensor."""
        if not isinstance(embeddings, Tensor):
            raise _not_a_tensor("EmbeddingBag.from_pretrained", embeddings)
        if embeddings.dim() != 2:
            raise ShapeError(
                "embeddings must have 2 axes",
                operator="EmbeddingBag.from_pretrained",
                got=str(tuple(embeddings.shape)),
            )
        rows, columns = embeddings.shape
        made = cls(
            rows,
            columns,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            embeddings,
            include_last_offset,
            padding_idx,
        )
        made.weight.requires_grad_(not freeze)
        return made

    def reset_parameters(self) -> None:
        """Draw the weights anew and clear the padding row."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """Return one row per bag: (B, embedding_dim)."""
        return ops.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        """Show the sizes, the mode, and what differs from the defaults."""
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += ", scale_grad_by_freq=True"
        text += f", mode={self.mode!r}"
        return text if self.padding_idx is None else f"{text}, padding_idx={self.padding_idx}"


def _not_a_tensor(operator: str, value: object) -> DTypeError:
    return DTypeError(
        "the weights must be a Tensor; wrap them with minidl.tensor(...)",
        operator=operator,
        got=type(value).__name__,
    )

"""Linear algebra under the names of torch.linalg; `minidl.ops.linalg` defines it."""

from minidl.ops.linalg import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    inv,
    slogdet,
    solve,
    solve_triangular,
)
from minidl.ops.matmul import matmul

__all__ = [
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "slogdet",
    "solve",
    "solve_triangular",
]

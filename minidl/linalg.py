"""Linear algebra under the names of torch.linalg; `minidl.ops.linalg` defines it."""

from minidl.ops.linalg import (
    cholesky,
    cross,
    det,
    eigh,
    eigvalsh,
    inv,
    matrix_power,
    multi_dot,
    slogdet,
    solve,
    solve_triangular,
    vecdot,
    vector_norm,
)
from minidl.ops.matmul import matmul

__all__ = [
    "cholesky",
    "cross",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_power",
    "multi_dot",
    "slogdet",
    "solve",
    "solve_triangular",
    "vecdot",
    "vector_norm",
]

"""The NumPy specification of every kernel-table entry, one file per family.

Docstrings are the contracts that faster layers must meet. Arrays are float32 or float64 (16-bit
floats are widened by the caller; `optim` alone takes them as they are), arguments are checked by
the caller, and the caller runs entries with NumPy's floating-point warnings off. Unless stated
otherwise inputs may have any strides, be broadcast, empty, read-only or overlap each other and are
not written; results are freshly allocated C-contiguous arrays, never NumPy scalars. In a tolerance
floor, eps is that of the result's dtype and sums run over the terms of one result.
"""

from collections.abc import Callable

from minidl.backends.reference.activation import (
    erf,
    erfc,
    erfinv,
    gelu,
    gelu_backward,
    log_sigmoid,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    softplus,
    tanh_backward,
)
from minidl.backends.reference.attention import attention, attention_backward
from minidl.backends.reference.broadcast import broadcast_to
from minidl.backends.reference.embedding import (
    embedding_backward,
    index_add,
    index_put,
    scatter_add,
)
from minidl.backends.reference.extrema import cummax, cummin, scatter_reduce
from minidl.backends.reference.host import host, refuse
from minidl.backends.reference.linalg import (
    cholesky,
    eigh,
    inv,
    slogdet,
    solve,
    solve_triangular,
)
from minidl.backends.reference.loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_in_place,
)
from minidl.backends.reference.matmul import linear, linear_backward, matmul
from minidl.backends.reference.movement import cast, copy, windows
from minidl.backends.reference.norm import (
    add_layer_norm,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from minidl.backends.reference.optim import adam_step, grad_norm, grad_scale, sgd_step
from minidl.backends.reference.power import pow_scalar, rsqrt
from minidl.backends.reference.random import (
    bernoulli,
    dropout,
    multinomial,
    normal,
    permutation,
    philox_bits,
    philox_blocks as philox_blocks,
    randint,
    uniform,
)
from minidl.backends.reference.reduce import sum
from minidl.backends.reference.sampling import binomial, log_standard_gamma, poisson
from minidl.backends.reference.softmax import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
)
from minidl.backends.reference.special import (
    digamma,
    gammainc,
    gammaincc,
    lgamma,
    log_gamma_quantile_backward,
    zeta,
)

ENTRIES: dict[str, Callable] = {
    function.__name__: function
    for function in (
        broadcast_to,
        sum,
        cummax,
        cummin,
        matmul,
        linear,
        linear_backward,
        attention,
        attention_backward,
        softmax,
        softmax_backward,
        log_softmax,
        log_softmax_backward,
        logsumexp,
        add_layer_norm,
        layer_norm,
        layer_norm_backward,
        rms_norm,
        rms_norm_backward,
        relu,
        relu_backward,
        erf,
        erfc,
        erfinv,
        sigmoid,
        sigmoid_backward,
        tanh_backward,
        log_sigmoid,
        softplus,
        gelu,
        gelu_backward,
        silu,
        silu_backward,
        cross_entropy,
        cross_entropy_backward,
        cross_entropy_in_place,
        binary_cross_entropy_with_logits,
        binary_cross_entropy_with_logits_backward,
        embedding_backward,
        scatter_add,
        scatter_reduce,
        index_add,
        index_put,
        sgd_step,
        adam_step,
        grad_norm,
        grad_scale,
        philox_bits,
        uniform,
        normal,
        bernoulli,
        dropout,
        randint,
        permutation,
        multinomial,
        log_standard_gamma,
        poisson,
        binomial,
        lgamma,
        digamma,
        zeta,
        gammainc,
        gammaincc,
        log_gamma_quantile_backward,
        cholesky,
        solve_triangular,
        solve,
        inv,
        slogdet,
        eigh,
        rsqrt,
        pow_scalar,
        cast,
        copy,
        windows,
        host,
        refuse,
    )
}

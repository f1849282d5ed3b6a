"""Special functions under the names of torch.special; `minidl.ops` defines them."""

from minidl.ops.activation import sigmoid as expit
from minidl.ops.reduce import logsumexp
from minidl.ops.softmax import log_softmax, softmax
from minidl.ops.special import (
    digamma,
    digamma as psi,
    entr,
    igamma as gammainc,
    igammac as gammaincc,
    lgamma as gammaln,
    logit,
    mvlgamma as multigammaln,
    ndtr,
    ndtri,
    polygamma,
    sinc,
    xlog1py,
    xlogy,
    zeta,
)
from minidl.ops.transcendental import erf, erfc, erfinv, exp2, expm1, log1p, round

__all__ = [
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammainc",
    "gammaincc",
    "gammaln",
    "log1p",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "ndtr",
    "ndtri",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlog1py",
    "xlogy",
    "zeta",
]

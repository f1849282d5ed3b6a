"""Powers of few operations."""

from collections.abc import Callable

import numpy as np

# exponents whose power is one or two exactly rounded operations
_POWERS: dict[float, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: np.array(x, order="C"),
    2: np.square,
    3: lambda x: np.square(x) * x,
    0.5: np.sqrt,
    -0.5: lambda x: np.reciprocal(np.sqrt(x)),
    -1: np.reciprocal,
    -2: lambda x: np.reciprocal(np.square(x)),
}


def pow_scalar(x: np.ndarray, exponent: float) -> np.ndarray:
    """x ** exponent. Floor: 0 for the exponents above, whose operations are rounded one by one;
    else 2 ULP."""
    power = _POWERS.get(exponent)
    return np.asarray(power(x) if power else np.power(x, float(exponent)), order="C")


def rsqrt(x: np.ndarray) -> np.ndarray:
    """1 / sqrt(x), rounded twice."""
    return np.asarray(np.reciprocal(np.sqrt(x)), order="C")

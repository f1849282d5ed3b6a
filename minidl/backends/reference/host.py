"""Where values leave their device: reads on the CPU and checks of values."""

from typing import Any

import numpy as np


def host(x: Any) -> Any:
    """The elements in the memory of the CPU, as a NumPy array; there it is `x` itself.

    The only way by which an operator may look at values: on a GPU it waits for them. Raises what
    `refuse` noted before.
    """
    return x


def refuse(bad: np.ndarray, error: Exception) -> None:
    """Raise `error` if any element of the bool array `bad` is True.

    On a GPU nothing waits for the answer: the error is noted, and raised by the next read of
    values (`host`, `item`, `synchronize`).
    """
    if np.any(bad):
        raise error

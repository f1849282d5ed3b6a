"""PyTorch's questions about GPUs, as a build without a table for them answers.

So that `device = "cuda" if cuda.is_available() else "cpu"`, with which programs begin, runs.
"""


def is_available() -> bool:
    """Whether tensors can live on a GPU: no."""
    return False


def device_count() -> int:
    """How many GPUs there are for tensors: none."""
    return 0


def manual_seed(seed: int) -> None:
    """Seed the generator of the current GPU; without one nothing happens, as in PyTorch."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs; without one nothing happens, as in PyTorch."""

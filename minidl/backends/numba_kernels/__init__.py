"""The kernels of the Numba layer, one file per family, as in `reference`."""

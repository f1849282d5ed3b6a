"""Replacements of the twins in CUDA source, which CuPy compiles when a kernel is first used.

Two reasons: one kernel in the place of dozens (random numbers, optimiser steps), and the products,
which CuPy's cuBLAS refuses while a graph is captured. Files are named after those of the
specification, as in the package above.
"""

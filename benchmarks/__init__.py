"""Our times beside the rivals': `python -m benchmarks`, `overhead.py`, `import_time.py`."""

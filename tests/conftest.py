"""Hypothesis profiles and the folder of real data, shared by all tests."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from minidl.backends import available, native, numba_cpu, use_backend

# An example may compile nothing and still be slow on a busy machine, so no profile has a deadline.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=25, **_COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, print_blob=True, **_COMMON)
settings.register_profile("few", max_examples=5, derandomize=True, **_COMMON)  # sanitizers
settings.register_profile("nightly", max_examples=1000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# Ctrl-C is tested; a job that a shell runs in the background starts with it ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder named by MINIDL_DATA; the test is skipped where there is none."""
    name = os.environ.get("MINIDL_DATA")
    if not name:
        pytest.skip("needs real data: set MINIDL_DATA to the folder that holds it")
    folder = Path(name)
    if not folder.is_dir():
        pytest.fail(f"MINIDL_DATA is set to {name!r}, which is not a folder")
    return folder


ISAS = native.cpu.isas() if native.cpu else []
NUMBA = [name for name in available() if name == "numba"]  # where it is installed
TABLES = ["reference", *NUMBA, *ISAS]


@contextmanager
def on_table(name: str) -> Iterator[None]:
    """Run on the specification, on Numba's kernels, or on the native ones of an instruction set."""
    if name in ("reference", *NUMBA):
        with use_backend(name):
            yield
        return
    before = native.cpu.isa()
    native.use_isa(name)
    with use_backend("native"):
        yield
    native.use_isa(before)


@pytest.fixture(params=TABLES)
def each_table(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run on the specification, on Numba's kernels, on the native ones of every set there is."""
    with on_table(request.param):
        yield request.param


def pytest_report_header() -> list[str]:
    """State what the run depends on, so that a log is enough to repeat it."""
    profile = os.environ.get("HYPOTHESIS_PROFILE", "dev")
    return [
        f"hypothesis profile: {profile}",
        f"MINIDL_DATA: {os.environ.get('MINIDL_DATA')}",
        f"native kernels: {', '.join(ISAS) or native.layer().missing}",
        f"numba kernels: {'yes' if NUMBA else numba_cpu.layer().missing}",
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of the operator table ran, over all processes."""
    tally = None
    for report in [r for reports in terminalreporter.stats.values() for r in reports]:
        for name, counts in getattr(report, "user_properties", ()):
            if name == "operator_table" and getattr(report, "when", "") == "call":
                from minidl.testing.runner import Tally

                tally = tally or Tally()
                tally.update({tuple(key): count for *key, count in counts})
    if tally is not None:
        terminalreporter.write_line(tally.summary())

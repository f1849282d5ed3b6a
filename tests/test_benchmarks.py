"""The instrument of the benchmarks: intervals, ratios, limits, bars, the picture."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import sleep

import pytest

from minidl.backends import native

sys.path.append(str(Path(__file__).parents[1]))  # last: an installed minidl stays the one in use
from benchmarks import harness, models, remote
from benchmarks.harness import Row, Settings

needs_kernels = pytest.mark.skipif(
    native.cpu is None, reason=f"no native kernels: {native.layer().missing}"
)

pins = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not keep processes to processors"
)


def measured(**fields) -> harness.Result:
    row = Row("row", lambda: sleep(0.001), {"slow": lambda: sleep(0.004)}, **fields)
    return harness.measure(row, Settings(rounds=15, window=0.0))


@pytest.mark.parametrize(("count", "ranks"), [(5, (0, 4)), (15, (3, 11)), (21, (5, 15))])
def test_interval_of_the_median(count, ranks):
    """Ranks as in tables of the sign test; fewer than six values have no interval of 95 %."""
    assert harness.interval(range(count)[::-1]) == ranks


def test_ratios_and_bars():
    result = measured(bar=1.0, bars={"slow": 1000.0, "absent": 9.0})
    assert result.low <= result.ratio <= result.high
    assert result.ratio == result.ratios["slow"].median > 1
    assert result.missed == ["1000.00 of slow"]
    assert "MISSED 1000.00 of slow" in harness.line(result)


def test_rows_of_differences():
    parts = {"its part": lambda: None}
    result = harness.measure(Row("row", lambda: sleep(0.001), parts, over=1e-6), Settings())
    assert result.over > 1e-4
    assert result.missed == ["+1.00 us"]


@needs_kernels
def test_limits(monkeypatch):
    rates = {"read": 8e9, "copy": 4e9, "update": 16e9}
    monkeypatch.setattr(harness, "bandwidth", lambda size, kind, threads: rates[kind])
    bytes_ = float(1 << 23)
    assert harness.transfer(Row("", int, bytes=bytes_, written=0.0)) == bytes_ / 8e9
    assert harness.transfer(Row("", int, bytes=bytes_)) == bytes_ / 4e9
    assert harness.transfer(Row("", int, bytes=bytes_, moved="update")) == bytes_ / 16e9
    half = harness.transfer(Row("", int, bytes=bytes_, written=0.25))
    assert half == pytest.approx(bytes_ / 16e9 + bytes_ / 8e9)
    monkeypatch.setattr(harness, "bandwidth", lambda size, kind, threads: {"adam": 7e9}[kind])
    assert harness.transfer(Row("", int, bytes=bytes_, moved="adam")) == bytes_ / 7e9
    result = measured(bytes=bytes_, moved="adam", operations=1.0, share_bar=1e6)
    assert result.limit == "bytes"
    assert result.share == pytest.approx(result.model / result.ours)
    assert len(result.missed) == 1


@needs_kernels
def test_bandwidth_and_peak_are_measured():
    assert harness.peak() > 1e8
    assert all(harness.bandwidth(1 << 16, kind, 2) > 1e7 for kind in harness.KINDS)


def test_check_compares_with_what_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    result, settings = measured(), Settings()
    assert "no ratios are kept" in harness.fallen("suite", [result], settings)[0]
    monkeypatch.setattr(harness, "limits", lambda threads: {})
    kept = harness.record("suite", [result], settings)
    for ratio, fell in ((result.ratio, False), (100 * result.ratio, True)):
        kept["rows"][0]["ratio"] = ratio
        harness.path_of("suite", 1).write_text(json.dumps(kept), encoding="utf-8")
        assert bool(harness.fallen("suite", [result], settings)) == fell


SIDE = """
import pickle, sys, time
put = lambda x: (pickle.dump(x, sys.stdout.buffer), sys.stdout.buffer.flush())
put("0.0")
while True:
    try:
        what, *given = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    if what == "time":
        put(1e-5 * given[0])
    else:
        put(2.0 if what == "call" else {"known": True, "": False}.get(given[0], given[0] + "!"))
"""


@pins
def test_a_rival_in_another_process(tmp_path, monkeypatch):
    """Its own clock counts; it compiles, so it has a ratio and is not the best rival."""
    side = tmp_path / "side.py"
    side.write_text(SIDE, encoding="utf-8")
    monkeypatch.setattr(remote, "SIDE", side)
    before = os.sched_getaffinity(0)
    try:
        other, said = remote.found(sys.executable, 1)
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, before)
    assert other is not None and said.startswith("0.0, jitted")
    settings = Settings(rounds=3, jax=other)
    rivals = {"slow": lambda: sleep(0.002)}
    row = Row("row", lambda: sleep(0.001), rivals, bars={"jax": 1.0}, jax=("known", 1))
    result = harness.measure(row, settings)
    assert other() == 2.0
    assert result.rivals["jax"] == pytest.approx(1e-5)
    assert result.ratio == result.ratios["slow"].median > 1 > result.ratios["jax"].high
    assert result.missed == ["1.00 of jax"]
    row = Row("row", lambda: sleep(0.001), rivals, jax=("",))
    assert list(harness.measure(row, settings).rivals) == ["slow"]
    with pytest.raises(RuntimeError, match="what was wrong!"):
        other.prepare("what was wrong")
    other.close()


@pins
def test_no_jax_is_said(monkeypatch):
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    assert remote.found(None, 1) == (None, remote.MISSING)
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(remote, "SIDE", Path("there is no such file"))
    other, said = remote.found(sys.executable, 1)
    assert other is None
    assert said.startswith("skipped: ")
    assert os.sched_getaffinity(0) == before


def test_operations_of_a_model():
    mlp = models.jobs()[0]
    forward = 2 * 128 * (784 * 512 + 512 * 256 + 256 * 10)
    assert mlp.operations == 3 * forward - 2 * 128 * 784 * 512


def test_a_picture_is_drawn(tmp_path):
    from benchmarks import roofline

    sizes = [1 << power for power in range(14, 29, 2)]
    limits = {kind: {size: 1e10 for size in sizes} for kind in harness.KINDS} | {"peak": 1e11}
    rows = [
        {"operations": 1e9, "bytes": 1e7, "ours": 0.1, "missed": []},
        {"operations": 0.0, "bytes": 1e7, "ours": 0.1, "missed": ["1.00"]},
    ]
    record = {"suite": "suite", "native": "none", "limits": limits, "rows": rows}
    roofline.draw([record], tmp_path / "roofline.png")
    from matplotlib import image

    assert image.imread(tmp_path / "roofline.png").std() > 0.01


@pins
def test_what_sleeps_comes_back_to_its_processor():
    allowed = os.sched_getaffinity(0)
    assert harness.in_place(lambda: os.sched_getaffinity(0)) == allowed
    assert os.sched_getaffinity(0) == allowed

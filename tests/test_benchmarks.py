"""The instrument of the benchmarks: intervals, ratios, limits, bars, the picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import sleep

import pytest

from minidl.backends import native

sys.path.append(str(Path(__file__).parents[1]))  # last: an installed minidl stays the one in use
from benchmarks import harness, models
from benchmarks.harness import Row, Settings

needs_kernels = pytest.mark.skipif(
    native.cpu is None, reason=f"no native kernels: {native.layer().missing}"
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
    assert harness.transfer(Row("", int, bytes=bytes_, in_place=True)) == bytes_ / 16e9
    half = harness.transfer(Row("", int, bytes=bytes_, written=0.25))
    assert half == pytest.approx(bytes_ / 16e9 + bytes_ / 8e9)
    result = measured(bytes=bytes_, operations=1.0, share_bar=1e6)
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


def test_operations_of_a_model():
    mlp = models.jobs()[0]
    forward = 2 * 128 * (784 * 512 + 512 * 256 + 256 * 10)
    assert mlp.operations == 3 * forward - 2 * 128 * 784 * 512


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install minidl[bench]")
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

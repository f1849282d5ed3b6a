"""`save` and `load`: structures, exactness, atomic files, and files of other origins."""

import base64
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, strategies as st
from safetensors import safe_open
from safetensors.numpy import save as plain_save

import minidl
from minidl import nn, optim
from minidl.errors import ArgumentError, DeviceError, DTypeError, MinidlError, UnsupportedError
from minidl.serialization import files, write_atomic
from minidl.testing.draws import ALL
from minidl.testing.strategies import Draw


def same(a, b):
    """Equal in type, structure, dtype and every bit."""
    assert type(a) is type(b)
    if isinstance(a, minidl.Tensor):
        assert a.dtype is b.dtype and a.shape == b.shape
        assert (a.requires_grad, a.is_parameter) == (b.requires_grad, b.is_parameter)
        a, b = a.detach().numpy(), b.detach().numpy()
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert np.asarray(a, order="C").tobytes() == np.asarray(b, order="C").tobytes()
    elif isinstance(a, dict):
        assert [*map(repr, a)] == [*map(repr, b)]
        for x, y in zip(a.values(), b.values(), strict=True):
            same(x, y)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b or a != a


def through(value, **options):
    file = io.BytesIO()
    minidl.save(value, file)
    file.seek(0)
    return minidl.load(file, **options)


_plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(max_size=9),
    st.sampled_from([minidl.bfloat16, minidl.int64, minidl.device("cpu")]),
)


@st.composite
def _tensors(draw):
    d = Draw(draw)
    dtype = d.choice(ALL)
    tensor = minidl.from_numpy(np.asarray(d.array(d.shape(), dtype, extreme=True)))
    form = d.integer(0, 3) if dtype.is_floating_point else 0
    if form == 1:
        return tensor.requires_grad_()
    return nn.Parameter(tensor, requires_grad=form == 2) if form > 1 else tensor


_keys = st.one_of(st.text(max_size=4), st.integers(), st.booleans(), st.tuples(st.integers()))
_structures = st.recursive(
    _plain | _tensors(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_keys, inner, max_size=3),
        st.dictionaries(_keys, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=8,
)


@given(_structures)
def test_structures_come_back(value):
    same(value, through(value))


@given(_structures)
def test_mapped_structures_come_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / f"mapped-{os.getpid()}"
    minidl.save(value, path)
    same(value, minidl.load(path, mmap=True))


def test_what_is_tied_stays_tied(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    path = tmp_path / "model"
    minidl.save({"model": model.state_dict(), "again": model[0].weight.detach()}, path)
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"model.0.weight", "model.0.bias", "model.1.bias"}
    found = minidl.load(path)
    found["model"]["0.weight"].add_(1)
    assert minidl.equal(found["model"]["0.weight"], found["model"]["1.weight"])
    assert minidl.equal(found["model"]["0.weight"], found["again"])
    # parts of one storage, and equal but separate ones, are stored apart
    x = minidl.arange(6.0)
    parts = through([x, x[:3], x[3:], x.clone(), x.view(2, 3)])
    parts[0].zero_()
    assert parts[1].tolist() == [0, 1, 2] and parts[3].tolist() == x.tolist()


def test_names_that_meet_are_kept_apart():
    one = {"a": {"b": minidl.ones(1)}, "a.b": minidl.zeros(1), "__metadata__": minidl.ones(2)}
    same(one, through(one))
    same(
        {1: minidl.ones(1), "1": minidl.zeros(1)},
        through({1: minidl.ones(1), "1": minidl.zeros(1)}),
    )


def test_other_tools_read_it(tmp_path):
    path = tmp_path / "weights"
    state = {"w": minidl.arange(6.0).view(2, 3).t(), "b": minidl.ones(2, dtype=minidl.bfloat16)}
    minidl.save(state, path)
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"w", "b"}
        np.testing.assert_array_equal(file.get_tensor("w"), state["w"].numpy())


def test_it_reads_files_of_other_tools(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(
        plain_save({"w": np.ones((2, 3), np.float32), "n": np.array(3)}, {"format": "pt"})
    )
    found = minidl.load(path)
    assert set(found) == {"w", "n"} and found["w"].shape == (2, 3) and found["n"].item() == 3
    path.write_bytes(plain_save({"w": np.ones(2, np.uint32)}))
    with pytest.raises(ArgumentError, match="U32"):
        minidl.load(path)


@pytest.mark.parametrize("aliases", ["{torn", "[1]", '{"a": "nowhere"}', '{"a": []}'])
def test_aliases_of_older_files(aliases):
    data = plain_save({"w": np.zeros(2)}, metadata={"aliases": '{"v": "w"}'})
    found = minidl.load(io.BytesIO(data))
    found["w"].add_(1)
    assert found["v"].tolist() == [1, 1]
    with pytest.raises(ArgumentError, match="aliases"):
        minidl.load(io.BytesIO(plain_save({"w": np.zeros(2)}, metadata={"aliases": aliases})))


GOLDEN = """
8AIAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJtaW5pZGwiOiJ7XCJ2ZXJzaW9uXCI6MSxcInJvb3RcIjp7XCJkaWN0XCI6W1tc
Im1vZGVsXCIse1wib3JkZXJlZFwiOltbXCJ3ZWlnaHRcIix7XCJ0ZW5zb3JcIjpcIm1vZGVsLndlaWdodFwifV0sW1widGll
ZFwiLHtcInRlbnNvclwiOlwibW9kZWwud2VpZ2h0XCJ9XSxbXCJoYWxmXCIse1widGVuc29yXCI6XCJtb2RlbC5oYWxmXCJ9
XV19XSxbXCJzdGF0ZVwiLHtcImRpY3RcIjpbWzAse1wiZGljdFwiOltbXCJzdGVwXCIse1widGVuc29yXCI6XCJzdGF0ZS4w
LnN0ZXBcIn1dLFtcImJldGFzXCIse1widHVwbGVcIjpbMC45LDAuOTk5XX1dXX1dXX1dLFtcInJlc3RcIixbbnVsbCx0cnVl
LDcse1wiZmxvYXRcIjpcImluZlwifSxcInRleHRcIix7XCJieXRlc1wiOlwiMDBmZlwifSx7XCJkdHlwZVwiOlwiZmxvYXQx
NlwifV1dLFtcInBhcmFtZXRlclwiLHtcInRlbnNvclwiOltcInBhcmFtZXRlclwiLFwicGdcIl19XV19fSJ9LCJtb2RlbC53
ZWlnaHQiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRhdGFfb2Zmc2V0cyI6WzAsMjRdfSwicGFyYW1ldGVyIjp7
ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMjQsMjhdfSwic3RhdGUuMC5zdGVwIjp7ImR0eXBl
IjoiRjMyIiwic2hhcGUiOltdLCJkYXRhX29mZnNldHMiOlsyOCwzMl19LCJtb2RlbC5oYWxmIjp7ImR0eXBlIjoiQkYxNiIs
InNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzMyLDM2XX19ICAgIAAAAAAAAIA/AAAAQAAAQEAAAIBAAACgQAAAAAAAAEBA
gD+APw==
"""


def test_version_1_stays_readable():
    found = minidl.load(io.BytesIO(base64.b64decode(GOLDEN)))
    same(found, golden())


def golden():
    weight = minidl.arange(6.0).view(2, 3)
    return {
        "model": OrderedDict(
            weight=weight, tied=weight, half=minidl.ones(2, dtype=minidl.bfloat16)
        ),
        "state": {0: {"step": minidl.tensor(3.0), "betas": (0.9, 0.999)}},
        "rest": [None, True, 7, float("inf"), "text", b"\x00\xff", minidl.float16],
        "parameter": nn.Parameter(minidl.zeros(1)),
    }


# ---------------------------------------------------------------- what it refuses


class Thing:
    """What no file can hold."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Thing(), "the object is a .*Thing"),
        ({"a": [1, {"b": Thing()}]}, r"'a.1.b' is a .*Thing"),
        ({"f": len}, "'f' is a builtins.builtin_function_or_method"),
        ({"m": nn.Linear(1, 1)}, "'m' is a minidl.nn.linear.Linear"),
        ({Thing(): 1}, "keys must be"),
        ({"z": 1j}, "'z' is a builtins.complex"),
        ({"s": {1}}, "'s' is a builtins.set"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, value, place):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with pytest.raises(DTypeError, match=place):
        minidl.save(value, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_depth_has_a_limit():
    value = cycle = []
    cycle.append(cycle)
    with pytest.raises(ArgumentError, match="levels deep"):
        minidl.save(value, io.BytesIO())
    value = []
    for _ in range(90):
        value = [value]
    same(value, through(value))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        minidl.load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        minidl.load(tmp_path)
    for content in (b"", b"text", b"\0" * 100, b"\xff" * 8):
        (tmp_path / "file").write_bytes(content)
        for mmap in (False, True):
            with pytest.raises(ArgumentError, match="is not a safetensors file|is empty"):
                minidl.load(tmp_path / "file", mmap=mmap)
    with pytest.raises(UnsupportedError, match="weights_only"):
        minidl.load(io.BytesIO(), weights_only=False)
    with pytest.raises(UnsupportedError, match="map_location"):
        minidl.load(io.BytesIO(), map_location={})
    with pytest.raises(DTypeError, match="bytes"):
        minidl.load(io.StringIO("text"))
    with pytest.raises(MinidlError):
        through(minidl.ones(1), map_location="cuda")
    assert through(minidl.ones(1), map_location="cpu").tolist() == [1]


def test_a_newer_format_says_so():
    data = plain_save({}, metadata={"minidl": json.dumps({"version": 2, "root": None})})
    with pytest.raises(ArgumentError, match="format 2"):
        minidl.load(io.BytesIO(data))


# ---------------------------------------------------------------- files that appear whole


def test_mapped_arrays_are_private(tmp_path):
    path = tmp_path / "state"
    minidl.save({"x": minidl.zeros(4)}, path)
    before = path.read_bytes()
    found = minidl.load(path, mmap=True)["x"]
    found.add_(1)
    assert found.tolist() == [1] * 4 and path.read_bytes() == before
    minidl.save({"x": minidl.ones(2)}, path)  # the old file stays under the map
    assert found.tolist() == [1] * 4


def test_write_atomic_follows_links_and_long_names(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link = folder / ("ä" * 120), tmp_path / "latest"
    link.symlink_to(target)
    for content in ("old", "new"):
        write_atomic(link, content)
        assert link.is_symlink() and target.read_text(encoding="utf-8") == content
    assert [p.name for p in folder.iterdir()] == [target.name]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_atomic(link, f"{i % 10}" * 10_000), range(40)))
    assert len(set(target.read_text(encoding="utf-8"))) == 1


def test_write_atomic_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="space") as caught:
        write_atomic(path, "new")
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="space"):
        minidl.save({"a": minidl.ones(2)}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere/state"):
        minidl.save({}, tmp_path / "nowhere" / "state")


WRITER = """
import sys, minidl
state = {"x": minidl.full((200_000,), float(sys.argv[2]))}
print("ready", flush=True)
while True:
    minidl.save(state, sys.argv[1])
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "state"
    for value in (1.0, 2.0, 3.0):
        command = [sys.executable, "-c", WRITER, str(path), str(value)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            until = time.monotonic() + 20
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.01 * value)
            child.send_signal(signal.SIGKILL)
        found = minidl.load(path)["x"]
        assert found.shape == (200_000,) and found.eq(found[0]).all()


# ---------------------------------------------------------------- what training needs


def test_a_run_goes_on_from_its_file(tmp_path):
    def start():
        minidl.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
        return model, optimizer, optim.lr_scheduler.MultiStepLR(optimizer, [3, 5], 0.5)

    def steps(model, optimizer, schedule, first, last):
        for i in range(first, last):
            loss = model(minidl.full((2, 3), float(i))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return model

    straight = steps(*start(), 0, 8)
    parts = start()
    steps(*parts, 0, 4)
    path = tmp_path / "checkpoint"
    minidl.save([part.state_dict() for part in parts], path)
    again = start()
    for part, state in zip(again, minidl.load(path), strict=True):
        part.load_state_dict(state)
    same(straight.state_dict(), steps(*again, 4, 8).state_dict())


def test_tensors_are_pickled_for_processes():
    for tensor in (
        minidl.arange(6.0).view(2, 3).t(),
        minidl.ones(2, dtype=minidl.bfloat16, requires_grad=True),
        nn.Parameter(minidl.ones(2), requires_grad=False),
        minidl.tensor(True),
        minidl.ones(0, 3),
    ):
        for protocol in (2, 5):
            same(tensor, pickle.loads(pickle.dumps(tensor, protocol)))
    x = minidl.ones(2, requires_grad=True)
    with pytest.raises(MinidlError, match="detach"):
        pickle.dumps(x * 2)


# ---------------------------------------------------------------- hostile files


def _reads_or_refuses(data, **options):
    """Any bytes are a value, or one error of ours."""
    try:
        minidl.load(io.BytesIO(data), **options)
    except (ArgumentError, DTypeError, DeviceError, UnsupportedError):
        return False
    return True


def _example():
    file = io.BytesIO()
    state = {"a": minidl.arange(6.0).view(2, 3), 1: [minidl.ones(2).bool(), (1, None), "x"]}
    minidl.save({"s": state, "e": minidl.ones(0)}, file)
    return file.getvalue()


EXAMPLE = _example()


@given(st.data())
def test_damaged_files_are_refused(data):
    content = bytearray(EXAMPLE)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    _reads_or_refuses(bytes(content))


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(
        ["tensor", "array", "dict", "ordered", "tuple", "float", "bytes", "dtype", "device", "x"]
    ), x, max_size=2),
    max_leaves=6,
)  # fmt: skip


@given(_json)
def test_hostile_descriptions(root):
    text = json.dumps({"version": 1, "root": root})
    _reads_or_refuses(plain_save({"x": np.zeros(2)}, metadata={"minidl": text}))


@given(st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "BF16", "BOOL", "U8", "F64", "X", "F8_E4M3"]),
    "shape": st.lists(st.integers(-1, 2**62), max_size=3),
    "data_offsets": st.tuples(st.integers(-4, 2**62), st.integers(-4, 2**62)),
}), max_size=3), st.binary(max_size=40), st.integers(-3, 3))  # fmt: skip
def test_headers_that_lie(header, body, extra):
    text = json.dumps(header).encode()
    _reads_or_refuses((len(text) + extra).to_bytes(8, "little", signed=False) + text + body
                      if len(text) + extra >= 0 else b"")  # fmt: skip


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_nesting(depth):
    for root in ("[" * depth + "]" * depth, '{"tuple":[' * depth + "]}" * depth):
        metadata = {"minidl": '{"version":1,"root":' + root + "}"}
        assert not _reads_or_refuses(plain_save({}, metadata=metadata))
    text = ('{"a":' * depth + "1" + "}" * depth).encode()
    assert not _reads_or_refuses(len(text).to_bytes(8, "little") + text)


def test_long_numbers():
    metadata = {"minidl": '{"version":1,"root":' + "1" * 100_000 + "}"}
    assert not _reads_or_refuses(plain_save({}, metadata=metadata))


def test_overlaps_and_holes_are_refused():
    entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    for second in ([0, 2], [1, 3], [3, 5]):
        header = {"a": entry, "b": {**entry, "data_offsets": second}}
        text = json.dumps(header).encode()
        assert not _reads_or_refuses(len(text).to_bytes(8, "little") + text + bytes(5))


def test_booleans_are_0_or_1():
    text = json.dumps({"a": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}).encode()
    data = len(text).to_bytes(8, "little") + text + bytes([0, 1, 7])
    found = minidl.load(io.BytesIO(data))["a"].numpy()
    assert found.view(np.uint8).tolist() == [0, 1, 1]
    assert files.load is minidl.load

"""PyTorch's files: states in both formats are read, everything else is refused."""

import collections
import contextlib
import io
import pickle
import pickletools
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, strategies as st

import minidl
from minidl import nn, optim
from minidl.errors import ArgumentError, UnsupportedError


def _by_torch(value, old=False):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def load(data, **options):
    return minidl.load(io.BytesIO(data), **options)


FORMATS = pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])


@FORMATS
def test_states_are_read(tmp_path, old):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    base = torch.arange(24.0).view(4, 6)
    names = [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
    ]
    value = {
        "model": model.state_dict(),
        "dtypes": {n: torch.tensor([[1, 2], [0, 3]]).to(getattr(torch, n)) for n in names},
        "bool": torch.tensor([True, False]),
        "views": [base.t(), base[1:, ::2], base[:0], base[2, 3], base.expand(2, 4, 6)],
        "parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "leaf": torch.ones(2, requires_grad=True),
        "plain": [1, 2.5, None, "text", b"bytes", (True, {3: 4}), 2**70, {1, 2}],
        "size": base.shape,
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "counter": collections.Counter([1, 1]),
    }
    data = _by_torch(value, old)
    path = tmp_path / "state.pt"
    path.write_bytes(data)
    for found in (load(data), minidl.load(path), minidl.load(path, mmap=True)):
        ours = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        ours.load_state_dict(found["model"])
        assert found["model"]._metadata
        for part in ("model", "dtypes"):
            for name, tensor in value[part].items():
                mine = found[part][name]
                assert mine.dtype.name == str(tensor.dtype).split(".")[1]
                np.testing.assert_array_equal(mine.float().numpy(), tensor.float().numpy())
        assert found["bool"].tolist() == [True, False]
        for mine, other in zip(found["views"], value["views"], strict=True):
            np.testing.assert_array_equal(mine.numpy(), other.numpy())
        assert found["parameter"].is_parameter and not found["parameter"].requires_grad
        assert found["leaf"].requires_grad and not found["leaf"].is_parameter
        assert found["plain"] == value["plain"] and found["size"] == (4, 6)
        assert found["dtype"] is minidl.float16 and found["device"] == minidl.device("cpu")
        assert found["counter"] == value["counter"]


@FORMATS
def test_shared_storages_stay_shared(old):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    base = torch.zeros(6)
    found = load(_by_torch([base, base[2:4], base.view(2, 3)], old))
    found[0].add_(1)
    assert found[1].tolist() == [1, 1] and found[2].tolist() == [[1] * 3] * 2


@FORMATS
def test_an_optimiser_goes_on(old):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    theirs = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    other = torch.optim.Adam([theirs], lr=0.1)

    def step(param, optimizer, api):
        param.grad = api.ones_like(param) * param.detach()
        optimizer.step()

    for _ in range(3):
        step(theirs, other, torch)
    found = load(_by_torch({"p": theirs.detach(), "o": other.state_dict()}, old))
    mine = nn.Parameter(found["p"])
    optimizer = optim.Adam([mine])
    optimizer.load_state_dict(found["o"])
    for _ in range(3):
        step(theirs, other, torch)
        step(mine, optimizer, minidl)
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-5)


@FORMATS
def test_classes_are_refused_by_name(old):
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    for value, name in (
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ({"a": np.ones(2)}, "numpy"),
        (torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage"),
        (collections.defaultdict(list), "collections.defaultdict"),
    ):
        with pytest.raises(UnsupportedError, match=name):
            load(_by_torch(value, old))


def test_our_files_are_read_by_others(tmp_path):
    pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    from safetensors.torch import load_file

    state = {"w": minidl.arange(6.0).view(2, 3).t(), "h": minidl.ones(2, dtype=minidl.bfloat16)}
    minidl.save(state, tmp_path / "state")
    found = load_file(tmp_path / "state")
    np.testing.assert_array_equal(found["w"].numpy(), state["w"].numpy())
    assert str(found["h"].dtype) == "torch.bfloat16" and found["h"].sum() == 2


# ---------------------------------------------------------------- hostile files, made by hand


class _Reduced:
    """Pickles as a call of whatever it is told."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def zipped(pickled, *, compress=False, storages=None, order=sys.byteorder, **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        archive.writestr("archive/data.pkl", pickled, kind)
        archive.writestr("archive/byteorder", order)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def streamed(pickled, keys=(), storages=b""):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": sys.byteorder == "little"}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    return head + pickled + pickle.dumps(list(keys), 2) + storages


def op(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def storage(key="0", count=4):
    return (b"(" + text("storage") + op("torch", "FloatStorage") + text(key) + text("cpu")
            + integer(count) + b"tQ")  # fmt: skip


def tensor(offset, size, stride, **given):
    def numbers(values):
        return b"(" + b"".join(map(integer, values)) + b"t"

    return (b"\x80\x02" + op("torch._utils", "_rebuild_tensor_v2") + b"(" + storage(**given)
            + integer(offset) + numbers(size) + numbers(stride) + b"\x89NtR.")  # fmt: skip


def test_a_tensor_made_by_hand():
    numbers = np.arange(4, dtype=np.float32).tobytes()
    found = load(zipped(tensor(1, [3], [1]), storages={"0": numbers}))
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, [5], [1]), (1, [4], [1]), (0, [2, 2], [3, 1]), (-1, [2], [1]), (0, [2], [-1]),
     (0, [-2], [1]), (0, [2], [1, 1]), (9, [0], [1]), (0, [2**62], [2**62]), (0, [2**40], [1])],
)  # fmt: skip
def test_windows_stay_inside_of_their_storage(offset, size, stride):
    with pytest.raises(ArgumentError):
        load(zipped(tensor(offset, size, stride), storages={"0": bytes(16)}))


def test_storages_are_no_larger_than_the_file():
    for count in (5, 2**40, -1):
        with pytest.raises(ArgumentError):
            load(zipped(tensor(0, [1], [1], count=count), storages={"0": bytes(16)}))
    with pytest.raises(ArgumentError):
        load(zipped(tensor(0, [1], [1]), storages={"1": bytes(16)}))
    old = tensor(0, [1], [1], count=2**40).replace(b"tQ", b"NtQ")
    with pytest.raises(ArgumentError, match="larger than the file"):
        load(streamed(old, ["0"], struct.pack("<q", 2**40)))


CALLS = [
    _Reduced(eval, "1"),
    _Reduced(print, "never"),
    _Reduced(__import__("os").system, "true"),
    _Reduced(getattr, "a", "b"),
    _Reduced(bytearray, 2**50),
    _Reduced(collections.deque, []),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: str(c.call[0]))
@pytest.mark.parametrize("wrap", [zipped, streamed])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_no_code_runs(call, wrap, protocol, capsys):
    with pytest.raises((UnsupportedError, ArgumentError)):
        load(wrap(pickle.dumps(call, protocol)))
    assert capsys.readouterr().out == ""


BOMBS = {
    "a long string": b"X\xff\xff\xff\x7f.",
    "a longer string": b"\x8d" + b"\xff" * 7 + b"\x7f.",
    "long bytes": b"\x8e" + b"\xff" * 7 + b"\x7f.",
    "a long number": b"\x8b\xff\xff\xff\x7f.",
    "a negative length": b"\x8b\xff\xff\xff\xff.",
    "a large memo": b"Nr\xff\xff\xff\xff.",
    "a frame": b"\x95" + b"\xff" * 7 + b"\x7f.",
    "digits": b"I" + b"1" * 100_000 + b"\n.",
    "depth": b"]" * 100_000 + b"a" * 99_999 + b".",
    "depth of tuples": b")" + b"\x85" * 100_000 + b".",
    "marks": b"(" * 100_000 + b"t" * 100_000 + b".",
    "nothing": b".",
    "an empty stack": b"0.",
    "no end": b"]",
    "an extension": b"\x82\x01.",
    "an instance": b"(ios\nsystem\n.",
    "a build": b"]}b.",
    "a call of a number": b"K\x01)R.",
    "a persistent number": b"K\x01Q.",
    "a protocol": b"\x80\xff.",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("wrap", [zipped, streamed])
def test_bombs_are_refused_in_little_memory(name, wrap):
    data = wrap(BOMBS[name])
    tracemalloc.start()
    try:
        load(data)
    except (ArgumentError, UnsupportedError):
        pass
    else:
        assert (
            name.split()[-1] in ("depth", "marks", "memo") or "depth" in name
        )  # harmless: nothing here recurses
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000


NESTED = b")" + b"2\x86" * 60  # (), then 60 times the pair of what is there and itself


@pytest.mark.parametrize(
    "pickled",
    [
        b"}" + NESTED + b"K\x01s.",
        b"}(" + NESTED + b"K\x01u.",
        b"(" + NESTED + b"K\x01d.",
        b"\x8f(" + NESTED + b"\x90.",
        b"(" + NESTED + b"\x91.",
        b"cbuiltins\nset\n](" + NESTED + b"e\x85R.",
        b"ccollections\nOrderedDict\n](" + NESTED + b"K\x01\x86e\x85R.",
    ],
)
@pytest.mark.parametrize("wrap", [zipped, streamed])
def test_keys_that_take_ages_to_hash_are_refused(pickled, wrap):
    with pytest.raises(ArgumentError, match="a tuple as a key"):
        load(wrap(pickled))


def test_archives_that_are_none():
    good = pickle.dumps([1], 2)
    assert load(zipped(good)) == [1]
    for data in (
        zipped(good, compress=True),
        zipped(good)[:-10],
        zipped(good).replace(b"data.pkl", b"data.pk2"),
        zipped(good, **{"other/data.pkl": b""}),
        b"PK\x03\x04",
        streamed(good, ["0"]),
        streamed(good)[:20],
        streamed(good).replace(b"\xe9\x03", b"\xe8\x03"),
    ):
        with pytest.raises(ArgumentError):
            load(data)
    with pytest.raises(UnsupportedError, match="byte order"):
        load(zipped(good, order="big" if sys.byteorder == "little" else "little"))


def test_a_flipped_byte_is_noticed():
    data = bytearray(zipped(tensor(0, [4], [1]), storages={"0": bytes(range(16))}))
    at = bytes(data).index(bytes(range(16)))
    data[at + 3] ^= 1
    with pytest.raises(ArgumentError, match="checksum"):
        load(bytes(data))


PICKLE = tensor(0, [2, 2], [2, 1])
FILES = [
    zipped(PICKLE, storages={"0": bytes(16)}),
    streamed(PICKLE.replace(b"tQ", b"NtQ"), ["0"], struct.pack("<q", 4) + bytes(16)),
    streamed(pickle.dumps({"a": [1, 2.5, (None, "x")], 3: {b"y": {1}}}, 2)),
]


@given(st.data())
def test_damaged_files_are_refused(data):
    content = bytearray(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.integers(0, 3)) == 3:
        del content[data.draw(st.integers(5, len(content))) :]
    with contextlib.suppress(ArgumentError, UnsupportedError):
        load(bytes(content))


_codes = [code.code.encode("latin1") for code in pickletools.opcodes]


@given(st.lists(st.sampled_from(_codes) | st.binary(max_size=9), max_size=40))
def test_random_operations_are_refused(parts):
    for wrap in (zipped, streamed):
        with contextlib.suppress(ArgumentError, UnsupportedError):
            load(wrap(b"\x80\x02" + b"".join(parts) + b"."))

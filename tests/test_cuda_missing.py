"""minidl.cuda where there is no GPU: what it says, and that nothing breaks before it is used."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest

import minidl
from minidl import cuda
from minidl.errors import DeviceError


def _raises(text: str) -> Callable:
    def count() -> int:
        raise RuntimeError(text)

    return count


@pytest.mark.parametrize(
    ("version", "count", "said"),
    [
        ("14.2.0", lambda: 2, None),
        ("15.0.0a1", lambda: 1, None),
        ("13.6.0", lambda: 1, "older than 14.2: pip install"),
        ("14.2.0", lambda: 0, "finds no GPU"),
        ("14.2.0", _raises("cudaErrorNoDevice: no CUDA-capable\ndevice"), "finds no GPU or no"),
        ("14.2.0", _raises("cudaErrorInsufficientDriver: x"), "no fitting driver"),
        ("14.2.0", _raises("libnvrtc.so.13: cannot open"), "does not work here: libnvrtc"),
    ],
)
def test_why_there_is_none(
    version: str, count: Callable, said: str | None, monkeypatch: pytest.MonkeyPatch
):
    cupy = types.ModuleType("cupy")
    cupy.__version__ = version  # type: ignore[attr-defined]
    runtime = types.SimpleNamespace(getDeviceCount=count)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    found = cuda.missing.__wrapped__()
    if said is None:
        assert found is None
    else:
        assert found is not None and said in found and "\n" not in found


def test_without_a_gpu():
    if cuda.is_available():
        pytest.skip("needs a machine without a GPU: this one has one")
    assert cuda.device_count() == 0
    why = cuda.missing()
    assert why and "\n" not in why and cuda.describe() == f"none: {why}"
    for call in (
        cuda.current_device,
        cuda.current_stream,
        cuda.default_stream,
        cuda.get_device_name,
        cuda.get_device_properties,
        cuda.graph_pool_handle,
        cuda.max_memory_allocated,
        cuda.mem_get_info,
        cuda.memory_allocated,
        cuda.memory_reserved,
        cuda.synchronize,
        cuda.table,
        cuda.Event().record,
        cuda.CUDAGraph().capture_begin,
        cuda.Stream,
        lambda: cuda.device(0),
        lambda: cuda.graph(cuda.CUDAGraph()),
        lambda: cuda.set_device(0),
        lambda: cuda.pinned_copy(minidl.ones(2).numpy()),
    ):
        with pytest.raises(DeviceError) as caught:
            call()
        assert str(caught.value) == f"there is no device 'cuda' here: {why}"


def test_what_programs_call_without_looking():
    if cuda.is_available():
        pytest.skip("needs a machine without a GPU: this one has one")
    state = minidl.get_rng_state().tolist()
    cuda.manual_seed(3)
    cuda.manual_seed_all(3)
    cuda.empty_cache()
    assert minidl.get_rng_state().tolist() == state
    assert not cuda.is_current_stream_capturing()
    assert not cuda.is_pinned(minidl.ones(2).numpy())
    assert cuda.Event().query()


def test_what_is_left_out_names_the_alternative():
    with pytest.raises(NotImplementedError, match="CUDAGraph|cuda.graph"):
        cuda.make_graphed_callables(None, ())
    with pytest.raises(NotImplementedError, match="processes"):
        cuda.Event(interprocess=True)

"""Starting kernels on a GPU, as far as that can be seen without one."""

from __future__ import annotations

import types
from typing import Any

import pytest

from minidl.backends.native_cuda import launch


class _Function:
    """A kernel of CuPy's that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.started: list[int] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes":
            self.asked.append(value)
        else:
            super().__setattr__(name, value)

    def __call__(self, grid: tuple, block: tuple, given: tuple, shared_mem: int) -> None:
        self.started.append(shared_mem)


def _cupy(driver: int = 13000, major: int = 9) -> Any:
    runtime = types.SimpleNamespace(
        getDevice=lambda: 0,
        getDeviceCount=lambda: 1,
        driverGetVersion=lambda: driver,
        getDeviceProperties=lambda place: {"major": major, "sharedMemPerBlockOptin": 232448},
    )
    return types.SimpleNamespace(RawModule=None, cuda=types.SimpleNamespace(runtime=runtime))


def test_shared_memory_is_asked_for_where_a_kernel_has_some_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
):
    # 48 KiB are of the kernel's own and the dynamic memory together: a row of 12,288 floats
    # beside the words of a reduction is more
    monkeypatch.setattr(launch, "cp", _cupy())
    machine, function = launch.Runtime(), _Function()
    monkeypatch.setattr(machine, "_load", lambda *_: function)
    for shared in (0, 46 * 1024):
        machine.start("softmax", "softmax_float32", 1, 32, shared, (1,))
    assert not function.asked
    for shared in (48 * 1024, 200 * 1024, 64 * 1024):
        machine.start("softmax", "softmax_float32", 1, 32, shared, (1,))
    assert function.asked == [232448 - 2048]
    assert function.started == [0, 46 * 1024, 48 * 1024, 200 * 1024, 64 * 1024]


@pytest.mark.parametrize(
    ("driver", "major", "machine"),
    [(13000, 9, "Compiled"), (13020, 8, "Compiled"), (12080, 9, "Runtime"), (13000, 7, "Runtime")],
)
def test_the_extension_serves_where_it_can_run(
    driver: int, major: int, machine: str, monkeypatch: pytest.MonkeyPatch
):
    extension = types.SimpleNamespace(
        runtime_version=13000, launch=None, find=None, load=None, kernels=dict
    )
    monkeypatch.setattr(launch, "cp", _cupy(driver, major))
    monkeypatch.setattr(launch, "_extension", extension)
    before = launch.use(None)
    try:
        found = launch.missing()
        chosen = launch.use(before)
        if machine == "Runtime" and not (launch._PACKAGE / "_kernels").is_dir():
            assert found and "minidl._cuda needs" in found
        else:
            assert found is None and type(chosen).__name__ == machine
    finally:
        launch.use(before)


def test_launch_refuses_what_is_no_handle():
    extension = pytest.importorskip("minidl._cuda")
    handle = extension.find("softmax_float32")
    for bad in (0, 1, handle + 8, -1, 2**70, 1.5, None, "x"):
        with pytest.raises(ValueError, match="handle"):
            extension.launch(bad, 1, 32, 0, 0, *[0] * 8)
    for given in ((0, 32, 0, 0), (2**31, 32, 0, 0), (1, 0, 0, 0), (1, 1024, 0, 0)):
        with pytest.raises(ValueError, match="blocks of"):
            extension.launch(handle, *given, *[0] * 8)
    for given in ((-1, 32, 0, 0), (2**70, 32, 0, 0), (1, 32, 0, 2**70)):
        with pytest.raises(OverflowError):
            extension.launch(handle, *given, *[0] * 8)
    with pytest.raises(TypeError):
        extension.launch(handle, 1, 32, 0, 0, None, *[0] * 7)
    with pytest.raises(ValueError, match="fields"):
        extension.launch(handle, 1, 32, 0, 0, 1)

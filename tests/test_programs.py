"""Whole programs in `programs/`: the losses of 20 steps on minidl are those on PyTorch."""

import numpy as np
import pytest
from programs import NAMES, load

from minidl.backends import use_backend

STEPS, LONGER = 20, 100
BACKENDS = ("reference", "native")


def run(
    name: str, library: str, state: dict | None = None, steps: int = STEPS
) -> tuple[list[float], dict]:
    """The losses, and the weights at the start as NumPy arrays."""
    program = load(name, library)
    program.torch.manual_seed(0)
    threads = program.torch.get_num_threads()
    program.torch.set_num_threads(1)  # the programs are small, and tests run side by side
    net = program.model()
    if state is None:
        state = {key: np.array(value.numpy()) for key, value in net.state_dict().items()}
    else:
        assert list(net.state_dict()) == list(state)
        net.load_state_dict({key: program.torch.tensor(value) for key, value in state.items()})
    try:
        return list(program.train(net, np.random.default_rng(0), steps)), state
    finally:
        program.torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # PyTorch's, of its own default
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_on_pytorch(name, backend):
    pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")
    theirs, state = run(name, "torch")
    with use_backend(backend):
        ours, _ = run(name, "minidl", state)
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall(name):
    losses, _ = run(name, "minidl", steps=LONGER)
    assert len(losses) == LONGER and np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_only_import_lines_change():
    program = load("gpt")
    assert program.torch.__name__ == "minidl" and program.F.__name__ == "minidl.nn.functional"

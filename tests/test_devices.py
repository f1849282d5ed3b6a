"""Tensors on a second device, on a stand-in for CuPy where there is no GPU."""

import copy
import io
import pickle

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.errors import DeviceError, ShapeError
from minidl.testing import standin


@pytest.fixture
def gpu():
    """A device "cuda" without a GPU."""
    with standin.installed() as table:
        yield table


def test_there_and_back(gpu):
    x = minidl.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.to("cuda")
    assert type(y.array) is gpu.ndarray and y.is_cuda and not x.is_cuda
    assert str(y.device) == "cuda:0" and y.get_device() == 0
    assert y.to("cuda") is y and y.to(y) is y and x.to("cpu") is x
    assert minidl.equal(y.cpu(), x) and y.tolist() == x.tolist() and y[1, 1].item() == 4
    assert repr(y) == "tensor([[1., 2.],\n        [3., 4.]], device='cuda:0')"


def test_gradients_cross(gpu):
    x = minidl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x.cuda() * minidl.tensor([3.0, 4.0, 5.0], device="cuda")).sum()
    y.backward()
    assert type(x.grad.array) is np.ndarray and x.grad.tolist() == [3, 4, 5]


def test_leaf_there(gpu):
    x = minidl.ones(3, 4, device="cuda", requires_grad=True)
    (x[1:] * 2 + x.exp()[0]).mean().backward(retain_graph=True)
    assert x.grad.is_cuda and x.grad.shape == (3, 4)
    g = x.grad
    (x * 3).sum().backward()
    assert x.grad is g


def test_second_order(gpu):
    x = minidl.tensor([0.5, 0.25], device="cuda", requires_grad=True)
    (first,) = minidl.autograd.grad(x.tanh().sum(), x, create_graph=True)
    (second,) = minidl.autograd.grad(first.sum(), x)
    t = np.tanh([0.5, 0.25])
    np.testing.assert_allclose(second.cpu().numpy(), -2 * t * (1 - t * t), rtol=1e-6)


def test_mixed_devices(gpu):
    x = minidl.ones(3, device="cuda")
    with pytest.raises(
        DeviceError, match=r"\[add\] all tensors must be on one device.*cuda:0, cpu"
    ):
        x + minidl.ones(3)
    with pytest.raises(DeviceError, match=r"\[mul\]"):
        minidl.ones(3) * x
    assert (x + minidl.tensor(2.0)).tolist() == [3, 3, 3]  # single numbers follow, as in PyTorch
    assert (minidl.tensor(2.0) - x).tolist() == [1, 1, 1]
    with pytest.raises(DeviceError):
        x * minidl.tensor(2.0, requires_grad=True)
    with pytest.raises(DeviceError, match="grad must be on the tensor's device"):
        x.grad = minidl.ones(3)
    with pytest.raises(DeviceError, match="gradient must be on the device"):
        (x.requires_grad_() * 2).backward(minidl.ones(3))


def test_integers_and_indices(gpu):
    x = minidl.arange(6, device="cuda").reshape(2, 3)
    assert x.is_cuda and (x + 1).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert x[minidl.tensor([1, 0])].tolist() == [[3, 4, 5], [0, 1, 2]]
    assert x[minidl.tensor([1], device="cuda")].tolist() == [[3, 4, 5]]


MAKERS = {
    "zeros": lambda **o: minidl.zeros(2, 3, **o),
    "ones": lambda **o: minidl.ones(2, **o),
    "empty": lambda **o: minidl.empty(2, **o),
    "full": lambda **o: minidl.full((2,), 7, **o),
    "eye": lambda **o: minidl.eye(3, **o),
    "arange": lambda **o: minidl.arange(3, **o),
    "linspace": lambda **o: minidl.linspace(0, 1, 5, **o),
    "rand": lambda **o: minidl.rand(3, **o),
    "randn": lambda **o: minidl.randn(3, **o),
    "randint": lambda **o: minidl.randint(0, 5, (3,), **o),
    "randperm": lambda **o: minidl.randperm(5, **o),
    "tril_indices": lambda **o: minidl.tril_indices(3, 3, **o),
    "as_tensor": lambda **o: minidl.as_tensor([1.0], **o),
    "normal": lambda **o: minidl.normal(0.0, 1.0, (3,), **o),
}


@pytest.mark.parametrize("name", MAKERS)
def test_created_there(gpu, name):
    made = MAKERS[name](device="cuda")
    likes = [minidl.zeros_like(made), minidl.rand_like(made, dtype=minidl.float32)]
    likes += [made.new_zeros(2), made.new_tensor([1]), made.clone(), made.detach()]
    assert all(x.is_cuda for x in (made, *likes))
    assert not minidl.zeros_like(made, device="cpu").is_cuda


def test_random_numbers_are_the_same(gpu):
    for draw in (minidl.rand, minidl.randn):
        minidl.manual_seed(3)
        here = draw(50)
        minidl.manual_seed(3)
        np.testing.assert_allclose(draw(50, device="cuda").cpu().numpy(), here.numpy(), rtol=1e-6)
    x = minidl.ones(40, device="cuda")
    minidl.manual_seed(1)
    there = nn.functional.dropout(x, 0.5)
    minidl.manual_seed(1)
    assert there.tolist() == nn.functional.dropout(x.cpu(), 0.5).tolist()


def test_in_place(gpu):
    x = minidl.zeros(2, 3, device="cuda")
    x.add_(1).mul_(minidl.full((3,), 2.0, device="cuda"))
    x[0] = 5
    x[1].copy_(minidl.tensor([1.0, 2.0, 3.0]))  # copy_ crosses devices
    x[1, 0] += 4
    assert x.tolist() == [[5, 5, 5], [5, 2, 3]]
    y = x.clone().requires_grad_() * 1
    y[0].mul_(2)
    y.sum().backward()
    with pytest.raises(minidl.errors.MinidlError, match="read-only"):
        minidl.ones(1, 3, device="cuda").expand(2, 3).add_(1)


def test_no_gradient_on_another_device(gpu):
    v = minidl.tensor([7.0, 8.0], requires_grad=True)
    b = minidl.zeros(3, device="cuda")
    with pytest.raises(DeviceError, match="without its history"):
        b[1:] = v
    b[1:] = v.cuda()
    b.sum().backward()
    assert type(v.grad.array) is np.ndarray
    a = minidl.ones(2, device="cuda", requires_grad=True)
    a.register_hook(lambda g: g.cpu())
    with pytest.raises(DeviceError, match="off its tensor's device"):
        (a * 2).sum().backward()


def test_indices_of_another_device(gpu):
    c, g = minidl.zeros(4), minidl.zeros(4, device="cuda")
    for call in (
        lambda: c[minidl.tensor([0, 1], device="cuda")],
        lambda: c[g > 1.5],
        lambda: c.__setitem__([0, 1], g[:2]),
        lambda: g.__setitem__([0, 1], minidl.tensor([5.0, 6.0])),
        lambda: minidl.quantile(c, minidl.tensor([0.5], device="cuda")),
    ):
        with pytest.raises(DeviceError):
            call()
    with minidl.no_grad():
        s = minidl.tensor(3.0, requires_grad=True)
        assert (minidl.ones(2, device="cuda") * s).tolist() == [3, 3]


def test_other_gpus(gpu):
    with pytest.raises(minidl.errors.MinidlError):
        minidl.ones(2, device="cuda").to("cuda:1")


def test_the_copy_has_memory_of_its_own(gpu):
    x = minidl.ones(3)
    x.cuda().add_(1)
    assert x.tolist() == [1, 1, 1]


def test_bad_values_are_told_at_the_next_read(gpu):
    weight, index = minidl.ones(4, 2, device="cuda"), minidl.tensor([1, 9], device="cuda")
    out = nn.functional.embedding(index, weight)
    with pytest.raises(minidl.errors.OutOfRangeError):
        out.tolist()
    assert nn.functional.embedding(index.clamp(max=3), weight).tolist() == [[1, 1], [1, 1]]


def test_modules_move_and_train(gpu):
    minidl.manual_seed(0)
    here = nn.Sequential(
        nn.Linear(3, 8), nn.GELU(), nn.LayerNorm(8), nn.Dropout(0.1), nn.Linear(8, 2)
    )
    there = copy.deepcopy(here).to("cuda")
    assert all(p.is_cuda for p in there.parameters())
    assert there.to(minidl.float64)[0].weight.is_cuda  # a cast does not move
    there.float()
    x, y = minidl.randn(16, 3), minidl.randint(0, 2, (16,))
    losses = []
    for model, where in ((here, "cpu"), (there, "cuda")):
        minidl.manual_seed(7)
        optimizer = optim.AdamW(model.parameters(), lr=0.05)
        own = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(where)), y.to(where))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            own += [loss.item(), float(norm)]
        losses.append(own)
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)


def test_saved_and_copied(gpu, tmp_path):
    x = nn.Parameter(minidl.tensor([1.0, 2.0], device="cuda"))
    again = pickle.loads(pickle.dumps(x))
    assert again.is_cuda and isinstance(again, nn.Parameter) and again.tolist() == [1, 2]
    assert copy.deepcopy(x).is_cuda
    buffer = io.BytesIO()
    minidl.save({"a": x, "b": x, "c": x.detach()[:1]}, buffer)
    buffer.seek(0)
    state = minidl.load(buffer)
    assert not state["a"].is_cuda and state["a"].tolist() == [1, 2]
    assert state["a"].data_ptr() == state["b"].data_ptr()  # kept tied
    buffer.seek(0)
    assert minidl.load(buffer, map_location="cuda")["a"].is_cuda


def test_numpy_asks_for_the_copy(gpu):
    x = minidl.ones(2, device="cuda")
    with pytest.raises(DeviceError, match=r"needs \.cpu\(\)"):
        x.numpy()
    with pytest.raises(DeviceError):
        np.asarray(x)
    assert x.numpy(force=True).tolist() == [1, 1]
    with pytest.raises(DeviceError, match="on the CPU"):
        x.pin_memory()


def test_errors_name_shapes(gpu):
    with pytest.raises(ShapeError, match=r"\[add\] shapes must broadcast, got \(2,\), \(3,\)"):
        minidl.ones(2, device="cuda") + minidl.ones(3, device="cuda")


def test_nothing_without_a_gpu():
    if minidl.cuda.is_available():
        pytest.skip("needs a machine without a GPU: this one has one")
    for call in (
        lambda: minidl.zeros(2, device="cuda"),
        lambda: minidl.zeros(2).cuda(),
        lambda: minidl.tensor([1.0], device="cuda:0"),
        lambda: nn.Linear(2, 2).to("cuda"),
        lambda: minidl.rand(2, device="cuda"),
    ):
        with pytest.raises(DeviceError) as caught:
            call()
        assert "cuda" in str(caught.value) and "\n" not in str(caught.value)

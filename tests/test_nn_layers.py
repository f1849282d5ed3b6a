"""Layers, containers, losses, initialisers, clipping: what needs no other library to check."""

import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, strategies as st

import minidl
import minidl.ops as ops
from minidl import dtypes, nn
from minidl.errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError
from minidl.nn import functional
from minidl.nn.linear import activation_after
from minidl.nn.normalization import norm_of_sum
from minidl.nn.transformer import generate_square_subsequent_mask


def rand(*shape: int, seed: int = 0):
    return ops.tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


# Containers ------------------------------------------------------------------------------------


def names(module) -> list[str]:
    return [name for name, _ in module.named_children()]


def test_sequential_behaves_like_a_list():
    a, b, c, d = (nn.Linear(2, 2) for _ in range(4))
    net = nn.Sequential(a, b)
    assert net.append(c) is net and list(net) == [a, b, c] and len(net) == 3
    net.insert(1, d)
    assert list(net) == [a, d, b, c] and names(net) == ["0", "1", "2", "3"]
    assert net[-1] is c and net.pop(0) is a and list(net) == [d, b, c]
    del net[1]
    assert list(net) == [d, c] and names(net) == ["0", "1"]
    net[0] = a
    net.extend([b, d])
    assert list(net) == [a, c, b, d]
    part = net[1:3]
    assert type(part) is nn.Sequential and list(part) == [c, b]
    del net[1:]
    assert list(net) == [a]
    x = rand(3, 2)
    np.testing.assert_array_equal(nn.Sequential(a, b)(x).detach(), b(a(x)).detach())
    assert nn.Sequential()(x) is x


def test_sequential_with_names():
    net = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), act=nn.ReLU()))
    assert names(net) == ["first", "act"] and net.act is net[1]
    assert list(net.state_dict()) == ["first.weight", "first.bias"]
    assert names(net[1:]) == ["act"]
    del net[0]
    assert names(net) == ["0"]  # renumbered, as PyTorch does


def test_module_list():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert list(layers.state_dict())[:2] == ["0.weight", "0.bias"]
    assert list(layers[::2]) == [layers[0], layers[2]]
    assert len(layers + [nn.ReLU()]) == 4
    assert repr(nn.ModuleList()) == "ModuleList()"
    with pytest.raises(OutOfRangeError, match=r"\[ModuleList\] index must lie in \[-3, 3\), got 3"):
        layers[3]
    with pytest.raises(TypeError):
        layers["0"]
    with pytest.raises(DTypeError):
        layers.insert(0, 3)
    with pytest.raises(DTypeError):
        layers.append(None.__class__)


def test_module_dict():
    table = nn.ModuleDict({"a": nn.ReLU()})
    table["b"] = nn.Linear(1, 1)
    table.update([("c", nn.Tanh())])
    assert list(table) == ["a", "b", "c"] and "b" in table and len(table) == 3
    assert list(table.state_dict()) == ["b.weight", "b.bias"]
    assert table.pop("a").__class__ is nn.ReLU and list(table.keys()) == ["b", "c"]
    del table["c"]
    with pytest.raises(KeyError):
        table["c"]
    with pytest.raises(KeyError, match="already exists"):
        table["keys"] = nn.ReLU()
    for wrong in (3, [nn.ReLU()], [("a", nn.ReLU(), 3)]):
        with pytest.raises(DTypeError, match=r"\[ModuleDict\].*pairs"):
            table.update(wrong)
    table.clear()
    assert len(table) == 0 and list(table.parameters()) == []


# Layers ----------------------------------------------------------------------------------------


def test_functional_has_the_operators():
    for name in functional.__all__:
        assert getattr(functional, name) is getattr(ops, name)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: nn.Linear(-1, 2), "negative"),
        (lambda: nn.Dropout(1.5), r"p must lie in \[0, 1\], got 1.5"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx"),
        (lambda: nn.Embedding(3, 2, _weight=ops.ones((2, 3))), r"\(3, 2\), got \(2, 3\)"),
        (lambda: nn.MultiheadAttention(6, 4), "multiple"),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="swish"), "activation"),
        (lambda: nn.TransformerEncoder(nn.ReLU(), -1), "num_layers"),
        (lambda: nn.Dropout("half"), "p must lie"),
        (lambda: nn.Hardtanh(1.0, -1.0), "min_val must be below max_val, got 1.0, -1.0"),
        (lambda: nn.Sequential(nn.ReLU()) * 0, "factor must be positive"),
    ],
)
def test_bad_sizes_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


@pytest.mark.parametrize(
    ("make", "operator"),
    [
        (lambda: nn.Linear("4", 3), "Linear"),
        (lambda: nn.Linear(4.0, 3), "Linear"),
        (lambda: nn.LayerNorm(4.0), "LayerNorm"),
        (lambda: nn.RMSNorm((3, "4")), "RMSNorm"),
        (lambda: nn.MultiheadAttention("8", 2), "MultiheadAttention"),
        (lambda: nn.TransformerEncoder(nn.ReLU(), 2.0), "TransformerEncoder"),
        (lambda: nn.Embedding(3, 2, _weight=np.ones((3, 2))), "Embedding"),
        (lambda: nn.Embedding.from_pretrained(np.ones((3, 2))), "Embedding.from_pretrained"),
        (lambda: nn.init.zeros_(nn.Linear(2, 2)), "constant_"),
        (lambda: nn.init.xavier_uniform_(np.ones((2, 2))), "init"),
        (lambda: nn.init.trunc_normal_(ops.tensor([1, 2])), "trunc_normal_"),
        (lambda: nn.init.orthogonal_(ops.tensor([[1, 2]])), "orthogonal_"),
        (lambda: nn.utils.clip_grad_norm_(nn.Linear(2, 2), 1.0), "clip_grad"),
        (lambda: nn.utils.clip_grad_value_([None], 1.0), "clip_grad"),
    ],
)
def test_wrong_types_are_refused(make, operator):
    with pytest.raises(DTypeError, match=rf"^\[{operator}\]"):
        make()


def test_sizes_may_be_numpy_integers():
    norm = nn.LayerNorm(np.int64(3))
    assert repr(norm.normalized_shape) == "(3,)" and norm(rand(2, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "way_out"),
    [
        (lambda: nn.Embedding(3, 2, sparse=True), "sparse=False"),
        (lambda: nn.MSELoss(size_average=True), "reduction="),
        (lambda: nn.CrossEntropyLoss(reduce=False), "reduction="),
        (lambda: nn.Hardtanh(min_value=0.0), "min_val"),
    ],
)
def test_what_is_left_out_says_so(make, way_out):
    with pytest.raises(NotImplementedError, match=way_out):
        make()


def test_linear_refuses_a_wrong_input():
    with pytest.raises(ShapeError, match=r"\[linear\].*\(2, 5\).*\(3, 4\)"):
        nn.Linear(4, 3)(rand(2, 5))


def test_linear_takes_any_leading_axes():
    fc = nn.Linear(4, 3)
    for shape in [(4,), (0, 4), (2, 4), (2, 3, 4)]:
        assert fc(rand(*shape)).shape == (*shape[:-1], 3)


def test_embedding_padding_row():
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert table.padding_idx == 4 and not table.weight.detach().numpy()[4].any()
    table(ops.tensor([[4, 1], [1, 0]])).sum().backward()
    grad = table.weight.grad.numpy()
    assert grad[:, 0].tolist() == [1.0, 2.0, 0.0, 0.0, 0.0]


def test_embedding_from_pretrained():
    rows = rand(3, 2)
    frozen = nn.Embedding.from_pretrained(rows)
    assert not frozen.weight.requires_grad and frozen.weight.storage is rows.storage
    assert nn.Embedding.from_pretrained(rows, freeze=False).weight.requires_grad
    with pytest.raises(ShapeError, match="2 axes"):
        nn.Embedding.from_pretrained(rand(3))


def test_dropout_draws_only_in_training():
    ops.manual_seed(0)
    layer, x = nn.Dropout(0.25), ops.ones((400, 100))
    kept = layer(x).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}
    assert abs((kept == 0).mean() - 0.25) < 0.01
    assert layer.eval()(x) is x


def test_flatten_and_identity():
    x = rand(2, 3, 4)
    assert nn.Flatten()(x).shape == (2, 12) and nn.Flatten(0, 1)(x).shape == (6, 4)
    assert nn.Identity(3, any=4)(x) is x


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.ReLU(), "ReLU()"),
        (nn.ReLU(inplace=True), "ReLU(inplace=True)"),
        (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
        (nn.ELU(), "ELU(alpha=1.0)"),
        (nn.GELU("tanh"), "GELU(approximate='tanh')"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Softmax(1), "Softmax(dim=1)"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (nn.Dropout(), "Dropout(p=0.5, inplace=False)"),
        (nn.Embedding(3, 2, 1), "Embedding(3, 2, padding_idx=1)"),
        (nn.LayerNorm(4), "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)"),
        (nn.RMSNorm(4), "RMSNorm((4,), eps=None, elementwise_affine=True)"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
    ],
)
def test_repr(module, text):
    assert repr(module) == text


def test_inplace_activation_writes_its_input():
    x = ops.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x) is x and x.tolist() == [0.0, 2.0]


# Attention -------------------------------------------------------------------------------------


def masks(length: int, batch: int, seed: int):
    rng = np.random.default_rng(seed)
    forbidden = rng.random((length, length)) < 0.3
    np.fill_diagonal(forbidden, False)
    lengths = rng.integers(1, length + 1, batch)
    return forbidden, np.arange(length)[None] >= lengths[:, None]


@given(
    heads=st.sampled_from([1, 2, 4]),
    length=st.integers(1, 7),
    batch=st.integers(1, 3),
    attn=st.sampled_from([None, "bool", "float"]),
    padding=st.sampled_from([None, "bool", "float"]),
    seed=st.integers(0, 99),
)
def test_fused_and_plain_attention_agree(heads, length, batch, attn, padding, seed):
    layer = nn.MultiheadAttention(8, heads, batch_first=True).double()
    x = ops.tensor(np.random.default_rng(seed).normal(size=(batch, length, 8)))
    forbidden, pad = masks(length, batch, seed)
    # Position 0 is open to all, so that no row is forbidden altogether.
    forbidden[:, 0] = False

    def form(mask, kind):
        if kind is None:
            return None
        return ops.tensor(mask if kind == "bool" else np.where(mask, -np.inf, 0.5))

    options = {"attn_mask": form(forbidden, attn), "key_padding_mask": form(pad, padding)}
    plain, weights = layer(x, x, x, **options)
    fused, none = layer(x, x, x, need_weights=False, **options)
    assert none is None and weights.shape == (batch, length, length)
    np.testing.assert_allclose(fused.detach().numpy(), plain.detach().numpy(), atol=1e-12)
    sums = weights.sum(-1).detach().numpy()
    np.testing.assert_allclose(sums, np.ones_like(sums), atol=1e-12)
    if attn is not None:
        assert not weights.detach().numpy()[:, forbidden].any()


@pytest.mark.parametrize("need_weights", [False, True])
def test_is_causal_without_a_mask_builds_it(need_weights):
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double()
    x = ops.tensor(np.random.default_rng(0).normal(size=(2, 5, 4)))
    mask = generate_square_subsequent_mask(5, dtype=dtypes.float64)
    expected, _ = layer(x, x, x, attn_mask=mask, need_weights=need_weights)
    found, _ = layer(x, x, x, is_causal=True, need_weights=need_weights)
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=1e-12)


def test_attention_dropout_only_in_training():
    layer = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = rand(6, 3, 4)
    for need_weights in (False, True):
        first, second = (layer(x, x, x, need_weights=need_weights)[0].detach() for _ in range(2))
        assert not np.array_equal(first.numpy(), second.numpy())
    layer.eval()
    first, second = (layer(x, x, x)[0].detach() for _ in range(2))
    assert np.array_equal(first.numpy(), second.numpy())


@pytest.mark.parametrize(
    ("shapes", "options", "rule"),
    [
        ([(2, 3, 4), (3, 4), (3, 4)], {}, "all have 2 axes, or all 3"),
        ([(2, 3, 5), (2, 3, 4), (2, 3, 4)], {}, "last axes must be 4, 4, 4"),
        ([(2, 3, 4), (2, 5, 4), (2, 6, 4)], {}, "key and value must agree"),
        ([(2, 3, 4), (1, 5, 4), (1, 5, 4)], {}, "axis 0, the batch"),
        ([(2, 3, 4), (2, 5, 4), (2, 5, 4)], {"attn_mask": (3, 4)}, r"attn_mask.*\(3, 5\)"),
        ([(2, 3, 4), (2, 5, 4), (2, 5, 4)], {"key_padding_mask": (2, 3)}, r"\(2, 5\)"),
    ],
)
def test_attention_refuses_shapes_that_do_not_fit(shapes, options, rule):
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    masks = {name: ops.zeros(shape, dtype=dtypes.bool_) for name, shape in options.items()}
    with pytest.raises(ShapeError, match=rule):
        layer(*(rand(*shape) for shape in shapes), **masks)


@pytest.mark.parametrize("name", ["query", "key", "value", "attn_mask", "key_padding_mask"])
def test_attention_refuses_arrays(name):
    x = rand(1, 3, 4)
    inputs = {"query": x, "key": x, "value": x, name: np.ones((1, 3, 4))}
    with pytest.raises(DTypeError, match=f"{name} must be a Tensor.*got ndarray"):
        nn.MultiheadAttention(4, 2)(**inputs)
    if name == "attn_mask":
        with pytest.raises(DTypeError, match=f"{name} must be a Tensor.*got ndarray"):
            nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 1)(x, mask=np.ones((1, 1)))


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_float32_mask_serves_a_layer_in_16_bits(need_weights):
    layer, x = nn.MultiheadAttention(4, 2, batch_first=True).bfloat16(), rand(1, 3, 4).bfloat16()
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    found, _ = layer(x, x, x, attn_mask=mask, need_weights=need_weights)
    expected, _ = layer(x, x, x, attn_mask=mask < 0, need_weights=need_weights)
    assert found.dtype is dtypes.bfloat16 and found.tolist() == expected.tolist()


def test_attention_refuses_integer_masks():
    x = rand(1, 3, 4)
    with pytest.raises(DTypeError, match="attn_mask must be boolean"):
        nn.MultiheadAttention(4, 2, batch_first=True)(
            x, x, x, attn_mask=ops.zeros((3, 3), dtype=dtypes.int64)
        )


def test_a_causal_mask_is_recognised():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    net = nn.TransformerEncoder(layer, 2)
    seen = []
    for block in net.layers:
        block.register_forward_pre_hook(
            lambda m, a, k: seen.append(k["is_causal"]), with_kwargs=True
        )
    x = rand(2, 5, 4)
    causal = generate_square_subsequent_mask(5)
    first = net(x, mask=causal)
    net(x, mask=ops.tensor(np.triu(np.ones((5, 5), bool), 1)))
    net(x, mask=ops.zeros((5, 5)))
    net(x)
    assert seen == [True, True, True, True, False, False, False, False]
    second = net(x, mask=causal, is_causal=False)
    np.testing.assert_allclose(first.detach().numpy(), second.detach().numpy(), atol=1e-5)


def test_the_layers_of_an_encoder_are_independent_copies():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    net = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(4))
    assert net.layers[0].linear1.weight is not net.layers[1].linear1.weight
    assert net.layers[0] is not layer
    net(rand(5, 2, 4)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


# Initialisers ----------------------------------------------------------------------------------


def moments(tensor) -> tuple[float, float, float]:
    a = tensor.detach().numpy().astype(np.float64)
    return a.mean(), a.std(), np.abs(a).max()


def test_initial_distributions():
    ops.manual_seed(0)
    w = ops.empty((400, 300))
    uniform = lambda bound: (bound / math.sqrt(3), bound)  # noqa: E731 - (deviation, maximum)
    cases = [
        (lambda: nn.init.uniform_(w, -2, 2), *uniform(2)),
        (lambda: nn.init.normal_(w, 0, 3), 3, None),
        (lambda: nn.init.xavier_uniform_(w, gain=2), *uniform(2 * math.sqrt(6 / 700))),
        (lambda: nn.init.xavier_normal_(w), math.sqrt(2 / 700), None),
        (lambda: nn.init.kaiming_uniform_(w), *uniform(math.sqrt(6 / 300))),
        (lambda: nn.init.kaiming_uniform_(w, a=math.sqrt(5)), *uniform(1 / math.sqrt(300))),
        (lambda: nn.init.kaiming_normal_(w, mode="fan_out"), math.sqrt(2 / 400), None),
        (lambda: nn.init.kaiming_normal_(w, nonlinearity="linear"), 1 / math.sqrt(300), None),
        (lambda: nn.init.trunc_normal_(w, 0, 1, -1, 1), 0.5396, 1.0),
    ]
    for fill, deviation, largest in cases:
        assert fill() is w
        mean, std, top = moments(w)
        assert abs(mean) < 0.02 * deviation * 2
        assert std == pytest.approx(deviation, rel=0.02)
        if largest is not None:
            assert 0.99 * largest < top <= largest


def test_constant_initialisers():
    w = ops.empty((2, 3))
    assert nn.init.constant_(w, 4.0).tolist() == [[4.0] * 3] * 2
    assert nn.init.ones_(w).tolist() == [[1.0] * 3] * 2
    assert nn.init.zeros_(w).tolist() == [[0.0] * 3] * 2
    assert nn.init.eye_(w).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (4, 2, 3)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(ops.empty(shape, dtype=dtypes.float64), gain=2)
    flat = w.numpy().reshape(shape[0], -1)
    small = min(flat.shape)
    gram = flat @ flat.T if flat.shape[0] == small else flat.T @ flat
    np.testing.assert_allclose(gram, 4 * np.eye(small), atol=1e-12)


def test_initialisers_work_on_parameters_and_follow_a_generator():
    w = nn.Parameter(ops.empty((3, 3)))
    draws = []
    for _ in range(2):
        generator = ops.Generator().manual_seed(3)
        nn.init.kaiming_uniform_(w, generator=generator)
        draws.append(w.detach().numpy().copy())
    assert np.array_equal(*draws) and w.is_leaf and w.requires_grad


@pytest.mark.parametrize("dtype", dtypes.HALVES)
def test_truncated_normals_in_16_bits_have_no_outliers(dtype):
    w = nn.init.trunc_normal_(ops.empty((20_000,), dtype=dtype), std=0.02)
    _, deviation, largest = moments(w.float())
    assert deviation == pytest.approx(0.02, rel=0.03) and largest < 0.12


def test_initialisers_take_tensors_without_elements():
    for fill in (nn.init.xavier_uniform_, nn.init.kaiming_normal_, nn.init.orthogonal_):
        assert fill(ops.empty((0, 0))).shape == (0, 0)


def test_initialisers_refuse():
    with pytest.raises(ShapeError, match="2 axes"):
        nn.init.xavier_uniform_(ops.empty((3,)))
    with pytest.raises(ShapeError):
        nn.init.eye_(ops.empty((3,)))
    with pytest.raises(ShapeError):
        nn.init.orthogonal_(ops.empty((3,)))
    with pytest.raises(ArgumentError, match="fan_in"):
        nn.init.kaiming_normal_(ops.empty((3, 3)), mode="fan")
    with pytest.raises(ArgumentError, match="nonlinearity"):
        nn.init.calculate_gain("swish")
    with pytest.raises(ArgumentError, match="slope"):
        nn.init.calculate_gain("leaky_relu", "steep")
    with pytest.raises(ArgumentError, match="std must be positive"):
        nn.init.trunc_normal_(ops.empty((3,)), std=0.0)


def test_layers_start_from_their_distributions():
    ops.manual_seed(1)
    fc = nn.Linear(300, 400)
    assert moments(fc.weight)[2] <= 1 / math.sqrt(300)
    assert moments(fc.weight)[1] == pytest.approx(1 / math.sqrt(900), rel=0.02)
    assert moments(fc.bias)[2] <= 1 / math.sqrt(300) and moments(fc.bias)[1] > 0.02
    assert moments(nn.Embedding(300, 100).weight)[1] == pytest.approx(1, rel=0.02)
    attention = nn.MultiheadAttention(100, 2)
    assert moments(attention.in_proj_weight)[2] <= math.sqrt(6 / 400)
    assert not attention.in_proj_bias.detach().numpy().any()
    assert not attention.out_proj.bias.detach().numpy().any()


# Clipping --------------------------------------------------------------------------------------


def graded(*grads):
    params = [nn.Parameter(ops.zeros_like(ops.tensor(g))) for g in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = ops.tensor(grad)
    return params


def test_clip_grad_norm():
    params = graded([3.0, 0.0], [[4.0]])
    params.append(nn.Parameter(ops.ones((2,))))
    assert nn.utils.clip_grad_norm_(params, 1.0).item() == 5.0
    np.testing.assert_allclose(params[0].grad.numpy(), [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(params[1].grad.numpy(), [[0.8]], rtol=1e-6)
    assert nn.utils.clip_grad_norm_(iter(params), 10.0).item() == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(params[1].grad.numpy(), [[0.8]], rtol=1e-6)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0.0


def test_clipping_nothing_warns():
    params = iter(graded([3.0]))
    nn.utils.clip_grad_value_(params, 1.0)
    with pytest.warns(UserWarning, match="used up"):
        nn.utils.clip_grad_norm_(params, 1.0)


def test_clip_grad_norm_of_nonfinite_gradients():
    params = graded([math.nan, 1.0])
    with pytest.raises(RuntimeError, match="finite"):
        nn.utils.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.numpy()[1] == 1.0
    assert math.isnan(nn.utils.clip_grad_norm_(params[0], 1.0).item())
    assert np.isnan(params[0].grad.numpy()).all()


def test_clip_grad_value():
    params = graded([3.0, -0.5, -7.0])
    nn.utils.clip_grad_value_(params, 1)
    assert params[0].grad.tolist() == [1.0, -0.5, -1.0]


@pytest.mark.parametrize("value", [0.7, 1.8300176, -1e4])
def test_layer_norm_of_equal_elements_is_the_bias(value):
    x = ops.full((4, 5), value).requires_grad_()
    layer = nn.LayerNorm(5)
    y = layer(x)
    np.testing.assert_array_equal(y.detach().numpy(), 0)
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy(), 0)


def _between(layer, activation, x, hooked):
    """Output and gradients of a Sequential of two, with and without a hook on what is between."""
    net = nn.Sequential(layer, activation)
    seen = []
    handle = layer.register_forward_hook(lambda *_: seen.append(1)) if hooked else None
    x = x.detach().requires_grad_()
    net.zero_grad()
    out = net(x)
    (out * out).sum().backward()
    if handle is not None:
        handle.remove()
    assert len(seen) == hooked
    return [t.numpy(force=True) for t in (out, x.grad, *(p.grad for p in net.parameters()))]


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Tanh(),
        nn.Sigmoid(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_takes_the_activation_that_follows_it(activation, bias):
    layer, x = nn.Linear(40, 70, bias), rand(300, 40)
    assert activation_after(layer, activation) is not None
    fused, plain = (_between(layer, activation, x, hooked) for hooked in (False, True))
    np.testing.assert_array_equal(fused[0], plain[0])
    for a, b in zip(fused[1:], plain[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU()], ids=repr)
def test_only_what_gradients_need_is_guarded_behind_a_linear_map(activation):
    layer = nn.Linear(3, 4)
    net = nn.Sequential(layer, activation)

    def write(x):
        with minidl.no_grad():
            x.add_(1)

    x = rand(2, 3)
    want = minidl.autograd.grad(net(x.detach()).sum(), [layer.weight])[0]
    out = net(x.detach())
    write(layer.weight)  # only the gradient of the input needs it
    np.testing.assert_array_equal(minidl.autograd.grad(out.sum(), [layer.weight])[0], want)
    layer.weight.requires_grad_(False)
    x = rand(2, 3).requires_grad_()
    want = minidl.autograd.grad(net(x).sum(), [x])[0]
    out = net(x)
    write(x)  # only the gradient of the weight needs it
    np.testing.assert_array_equal(minidl.autograd.grad(out.sum(), [x])[0], want)
    want = minidl.autograd.grad(net(x).sum(), [x])[0]
    out = net(x)
    out.mul_(2)
    if type(activation) is nn.ReLU:  # its gradient is a function of the result
        with pytest.raises(GradientError, match="written in place"):
            out.sum().backward()
    else:
        np.testing.assert_allclose(minidl.autograd.grad(out.sum(), [x])[0], 2 * want, rtol=1e-6)


def test_linear_leaves_an_activation_alone_that_something_wants_to_see():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class Loud(nn.ReLU):
        def forward(self, input):
            return -super().forward(input)

    layer, hooked = nn.Linear(3, 4), nn.ReLU()
    hooked.register_forward_pre_hook(lambda module, args: None)
    for first, second in ((Doubled(3, 4), nn.ReLU()), (layer, Loud()), (layer, hooked)):
        assert activation_after(first, second) is None
        x = rand(2, 3)
        together = nn.Sequential(first, second)(x)
        np.testing.assert_array_equal(together.detach(), second(first(x)).detach())
    patched = nn.Linear(3, 4)
    patched.forward = lambda input: input.new_zeros(2, 4) - 1
    assert activation_after(patched, nn.ReLU()) is None
    assert nn.Sequential(patched, nn.ReLU())(rand(2, 3)).sum().item() == 0
    for kind in (nn.Linear, nn.ReLU):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "forward", lambda self, input: input)
            assert activation_after(layer, nn.ReLU()) is None
    assert activation_after(layer, nn.Softplus()) is None
    assert activation_after(nn.ReLU(), nn.ReLU()) is None
    with pytest.raises(ShapeError, match=r"1: \[linear_activation\] last axis of input"):
        nn.Sequential(nn.ReLU(), nn.Linear(3, 4), nn.ReLU())(rand(2, 5))


def test_layer_norm_of_a_sum_is_one_kernel_where_nothing_watches():
    norm, x, y = nn.LayerNorm(20), rand(6, 20), rand(6, 20, seed=1)
    seen = []
    fused = norm_of_sum(norm, x, y)
    handle = norm.register_forward_hook(lambda *_: seen.append(1))
    np.testing.assert_array_equal(fused.detach(), norm_of_sum(norm, x, y).detach())
    assert seen == [1]
    handle.remove()
    narrow = norm_of_sum(norm, x, y[:1])
    np.testing.assert_array_equal(narrow.detach(), norm(x + y[:1]).detach())
    with pytest.raises(ShapeError, match="last axes of input"):
        norm_of_sum(norm, rand(2, 3), rand(2, 3))
    half = y.to(minidl.bfloat16)
    np.testing.assert_array_equal(norm_of_sum(norm, x, half).detach(), norm(x + half).detach())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.LayerNorm, "forward", lambda self, input: -input)
        np.testing.assert_array_equal(norm_of_sum(norm, x, y), -(x + y))


@pytest.mark.parametrize("norm", [nn.RMSNorm(8), nn.Identity(), nn.Sequential(nn.LayerNorm(8))])
def test_norms_of_a_transformer_may_be_replaced(norm):
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), rand(2, 3, 8)
    layer.norm1 = layer.norm2 = norm
    within = norm(x + layer.self_attn(x, x, x, need_weights=False)[0])
    want = norm(within + layer.linear2(layer.linear1(within).relu()))
    np.testing.assert_allclose(layer(x).detach(), want.detach(), rtol=1e-5, atol=1e-6)

"""Attention with extra keys, decoder blocks and the whole Transformer against PyTorch."""

import numpy as np
import pytest
from test_nn_parity import compare, normal

import minidl.ops as ops
from minidl import nn
from minidl.errors import ArgumentError, ShapeError

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

CAUSAL = np.triu(np.full((4, 4), -np.inf), 1)
PADDING = np.arange(6)[None] >= np.array([[6], [3]])
OWN = np.arange(4)[None] >= np.array([[4], [3]])
NEVER_ALL = np.triu(np.ones((4, 6), bool), 3)

EXTRA = [
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True},
]
MASKS = {
    "none": {},
    "bool": {"attn_mask": NEVER_ALL},
    "float": {"attn_mask": normal(4, 6, seed=3)},
    "per head": {"attn_mask": normal(4, 4, 6, seed=4)},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": NEVER_ALL, "key_padding_mask": PADDING},
}


@pytest.mark.parametrize("extra", EXTRA, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_with_extra_keys(extra, mask, need_weights):
    arrays = [normal(4, 2, 8), normal(6, 2, 8, seed=1), normal(6, 2, 8, seed=2)]
    pair = (n.MultiheadAttention(8, 2, **extra) for n in (nn, torch.nn))
    compare(*pair, arrays, {**MASKS[mask], "need_weights": need_weights})


def test_attention_with_other_sizes_and_extra_keys():
    arrays = [normal(2, 4, 8), normal(2, 6, 5, seed=1), normal(2, 6, 3, seed=2)]
    options = {"kdim": 5, "vdim": 3, "add_bias_kv": True, "batch_first": True, "bias": False}
    compare(*(n.MultiheadAttention(8, 2, **options) for n in (nn, torch.nn)), arrays)


def test_causal_attention_keeps_the_extra_keys():
    attention = nn.MultiheadAttention(8, 2, add_zero_attn=True)
    x = ops.tensor(normal(4, 1, 8)).float()
    causal = ops.ones(4, 4).triu(1).bool()
    expected, _ = attention(x, x, x, attn_mask=causal)
    found, _ = attention(x, x, x, is_causal=True, need_weights=False)
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=1e-6)


DECODED = {
    "none": {},
    "causal": {"tgt_mask": CAUSAL, "tgt_is_causal": True},
    "causal, not told": {"tgt_mask": CAUSAL},
    "bool": {"tgt_mask": CAUSAL < 0, "memory_mask": NEVER_ALL},
    "float": {"tgt_mask": normal(4, 4, seed=5), "memory_mask": normal(4, 6, seed=6)},
    "padding": {"tgt_key_padding_mask": OWN, "memory_key_padding_mask": PADDING},
    "all": {
        "tgt_mask": CAUSAL < 0,
        "memory_mask": NEVER_ALL,
        "tgt_key_padding_mask": OWN,
        "memory_key_padding_mask": PADDING,
    },
}
BLOCKS = {
    "plain": {},
    "norm first": {"norm_first": True},
    "gelu, no bias": {"activation": "gelu", "bias": False},
    "eps": {"layer_norm_eps": 0.1, "norm_first": True, "activation": "gelu"},
}


def repr_of(module):
    """PyTorch's repr, less the class by which it keeps its quantiser away."""
    return repr(module).replace("NonDynamicallyQuantizableLinear", "Linear")


def decoder_inputs(batch_first):
    arrays = [normal(2, 4, 8), normal(2, 6, 8, seed=1)]
    return arrays if batch_first else [a.swapaxes(0, 1).copy() for a in arrays]


@pytest.mark.parametrize("mask", DECODED)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_decoder_layer(mask, block, batch_first):
    def make(n):
        options = {"dropout": 0.0, "batch_first": batch_first, **BLOCKS[block]}
        return n.TransformerDecoderLayer(8, 2, 16, **options)

    compare(make(nn), make(torch.nn), decoder_inputs(batch_first), DECODED[mask])


@pytest.mark.parametrize("mask", DECODED)
@pytest.mark.parametrize("norm", [True, False])
def test_decoder(mask, norm):
    def make(n):
        layer = n.TransformerDecoderLayer(8, 2, 16, dropout=0.0)
        return n.TransformerDecoder(layer, 2, n.LayerNorm(8) if norm else None)

    assert repr(make(nn)) == repr_of(make(torch.nn))
    compare(make(nn), make(torch.nn), decoder_inputs(False), DECODED[mask])


def test_decoder_without_batch():
    arrays = [normal(4, 8), normal(6, 8, seed=1)]
    compare(*(n.TransformerDecoderLayer(8, 2, 16, dropout=0.0) for n in (nn, torch.nn)), arrays)


def test_decoder_in_evaluation_mode():
    pair = (n.TransformerDecoderLayer(8, 2, 16, dropout=0.5).eval() for n in (nn, torch.nn))
    compare(*pair, decoder_inputs(False))


WHOLE = {
    "none": {},
    "causal": {"tgt_mask": CAUSAL},
    "all": {
        "src_mask": np.triu(np.ones((6, 6), bool), 4),
        "tgt_mask": CAUSAL < 0,
        "memory_mask": NEVER_ALL,
        "src_key_padding_mask": PADDING,
        "tgt_key_padding_mask": OWN,
        "memory_key_padding_mask": PADDING,
    },
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # PyTorch's, of its own default
@pytest.mark.parametrize("mask", WHOLE)
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"batch_first": True}], ids=str)
def test_transformer(mask, options):
    def make(n):
        return n.Transformer(8, 2, 2, 2, 16, dropout=0.0, **options)

    arrays = decoder_inputs(options.get("batch_first", False))[::-1]
    compare(make(nn), make(torch.nn), arrays, WHOLE[mask])


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_what_surrounds_the_transformer():
    ours, theirs = nn.Transformer(8, 2, 1, 1, 16), torch.nn.Transformer(8, 2, 1, 1, 16)
    assert repr(ours) == repr_of(theirs)
    square = nn.Transformer.generate_square_subsequent_mask(3)
    expected = torch.nn.Transformer.generate_square_subsequent_mask(3).numpy()
    np.testing.assert_array_equal(square.numpy(), expected)
    encoder, decoder = nn.Identity(), nn.Identity()
    custom = nn.Transformer(8, 2, custom_encoder=encoder, custom_decoder=decoder)
    assert custom.encoder is encoder and custom.decoder is decoder
    with pytest.raises(ShapeError, match="batch"):
        ours(ops.zeros(6, 2, 8), ops.zeros(4, 3, 8))
    with pytest.raises(ShapeError, match="last axes must be 8"):
        ours(ops.zeros(6, 2, 8), ops.zeros(4, 2, 7))
    with pytest.raises(ArgumentError, match="TransformerDecoderLayer"):
        nn.TransformerDecoderLayer(8, 2, activation="tanh")
    with pytest.raises(ArgumentError, match="TransformerDecoder"):
        nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2), -1)


def test_blocks_are_copies():
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)
    first, second = decoder.layers
    assert first.linear1.weight is not second.linear1.weight
    assert ops.equal(first.linear1.weight.detach(), second.linear1.weight.detach())

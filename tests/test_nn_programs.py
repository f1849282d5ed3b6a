"""Whole programs, written once and run on PyTorch and here: only the imports differ."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest

import minidl

torch = pytest.importorskip("torch", reason="parity needs torch: pip install minidl[parity]")

SIDES = [
    SimpleNamespace(t=t, nn=t.nn, F=t.nn.functional, optim=t.optim, lr=t.optim.lr_scheduler)
    for t in (minidl, torch)
]


def start(api, net):
    """Weights that are the same on both sides, in float64."""
    net.double()
    state = {}
    for i, (name, value) in enumerate(net.state_dict().items()):
        array = 0.3 * np.random.default_rng(i).normal(size=tuple(value.shape))
        state[name] = api.t.tensor(array)
    net.load_state_dict(state)
    return net


def language_model(api) -> list:
    """A small GPT with tied weights; it stops half way and goes on from its checkpoint."""
    nn, F = api.nn, api.F  # noqa: N806

    class Block(nn.Module):
        def __init__(self, width, heads, length):
            super().__init__()
            self.heads = heads
            self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.proj = nn.Linear(width, width)
            layers = {"fc": nn.Linear(width, 4 * width), "act": nn.GELU(approximate="tanh")}
            self.mlp = nn.ModuleDict({**layers, "proj": nn.Linear(4 * width, width)})
            mask = api.t.tril(api.t.ones(length, length)).view(1, 1, length, length)
            self.register_buffer("mask", mask, persistent=False)

        def forward(self, x):
            batch, length, width = x.size()
            q, k, v = self.qkv(self.norms[0](x)).split(width, dim=2)
            q, k, v = (
                y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
                for y in (q, k, v)
            )
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
            y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous()
            x = x + self.proj(y.view(batch, length, width))
            return x + self.mlp["proj"](self.mlp["act"](self.mlp["fc"](self.norms[1](x))))

    class Model(nn.Module):
        def __init__(self, tokens=11, width=8, length=6):
            super().__init__()
            self.token = nn.Embedding(tokens, width)
            self.place = nn.Embedding(length, width)
            self.blocks = nn.Sequential(*[Block(width, 2, length) for _ in range(2)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, tokens, bias=False)
            self.head.weight = self.token.weight

        def forward(self, index):
            place = api.t.arange(index.size(1), device=index.device)
            return self.head(self.norm(self.blocks(self.token(index) + self.place(place))))

    def make(net):
        matrices = [p for p in net.parameters() if p.dim() >= 2]
        others = [p for p in net.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "lr": 0.02}]
        optimizer = api.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
        warm = api.lr.LinearLR(optimizer, 0.1, total_iters=3)
        cosine = api.lr.CosineAnnealingLR(optimizer, 9, eta_min=1e-4)
        return optimizer, api.lr.SequentialLR(optimizer, [warm, cosine], milestones=[3])

    net = start(api, Model())
    optimizer, schedule = make(net)
    rng, seen = np.random.default_rng(0), []
    for step in range(12):
        if step == 6:
            saved = copy.deepcopy([x.state_dict() for x in (net, optimizer, schedule)])
            net = Model().double()
            optimizer, schedule = make(net)
            for part, state in zip((net, optimizer, schedule), saved, strict=True):
                part.load_state_dict(state)
        text = api.t.tensor(rng.integers(0, 11, (3, 7)))
        logits = net(text[:, :-1])
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), text[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen += [loss.item(), norm.item(), *schedule.get_last_lr()]
    assert net.head.weight is net.token.weight
    return [seen, list(net.state_dict()), [n for n, _ in net.named_parameters()], net]


def classifier(api) -> list:
    """A Transformer encoder over padded texts: head first, then all of it, then evaluation."""
    nn, F = api.nn, api.F  # noqa: N806

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Embedding(20, 8, padding_idx=0)
            layer = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.body = nn.TransformerEncoder(
                layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False
            )
            self.head = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 3))

        def forward(self, x):
            empty = x == 0
            h = self.body(self.token(x), src_key_padding_mask=empty)
            h = h.masked_fill(empty.unsqueeze(-1), 0.0).sum(1)
            return self.head(h / (~empty).sum(1, keepdim=True))

    net = start(api, Model())
    net.requires_grad_(False)
    net.head.requires_grad_(True)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = api.optim.SGD(trained, lr=0.1, momentum=0.9, nesterov=True)
    gradients = []
    net.head[1].register_full_backward_hook(lambda m, i, o: gradients.append(o[0].sum().item()))
    rng, seen = np.random.default_rng(1), []
    for step in range(8):
        if step == 4:
            net.requires_grad_(True)
            rest = [*net.token.parameters(), *net.body.parameters()]
            optimizer.add_param_group({"params": rest, "lr": 0.01, "weight_decay": 0.1})
            schedule = api.lr.LambdaLR(optimizer, [lambda t: 0.9**t, lambda t: min(1, (t + 1) / 3)])
        array = rng.integers(1, 20, (4, 7))
        array[1, 5:], array[3, 2:] = 0, 0
        out = net(api.t.tensor(array))
        loss = F.cross_entropy(out, api.t.tensor([0, 1, 2, 0]), label_smoothing=0.1)
        net.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.1)
        optimizer.step()
        if step >= 4:
            schedule.step()
        seen.append(loss.item())
    net.eval()
    with api.t.no_grad():
        out = net(api.t.tensor(array))
    return [[*seen, *gradients, *out.reshape(-1).tolist()], repr(optimizer), net]


@pytest.mark.parametrize("program", [language_model, classifier])
def test_a_program_gives_the_same(program):
    (*mine, net), (*other, twin) = (program(api) for api in SIDES)
    np.testing.assert_allclose(mine[0], other[0], rtol=1e-9, atol=1e-12)
    assert mine[1:] == other[1:]
    reference = twin.state_dict()
    for name, value in net.state_dict().items():
        close = {"rtol": 1e-8, "atol": 1e-10, "err_msg": name}
        np.testing.assert_allclose(value.numpy(), reference[name].numpy(), **close)

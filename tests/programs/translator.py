"""An encoder-decoder Transformer that learns to spell sequences backwards."""

import math

import torch
from torch import Tensor, nn

START, STOP, PAD, LETTERS, WIDTH = 10, 11, 12, 13, 32


class Places(nn.Module):
    """Sinusoids of the position, added to (L, N, E)."""

    def __init__(self, length=32):
        super().__init__()
        position = torch.arange(length).unsqueeze(1)
        scale = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
        table = torch.zeros(length, 1, WIDTH)
        table[:, 0, 0::2] = torch.sin(position * scale)
        table[:, 0, 1::2] = torch.cos(position * scale)
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.size(0)]


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, WIDTH)
        self.places = Places()
        self.transformer = nn.Transformer(
            d_model=WIDTH,
            nhead=4,
            num_encoder_layers=2,
            num_decoder_layers=2,
            dim_feedforward=64,
            dropout=0.0,
        )
        self.out = nn.Linear(WIDTH, LETTERS)

    def embed(self, letters):
        return self.places(self.embedding(letters) * math.sqrt(WIDTH))

    def forward(self, source, target):
        causal = nn.Transformer.generate_square_subsequent_mask(target.size(0))
        hidden = self.transformer(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            src_key_padding_mask=(source == PAD).t(),
            tgt_key_padding_mask=torch.zeros(target.shape)
            .t()
            .masked_fill((target == PAD).t(), float("-inf")),
            memory_key_padding_mask=(source == PAD).t(),
        )
        return self.out(hidden)

    @torch.no_grad()
    def spell(self, source):
        memory = self.transformer.encoder(self.embed(source))
        letters = torch.full((1, source.size(1)), START)
        for _ in range(source.size(0) + 1):
            hidden = self.transformer.decoder(self.embed(letters), memory)
            letters = torch.cat([letters, self.out(hidden[-1:]).argmax(dim=-1)])
        return letters[1:]


def model():
    return Translator()


def pairs(rng, count=16):
    """Sequences (L, N) of 3 to 7 digits and their reverses with start and stop, padded."""
    words = [rng.integers(0, 10, size=rng.integers(3, 8)).tolist() for _ in range(count)]
    source = [torch.tensor(word) for word in words]
    target = [torch.tensor([START, *word[::-1], STOP]) for word in words]
    pad = nn.utils.rnn.pad_sequence
    return pad(source, padding_value=PAD), pad(target, padding_value=PAD)


def train(net, rng, steps):
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
    net.train()
    for _ in range(steps):
        source, target = pairs(rng)
        logits = net(source, target[:-1])
        loss = criterion(logits.reshape(-1, LETTERS), target[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    net.eval()
    assert net.spell(source[:3, :2]).shape == (4, 2)

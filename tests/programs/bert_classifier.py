"""A BERT-like classifier: padded sentences, a [CLS] token, linear warm-up and decay.

The classes are three modules of Python's library; the sentences are lines of their docstrings.
"""

import fractions
import statistics
import textwrap
import zlib

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

SOURCES = (textwrap, statistics, fractions)
LENGTH, WIDTH = 20, 32


def sentences():
    """(words of a line as numbers, class) of every docstring line that has a few words."""
    for label, module in enumerate(SOURCES):
        texts = [module.__doc__] + [getattr(x, "__doc__", "") for x in vars(module).values()]
        for line in "\n".join(t for t in texts if isinstance(t, str)).splitlines():
            if len(line.split()) > 3:
                yield [2 + zlib.crc32(w.encode()) % 998 for w in line.split()][: LENGTH - 1], label


class Classifier(nn.Module):
    """Tokens: 0 is padding, 1 is [CLS], 2 and above are words by their hash."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(1000, WIDTH, padding_idx=0)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=64, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.pooler = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(0.0))
        self.classifier = nn.Linear(WIDTH, len(SOURCES))

    def forward(self, ids):
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        x = self.encoder(self.norm(x), src_key_padding_mask=ids == 0)
        return self.classifier(self.pooler(x[:, 0]))


def model():
    return Classifier()


def train(net, rng, steps):
    data = list(sentences())
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.7, 1.2]), label_smoothing=0.1)
    optimizer = optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    scheduler = LambdaLR(optimizer, lambda step: min((step + 1) / 4, max(0.0, 1 - step / 400)))
    net.train()
    for _ in range(steps):
        chosen = [data[i] for i in rng.integers(0, len(data), size=16)]
        ids = torch.zeros(16, LENGTH, dtype=torch.long)
        ids[:, 0] = 1
        for row, (line, _) in enumerate(chosen):
            ids[row, 1 : 1 + len(line)] = torch.tensor(line)
        ids = ids[:, : int((ids != 0).sum(dim=1).max())]
        target = torch.tensor([label for _, label in chosen])
        loss = criterion(net(ids), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield float(loss.detach())

"""A siamese network: digits of one class lie close, others apart."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.PReLU(), nn.Linear(32, 8))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * nn.functional.normalize(self.layers(x), dim=-1)


def model():
    return Embedder()


def train(net, rng, steps):
    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    of_class = [np.flatnonzero(labels == c) for c in range(10)]
    triplet = nn.TripletMarginLoss(margin=0.5)
    cosine = nn.CosineEmbeddingLoss(margin=0.2)
    distance = nn.PairwiseDistance()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(steps):
        classes = rng.integers(0, 10, size=32)
        others = (classes + rng.integers(1, 10, size=32)) % 10
        drawn = [[rng.choice(of_class[c]) for c in group] for group in (classes, classes, others)]
        anchor, positive, negative = (net(torch.from_numpy(images[i])) for i in drawn)
        sign = torch.from_numpy(np.where(rng.random(32) < 0.5, 1.0, -1.0).astype(np.float32))
        second = torch.where(sign[:, None] > 0, positive, negative)
        loss = triplet(anchor, positive, negative) + cosine(anchor, second, sign)
        loss = loss + 0.01 * distance(anchor, positive).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()

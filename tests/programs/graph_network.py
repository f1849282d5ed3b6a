"""Digits as a graph: each is joined to its nearest neighbours, and few of them are labelled.

One layer reads the neighbours through a dense matrix, the next along a list of edges.
"""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class DenseConvolution(nn.Module):
    """Kipf and Welling, arXiv:1609.02907: the mean of the neighbours by a normalised matrix."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x, adjacency):
        return torch.mm(adjacency, x @ self.weight) + self.bias


class EdgeAttention(nn.Module):
    """Velickovic et al., arXiv:1710.10903: softmax over the edges that end in a node."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.source = nn.Linear(outputs, 1, bias=False)
        self.target = nn.Linear(outputs, 1, bias=False)

    def forward(self, x, edges):
        source, target = edges
        h = self.linear(x)
        score = F.leaky_relu(self.source(h)[source] + self.target(h)[target], 0.2).squeeze(-1)
        weight = torch.exp(score - score.max().detach())
        total = torch.zeros(len(x)).index_add(0, target, weight)
        messages = h[source] * (weight / total[target]).unsqueeze(-1)
        return torch.zeros_like(h).scatter_add(0, target[:, None].expand_as(messages), messages)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = DenseConvolution(64, 32)
        self.second = EdgeAttention(32, 10)

    def forward(self, x, adjacency, edges):
        return self.second(F.elu(self.first(x, adjacency)), edges)


def model():
    return Network()


def graph(count=200, neighbours=5):
    digits = load_digits()
    x, labels = digits.data[:count] / 16, digits.target[:count]
    distance = ((x[:, None] - x[None]) ** 2).sum(-1)
    near = np.argsort(distance, axis=1, kind="stable")[:, : neighbours + 1]
    source, target = near.ravel(), np.repeat(np.arange(count), neighbours + 1)
    dense = np.zeros((count, count))
    dense[target, source] = 1
    dense = np.maximum(dense, dense.T)
    root = dense.sum(1) ** -0.5
    adjacency = torch.tensor(root[:, None] * dense * root, dtype=torch.float32)
    edges = torch.from_numpy(np.stack([source, target]))
    return torch.tensor(x, dtype=torch.float32), adjacency, edges, torch.from_numpy(labels)


def train(net, rng, steps):
    x, adjacency, edges, labels = graph()
    known = torch.from_numpy(rng.permutation(len(x)) < 60)
    optimizer = torch.optim.Adagrad(net.parameters(), lr=0.05, weight_decay=5e-4)
    for _ in range(steps):
        logits = net(x, adjacency, edges)
        loss = F.nll_loss(F.log_softmax(logits, dim=1)[known], labels[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    guessed = net(x, adjacency, edges)[~known].argmax(dim=1)
    assert guessed.shape == ((~known).sum().item(),)

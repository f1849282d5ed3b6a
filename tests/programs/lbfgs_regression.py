"""Logistic regression on the breast cancer data, fitted by L-BFGS to the last digit."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn


def model():
    return nn.Linear(30, 1)


def train(net, rng, steps):
    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    y = torch.tensor(data.target, dtype=torch.float32).unsqueeze(1)
    with torch.no_grad():  # the problem is convex; a common start makes the paths comparable
        net.weight.zero_()
        net.bias.zero_()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1, max_iter=2, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion(net(x), y) + 0.005 * net.weight.square().sum()
        loss.backward()
        return loss

    for _ in range(steps):
        yield optimizer.step(closure).item()
    assert (net(x) > 0).float().eq(y).float().mean() > 0.97

"""A physics-informed network for the heat equation u_t = u_xx / 10 on [0, 1].

u(0, x) = sin(pi x) and u = 0 at both ends; the solution is exp(-pi^2 t / 10) sin(pi x).
"""

import math

import torch
from torch import nn
from torch.autograd import grad


def model():
    return nn.Sequential(
        nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    )


def slope(u, x):
    return grad(u, x, grad_outputs=torch.ones_like(u), create_graph=True)[0]


def residual(net, points):
    t, x = points[:, :1].clone().requires_grad_(), points[:, 1:].clone().requires_grad_()
    u = net(torch.cat([t, x], dim=1))
    return slope(u, t) - slope(slope(u, x), x) / 10


def train(net, rng, steps):
    inside = torch.tensor(rng.random((64, 2)), dtype=torch.float32)
    line = torch.linspace(0, 1, 21).unsqueeze(1)
    start = torch.cat([torch.zeros_like(line), line], dim=1)
    ends = torch.cat(
        [line.repeat(2, 1), torch.tensor([0.0, 1.0]).repeat_interleave(21)[:, None]], 1
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.999)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = residual(net, inside).square().mean()
        loss = loss + (net(start) - torch.sin(math.pi * line)).square().mean()
        loss = loss + net(ends).pow(2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()

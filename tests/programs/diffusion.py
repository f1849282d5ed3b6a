"""A denoising diffusion model of 8 x 8 digits, sampled from an average of its weights.

Ho, Jain and Abbeel, arXiv:2006.11239.
"""

import math

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LEVELS = 50


class Denoiser(nn.Module):
    """Predicts the noise in a picture (N, 64) at a level of noise (N)."""

    def __init__(self, width=64):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {"norm": nn.GroupNorm(8, width), "map": nn.Linear(width, width), "act": nn.SiLU()}
            )
            for _ in range(2)
        )
        self.leave = nn.Linear(width, 64)
        frequency = torch.exp(-math.log(1000.0) * torch.arange(8) / 8)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, x, level):
        angle = level[:, None].float() * self.frequency
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))
        hidden = self.enter(x)
        for block in self.blocks:
            hidden = hidden + block["map"](block["act"](block["norm"](hidden) + time))
        return self.leave(hidden)


def model():
    return Denoiser()


def schedule():
    """The shares of picture that are left at each level, and beta."""
    beta = torch.linspace(1e-3, 0.2, LEVELS)
    return torch.cumprod(1 - beta, dim=0), beta


@torch.no_grad()
def sample(net, rng, count):
    kept, beta = schedule()
    x = torch.from_numpy(rng.standard_normal((count, 64)).astype(np.float32))
    for level in reversed(range(LEVELS)):
        noise = net(x, torch.full((count,), level))
        x = (x - beta[level] / (1 - kept[level]).sqrt() * noise) / (1 - beta[level]).sqrt()
        if level:
            fresh = torch.from_numpy(rng.standard_normal((count, 64)).astype(np.float32))
            x = x + beta[level].sqrt() * fresh
    return x


def train(net, rng, steps):
    pictures = torch.tensor(load_digits().data / 8 - 1, dtype=torch.float32)
    kept, _ = schedule()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=max(steps, 300))
    for _ in range(steps):
        x = pictures[torch.from_numpy(rng.integers(0, len(pictures), size=64))]
        level = torch.from_numpy(rng.integers(0, LEVELS, size=64))
        noise = torch.from_numpy(rng.standard_normal((64, 64)).astype(np.float32))
        share = kept.gather(0, level).unsqueeze(1)
        noisy = share.sqrt() * x + (1 - share).sqrt() * noise
        loss = nn.functional.mse_loss(net(noisy, level), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        average.update_parameters(net)
        yield loss.item()
    average.eval()
    assert sample(average, rng, 3).isfinite().all()

"""A variational autoencoder on the handwritten digits."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset


class Autoencoder(nn.Module):
    def __init__(self, latent=4):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x, noise):
        mean, log_scale = self.encoder(x).chunk(2, dim=-1)
        posterior = Independent(Normal(mean, F.softplus(log_scale) + 1e-4), 1)
        code = posterior.mean + posterior.stddev * noise
        return self.decoder(code), posterior


def model():
    return Autoencoder()


def batches(rng):
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    while True:
        order = torch.from_numpy(rng.permutation(len(images)))
        yield from DataLoader(TensorDataset(images[order]), batch_size=64, drop_last=True)


def train(net, rng, steps):
    prior = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _, (x,) in zip(range(steps), batches(rng), strict=False):
        noise = torch.from_numpy(rng.standard_normal((len(x), 4)).astype("float32"))
        logits, posterior = net(x, noise)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        loss = (reconstruction + kl_divergence(posterior, prior)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()

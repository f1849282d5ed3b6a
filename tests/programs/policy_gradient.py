"""REINFORCE with a learnt baseline on a pole that is balanced on a cart."""

import math

import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical


class Pole:
    """Barto, Sutton and Anderson 1983: push the cart left or right by 10 N every 0.02 s."""

    def __init__(self, rng):
        self.state = rng.uniform(-0.05, 0.05, size=4)

    def push(self, action):
        x, speed, angle, turn = self.state
        force = 10.0 if action else -10.0
        sine, cosine = math.sin(angle), math.cos(angle)
        pull = (force + 0.05 * turn * turn * sine) / 1.1
        spin = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine * cosine / 1.1))
        gain = pull - 0.05 * spin * cosine / 1.1
        self.state = self.state + 0.02 * np.array([speed, gain, turn, spin])
        return abs(self.state[0]) > 2.4 or abs(self.state[2]) > 0.21


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.Tanh())
        self.policy = nn.Linear(32, 2)
        self.value = nn.Linear(32, 1)

    def forward(self, state):
        hidden = self.body(state)
        return Categorical(logits=self.policy(hidden)), self.value(hidden).squeeze(-1)


def model():
    return Agent()


def play(net, rng, limit=100):
    """States, actions and discounted returns of one episode."""
    pole, states, actions = Pole(rng), [], []
    with torch.no_grad():
        for _ in range(limit):
            states.append(pole.state.astype(np.float32))
            choice, _ = net(torch.from_numpy(states[-1]))
            actions.append(int(rng.random() < choice.probs[1].item()))
            if pole.push(actions[-1]):
                break
    returns = [0.0]
    for _ in actions:
        returns.append(1 + 0.98 * returns[-1])
    return np.stack(states), actions, returns[:0:-1]


def train(net, rng, steps):
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.95)
    for _ in range(steps):
        states, actions, returns = play(net, rng)
        choice, value = net(torch.from_numpy(states))
        target = torch.tensor(returns) / 50
        advantage = target - value.detach()
        policy = -(choice.log_prob(torch.tensor(actions)) * advantage).mean()
        loss = policy + nn.functional.smooth_l1_loss(value, target) - 0.01 * choice.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        optimizer.step()
        yield loss.item()

"""The convolutional network of the papers, and its training from scratch on a few pictures.

Network, size of batches, optimiser and scaling of the pictures are those of
github.com/BlackHC/BatchBALD (`mnist_model.py`, `dataset_enum.py`, `run_experiment.py`), the code of
Kirsch et al. 2019. There, training ends when the accuracy on some hundred further labelled pictures
falls; here it takes a fixed number of steps under a learning rate that rises and falls once (Smith
and Topin, "Super-convergence", 2018), so that no label is used that is not counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH = 64
STEPS = 300
LEARNING_RATE = 3e-3
"""The highest."""

_MEAN, _STD = 0.1307, 0.3081
"""Of MNIST's training pictures, between 0 and 1."""


def scaled(x: Tensor) -> Tensor:
    """Pictures [N, 1, 28, 28] between 0 and 1 as the network sees them."""
    return (x - _MEAN) / _STD


def network() -> nn.Sequential:
    """Two convolutions and a hidden layer, dropout 0.5 after each. [B, 1, 28, 28] → [B, 10]."""
    layers = nn.Sequential(
        *_convolution(1, 32),
        *_convolution(32, 64),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    # Pooling takes a fifteenth of the time where a place's channels lie side by side.
    for weight in layers.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.to(memory_format=torch.channels_last)
    return layers


def _convolution(channels_in: int, channels: int) -> list[nn.Module]:
    # The papers drop channels before they pool. That a channel is dropped or doubled commutes with
    # its maximum and with its positive part, so that this is the same function at a lower price.
    return [nn.Conv2d(channels_in, channels, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(0.5)]


def train(x: Tensor, y: Tensor, seed: int, steps: int) -> nn.Sequential:
    """A network fitted to scaled pictures x [N, 1, 28, 28] and labels y [N], in eval mode.

    Args:
        x: few enough that most are in a batch several times, each time under other masks.
        y: of each.
        seed: of first weights, order and masks.
        steps: of the optimiser.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fitted = network().train()
        optimizer = torch.optim.Adam(fitted.parameters(), lr=LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
        epochs = -(-steps * BATCH // len(x))
        order = torch.cat([torch.randperm(len(x)) for _ in range(epochs)])
        for rows in order[: steps * BATCH].split(BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = fitted(x[rows])
            loss = nn.functional.cross_entropy(logits.float(), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return fitted.eval()

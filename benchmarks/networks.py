"""Networks of the kinds that people serve, with the dropout they usually have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network in eval mode and the shape of one of its input rows."""

    module: nn.Module
    shape: tuple[int, ...]


def mlp() -> Network:
    """Tabular classifier, dropout 0.5 after both hidden layers. [B, 60] → [B, 10]."""
    module = nn.Sequential(
        nn.Linear(60, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 10),
    )
    return Network(module.eval(), (60,))


def cnn() -> Network:
    """Spatial dropout 0.25, then 0.5 in the head. [B, 1, 28, 28] → [B, 10]."""
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.25),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    return Network(module.eval(), (1, 28, 28))


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.skip = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet() -> Network:
    """Residual blocks with dropout 0.2 in the head alone. [B, 3, 32, 32] → [B, 10]."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]
    for channels_in, channels, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [_Residual(channels_in, channels, stride), _Residual(channels, channels, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 10)]
    return Network(nn.Sequential(*layers, *head).eval(), (3, 32, 32))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 8, 1024, 0.1, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(tokens).mean(1))
        return logits


def transformer() -> Network:
    """Four encoder layers, dropout 0.1 in attention, residual and MLP. [B, 64, 256] → [B, 10]."""
    return Network(_Encoder().eval(), (64, 256))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(128, 256, 2, dropout=0.3, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(256, 10))

    def forward(self, steps: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(steps)[0][:, -1])
        return logits


def lstm() -> Network:
    """Two stacked layers, dropout 0.3 between them and in the head. [B, 32, 128] → [B, 10]."""
    return Network(_Recurrent().eval(), (32, 128))


NETWORKS: dict[str, Callable[[], Network]] = {
    build.__name__: build for build in (mlp, cnn, resnet, transformer, lstm)
}

_STOCHASTIC = (
    nn.modules.dropout._DropoutNd,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.RNNBase,
)


def stochastic(module: nn.Module) -> nn.Module:
    """Put what drops out in train mode: the careful form of what tutorials do."""
    for part in module.modules():
        if isinstance(part, _STOCHASTIC):
            part.training = True
    return module


def by_loop(module: nn.Module, inputs: Tensor, passes: int) -> Tensor:
    """T forward calls, what every tutorial shows. [B, D...] → [T, B, C]."""
    with torch.inference_mode():
        return torch.stack([module(inputs) for _ in range(passes)])


def by_repeat(module: nn.Module, inputs: Tensor, passes: int) -> Tensor:
    """One forward call over the batch T times over. [B, D...] → [T, B, C]."""
    with torch.inference_mode():
        repeated = inputs.repeat(passes, *([1] * (inputs.dim() - 1)))
        outputs: Tensor = module(repeated).view(passes, len(inputs), -1)
        return outputs


def summarize(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[T, B, C] → mean, standard deviation, predictive entropy, mutual information."""
    probs = logits.softmax(-1)
    mean = probs.mean(0)
    entropy = torch.special.entr(mean).sum(-1)
    expected = torch.special.entr(probs).sum(-1).mean(0)
    return mean, probs.std(0), entropy, entropy - expected

"""A ReLU network with dropout after every hidden layer, as in Gal & Ghahramani 2016, Figure 2."""

import math

import torch
from torch import Tensor, nn

WIDTH = 256
DROPOUT = 0.2


class CarbonDioxideNetwork(nn.Module):
    """Four hidden layers over the standardised year and the season's sine and cosine."""

    year_mean: Tensor
    year_std: Tensor
    ppm_mean: Tensor
    ppm_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers are saved with the weights; training sets them from its data.
        self.register_buffer("year_mean", torch.zeros(1))
        self.register_buffer("year_std", torch.ones(1))
        self.register_buffer("ppm_mean", torch.zeros(1))
        self.register_buffer("ppm_std", torch.ones(1))
        self.layers = nn.Sequential(
            nn.Linear(3, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, year_B1: Tensor) -> Tensor:
        """Map decimal years [B, 1] to CO2 concentrations [B, 1] in ppm."""
        season_B1 = 2 * math.pi * torch.frac(year_B1)
        trend_B1 = (year_B1 - self.year_mean) / self.year_std
        features_B3 = torch.cat([trend_B1, season_B1.sin(), season_B1.cos()], dim=1)
        ppm_B1: Tensor = self.ppm_mean + self.ppm_std * self.layers(features_B3)
        return ppm_B1


def build() -> nn.Module:
    """Build the untrained network."""
    return CarbonDioxideNetwork()

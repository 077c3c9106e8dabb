"""A small network with dropout for scikit-learn's breast cancer data."""

import torch
from torch import Tensor, nn

FEATURES = 30
WIDTH = 64


class BreastCancerNetwork(nn.Module):
    """Standardisation, then two hidden layers with dropout after each."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Buffers are saved with the weights; training sets them from its data.
        self.register_buffer("feature_mean", torch.zeros(FEATURES))
        self.register_buffer("feature_std", torch.ones(FEATURES))
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, WIDTH),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, features_BF: Tensor) -> Tensor:
        """Map raw features [B, 30] to logits [B, 1] that the tumour is benign."""
        logits_B1: Tensor = self.layers((features_BF - self.feature_mean) / self.feature_std)
        return logits_B1


def build() -> nn.Module:
    """Build the untrained network."""
    return BreastCancerNetwork()

"""A small convolutional network for scikit-learn's handwritten digits."""

from torch import Tensor, nn

LARGEST_PIXEL = 16.0


class DigitNetwork(nn.Module):
    """Two convolutions with spatial dropout, then a hidden layer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            nn.Conv2d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.2),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )

    def forward(self, pixels_B1HW: Tensor) -> Tensor:
        """Map raw pixels [B, 1, 8, 8], from 0 to 16, to logits [B, 10]."""
        logits_BC: Tensor = self.head(self.convolutions(pixels_B1HW / LARGEST_PIXEL))
        return logits_BC


def build() -> nn.Module:
    """Build the untrained network."""
    return DigitNetwork()

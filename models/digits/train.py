"""Train the digits network: python models/digits/train.py, less than a minute on one CPU core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_model
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

SEED = 0
STEPS = 2000
BATCH = 64
PASSES = 50
WEIGHTS = Path(__file__).parent / "1" / "weights.safetensors"


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Split the digits, stratified by class.

    Returns:
        Training pixels [N, 1, 8, 8] float32 from 0 to 16, held-out pixels, training classes [N]
        int64, held-out classes.
    """
    digits = load_digits()
    pixels = digits.images[:, np.newaxis].astype(np.float32)
    classes = digits.target.astype(np.int64)
    x, x_held_out, y, y_held_out = train_test_split(
        pixels, classes, test_size=0.25, stratify=classes, random_state=SEED
    )
    return x, x_held_out, y, y_held_out


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [N, 1, 8, 8] float32 and classes [N] int64 that training never sees."""
    _, x_held_out, _, y_held_out = split()
    return x_held_out, y_held_out


def train(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Fit the network, in place, to pixels x [N, 1, 8, 8] and classes y [N]."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    network.train()
    for _ in tqdm(range(STEPS), desc="digits", unit="step"):
        rows = torch.randint(len(x), (BATCH,))
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def report(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Print the accuracy on x [N, 1, 8, 8] and y [N], without and with MC dropout."""
    network.eval()
    deterministic_BC = network(x).softmax(dim=-1)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()
    mean_BC = torch.stack([network(x).softmax(dim=-1) for _ in range(PASSES)]).mean(dim=0)
    for name, probs_BC in (
        ("deterministic", deterministic_BC),
        (f"MC dropout, {PASSES} passes", mean_BC),
    ):
        accuracy = (probs_BC.argmax(dim=-1) == y).double().mean()
        negative_log_likelihood = nn.functional.nll_loss(probs_BC.log(), y)
        print(
            f"held-out, {name}: accuracy {accuracy:.4f}, "
            f"negative log-likelihood {negative_log_likelihood:.4f} nats"
        )


def main() -> None:
    """Train, save the weights and report the held-out quality."""
    from network import build

    # The order of a sum, and so its last bits, depends on how many threads share it.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    x, x_held_out, y, y_held_out = (torch.from_numpy(array) for array in split())
    network = build()
    train(network, x, y)
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_model(network, str(WEIGHTS))
    # safetensors leaves the file to its owner alone; a server may run as another user.
    WEIGHTS.chmod(0o644)
    report(network, x_held_out, y_held_out)


if __name__ == "__main__":
    main()

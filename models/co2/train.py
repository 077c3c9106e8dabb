"""Train the CO2 network: python models/co2/train.py, less than a minute on one CPU core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_model
from statsmodels.datasets import co2  # type: ignore[import-untyped]
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

SEED = 0
STEPS = 5000
BATCH = 128
PASSES = 50
WEIGHTS = Path(__file__).parent / "1" / "weights.safetensors"


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hold out a random tenth of the weeks.

    Returns:
        Training decimal years [N, 1] float32, held-out years, training concentrations [N] float32
        in ppm, held-out concentrations.
    """
    weeks = co2.load_pandas().data.dropna()
    days = np.where(weeks.index.is_leap_year, 366, 365)
    years = (weeks.index.year + (weeks.index.day_of_year - 1) / days).to_numpy(np.float32)[:, None]
    ppm = weeks["co2"].to_numpy(np.float32)
    order = np.random.default_rng(SEED).permutation(len(ppm))
    # Sorted, because a client sends a time series in order.
    held, kept = np.sort(order[: len(order) // 10]), np.sort(order[len(order) // 10 :])
    return years[kept], years[held], ppm[kept], ppm[held]


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Return decimal years [N, 1] float32 and ppm [N] float32 that training never sees."""
    _, x_held_out, _, y_held_out = split()
    return x_held_out, y_held_out


def train(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Fit the network, in place, to decimal years x [N, 1] and concentrations y [N] in ppm."""
    scales = {"year_mean": x.mean(), "year_std": x.std(), "ppm_mean": y.mean(), "ppm_std": y.std()}
    for name, value in scales.items():
        network.get_buffer(name).fill_(value)
    # Strong decay keeps the mean of the thinned networks close to the network without dropout.
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    network.train()
    for _ in tqdm(range(STEPS), desc="co2", unit="step"):
        rows = torch.randint(len(x), (BATCH,))
        residuals_B = (network(x[rows]).squeeze(-1) - y[rows]) / scales["ppm_std"]
        loss = residuals_B.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def report(network: nn.Module, x: Tensor, y: Tensor) -> None:
    """Print the error on years x [N, 1] and ppm y [N], and how unsure the network is when."""
    network.eval()
    deterministic_B = network(x).squeeze(-1)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()
    ppm_TB = torch.stack([network(x).squeeze(-1) for _ in range(PASSES)])
    for name, ppm_B in (
        ("deterministic", deterministic_B),
        (f"MC dropout, {PASSES} passes", ppm_TB.mean(dim=0)),
    ):
        error = (ppm_B - y).square().mean().sqrt()
        print(f"held-out, {name}: root mean squared error {error:.2f} ppm")
    print(f"MC dropout standard deviation, median of the held-out weeks: {_median_std(ppm_TB)} ppm")
    for year in (1950, 1980, 2010, 2020, 2030, 2050):
        x_11 = torch.tensor([[float(year)]])
        ppm_T1 = torch.stack([network(x_11).squeeze(-1) for _ in range(PASSES)])
        print(f"MC dropout standard deviation in {year}: {_median_std(ppm_T1)} ppm")


def _median_std(ppm_TB: Tensor) -> str:
    return f"{ppm_TB.std(dim=0).median():.2f}"


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

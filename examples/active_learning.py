"""Active learning from end to end: python examples/active_learning.py, three minutes on two cores.

A server is started with four untrained models of scikit-learn's digits, one for each strategy. Each
begins with the same 20 labels. Then, again and again: ask the server which ten of the unlabelled
digits would say most (`query`), send them through the model, which keeps them (`predict`), label
what was kept (`lease`, `label`), take all labels along (`export`), train, and have the server load
the new version (`reload`). At the end the accuracies are drawn against the labels.

An oracle stands for whoever labels: the digits' own labels.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from service.client import AsyncClient

STRATEGIES = ("bald", "batch_bald", "predictive_entropy", "random")
FIRST_LABELS = 20
BATCH = 10
ROWS_AT_ONCE = 32

NETWORK = '''"""A small convolutional network for digits of 8 x 8 pixels from 0 to 16."""

from torch import Tensor, nn


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.25),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )

    def forward(self, pixels_B1HW: Tensor) -> Tensor:
        return self.layers(pixels_B1HW / 16)


def build() -> nn.Module:
    return Digits()
'''

MODEL = """task = "classification"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[input]
shape = [1, 8, 8]
"""

Array = NDArray[np.generic]


def main() -> None:
    """Run every strategy, print the accuracies and draw them."""
    arguments = _arguments()
    torch.set_num_threads(1)
    x, x_test, y, y_test = _digits()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url:
        learner = Learner(x, y, x_test, y_test, arguments.rounds, arguments.steps)
        curves = asyncio.run(learner.run(url, Path(folder)))
    labels = [FIRST_LABELS + BATCH * number for number in range(arguments.rounds + 1)]
    table = Table("labels", *STRATEGIES, title="accuracy on digits that no model learned from")
    for place, count in enumerate(labels):
        table.add_row(str(count), *(f"{curves[name][place]:.3f}" for name in STRATEGIES))
    Console().print(table)
    draw(labels, curves, arguments.output)
    print(f"drawn into {arguments.output}")


class Learner:
    """The loop of every strategy, all of them side by side.

    Args:
        x: pool [N, 1, 8, 8].
        y: its labels [N], which only the oracle looks up.
        x_test: [M, 1, 8, 8].
        y_test: [M].
        rounds: of ten labels.
        steps: of each training.
    """

    def __init__(
        self, x: Array, y: Array, x_test: Array, y_test: Array, rounds: int, steps: int
    ) -> None:
        self._x, self._y = x, y
        self._x_test, self._y_test = x_test, y_test
        self._rounds, self._steps = rounds, steps
        # PyTorch's random numbers are one stream for all threads.
        self._training = asyncio.Lock()

    async def run(self, url: str, folder: Path) -> dict[str, list[float]]:
        """Accuracies after each training, by strategy."""
        async with AsyncClient(url) as candor:
            curves = await asyncio.gather(
                *(self._learn(candor, folder / name) for name in STRATEGIES)
            )
        return dict(zip(STRATEGIES, curves, strict=True))

    async def _learn(self, candor: AsyncClient, folder: Path) -> list[float]:
        """A strategy's name is its model's."""
        name = folder.name
        accuracies = []
        labelled = _balanced(self._y)
        wanted = labelled
        for version in range(2, self._rounds + 3):
            await self._keep(candor, name, self._x[wanted])
            # Whoever labels gets what was kept, and nobody else does meanwhile.
            mine = await candor.lease(name, limit=len(wanted))
            for sample in mine.samples:
                await candor.label(sample.id, self._oracle(sample.input), lease=mine.lease)
            arrays = await candor.export(name)
            async with self._training:
                await asyncio.to_thread(
                    train, folder, version, arrays["x"], arrays["y"], self._steps
                )
            await candor.reload(name)
            # The server has loaded the new version: the old one may go.
            shutil.rmtree(folder / str(version - 1))
            # Predictions are kept, and what is to judge the model must not teach it.
            answer = await candor.eval(self._x_test, model=name)
            assert answer.label is not None
            accuracies.append(float(np.mean(answer.label.astype(int) == self._y_test)))
            chosen = await candor.query(self._x, BATCH, strategy=name, model=name, exclude=labelled)
            wanted = chosen.indices.tolist()
            labelled = labelled + wanted
        return accuracies

    async def _keep(self, candor: AsyncClient, name: str, rows: Array) -> None:
        """Predictions of these rows, and a moment until the server has kept them."""
        await candor.predict(rows, model=name, fields=["mean"])
        while len((await candor.samples(model=name, status="unlabelled")).samples) < len(rows):
            await asyncio.sleep(0.05)

    def _oracle(self, row: Array) -> int:
        places = np.flatnonzero((self._x == row.astype(np.float32)).all(axis=(1, 2, 3)))
        return int(self._y[places[0]])


def train(folder: Path, version: int, x: Array, y: Array, steps: int) -> None:
    """A new version of the model: x [N, 1, 8, 8] and y [N], from the beginning."""
    torch.manual_seed(version)
    network = _build()
    # Samples come in the order of their ids, which is another one each time.
    order = sorted(range(len(x)), key=lambda row: x[row].tobytes())
    rows, labels = torch.from_numpy(x[order]), torch.from_numpy(y[order])
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(steps):
        some = torch.randint(len(rows), (ROWS_AT_ONCE,))
        loss = nn.functional.cross_entropy(network(rows[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _save(network, folder, version)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server of untrained models that keeps whatever it is asked; its address."""
    for name in STRATEGIES:
        (folder / name).mkdir()
        (folder / name / "network.py").write_text(NETWORK)
        (folder / name / "model.toml").write_text(MODEL)
        torch.manual_seed(0)
        _save(_build(), folder / name, 1)
    environment = {
        **os.environ,
        "CANDOR_KEEP_SAMPLES": "all",
        "CANDOR_DATABASE_URL": f"sqlite:///{folder}/samples.sqlite",
    }
    command = [sys.executable, "-m", "service", "serve", "--models", str(folder), "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            # It prints its address once every model is loaded.
            said = iter(process.stdout.readline, "")
            yield next(found.group() for line in said if (found := re.search(r"http://\S+", line)))
        finally:
            process.terminate()


def draw(labels: list[int], curves: dict[str, list[float]], path: Path) -> None:
    """Accuracy against labels, a line for each strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, accuracies in curves.items():
        axes.plot(labels, accuracies, marker="o", markersize=3, label=name)
    axes.set(xlabel="labels", ylabel="accuracy", title="scikit-learn's digits")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="of ten labels each")
    parser.add_argument("--steps", type=int, default=500, help="of each training")
    parser.add_argument("--output", type=Path, default=Path("active_learning.svg"))
    return parser.parse_args()


def _digits() -> list[Array]:
    digits = load_digits()
    pixels = digits.images[:, np.newaxis].astype(np.float32)
    parts: list[Array] = train_test_split(pixels, digits.target, test_size=0.3, random_state=0)
    return parts


def _balanced(y: Array) -> list[int]:
    """Two rows of each digit."""
    each = FIRST_LABELS // 10
    return [int(row) for digit in range(10) for row in np.flatnonzero(y == digit)[:each]]


def _build() -> nn.Module:
    names: dict[str, object] = {}
    exec(NETWORK, names)
    build = names["build"]
    assert callable(build)
    network = build()
    assert isinstance(network, nn.Module)
    return network.train()


def _save(network: nn.Module, folder: Path, version: int) -> None:
    """Under another name first: the server never finds half a file."""
    part = folder / f".{version}"
    part.mkdir()
    save_model(network, str(part / "weights.safetensors"))
    part.rename(folder / str(version))


if __name__ == "__main__":
    main()

"""Digits in two versions, and kept samples that some have labelled: what there is to compare."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model

from benchmarks.quality import held_out
from service.client import Client
from tests.e2e.servers import Server, copied, serving
from tests.waiting import wait_for

_SEEN = 100
_STEPS = 100
_BATCH = 64


def write_two_digits(root: Path) -> None:
    """The shipped version, which is calibrated, and one that has seen a hundred digits only."""
    folder = copied(root, "digits") / "digits"
    build = runpy.run_path(str(folder / "network.py"))["build"]
    x, _, y, _ = map(torch.from_numpy, runpy.run_path(str(folder / "train.py"))["split"]())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        for _ in range(_STEPS):
            rows = torch.randint(_SEEN, (_BATCH,))
            loss = torch.nn.functional.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (folder / "2").mkdir()
    save_model(network, str(folder / "2" / "weights.safetensors"))


def keep(
    server: Server, model: str, rows: NDArray[np.float32], labels: Callable[[int], object]
) -> None:
    """Have the server keep rows, and label them where there is a label.

    Args:
        server: that keeps all of the model.
        model: whose samples they become.
        rows: [N, D...], no two alike.
        labels: of a row's place; None: it stays without one.
    """
    with Client(server.url) as client:
        for row in range(0, len(rows), 10):
            client.predict(rows[row : row + 10], model=model, version=1)
        wait_for(lambda: len(client.samples(model=model, limit=1000).samples) >= len(rows))
        kept = client.samples(model=model, limit=1000).samples
        places = {row.tobytes(): place for place, row in enumerate(rows)}
        for sample in kept:
            label = labels(places[sample.input.astype(np.float32).tobytes()])
            if label is not None:
                client.label(sample.id, label)


def keep_digits(server: Server, count: int, labelled: int) -> None:
    """Held-out digits, the first of them with their true labels."""
    x, y = held_out("digits")
    keep(server, "digits", x[:count], lambda row: str(y[row]) if row < labelled else None)


@contextmanager
def two_digits(root: Path, count: int, labelled: int) -> Iterator[Server]:
    """A server of both, with so many samples."""
    write_two_digits(root)
    with serving(root, environment={"CANDOR_KEEP_SAMPLES": "digits=all"}) as server:
        keep_digits(server, count, labelled)
        yield server

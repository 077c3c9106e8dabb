"""Files of the form that the evaluation reads, small and made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.evaluation.data import UCI_SETS

SPLITS = 2


def write(folder: Path) -> None:
    """All files."""
    random = np.random.default_rng(0)
    for name in UCI_SETS:
        x = random.normal(size=(40, 3))
        order = np.stack([random.permutation(40) for _ in range(SPLITS)]).astype(np.uint16)
        np.savez(
            folder / f"uci_{name}.npz",
            X=x,
            y=3 * x[:, 0] + random.normal(size=40),
            train_idx=order[:, :36],
            test_idx=order[:, 36:],
            dropout_rates=np.array([0.01, 0.1]),
            tau_values=np.array([0.5, 1.0]),
            n_epochs=np.array(2),
            n_hidden=np.array(8),
            ref_test_mc_rmse=np.array([1.0, 1.2]),
            ref_test_ll=np.array([-1.5, -1.6]),
        )
    rows = [
        [*(f"{value:.4f}" for value in random.random(60)), "MR"[number % 2]] for number in range(40)
    ]
    lines = [",".join(row) for row in rows]
    (folder / "sonar.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, count in (("mnist_train20k", 60), ("mnist_test5k", 20), ("fashionmnist_test5k", 20)):
        np.savez(
            folder / f"{name}.npz",
            x=random.integers(0, 256, size=(count, 28, 28), dtype=np.uint8),
            y=(np.arange(count) % 10).astype(np.uint8),
        )

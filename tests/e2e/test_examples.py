"""What stands in `examples/` runs to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_active_learning_from_the_first_label_to_the_figure(tmp_path: Path) -> None:
    figure = tmp_path / "curves.svg"
    words = ["--rounds", "1", "--steps", "30", "--output", str(figure)]
    done = subprocess.run(
        [sys.executable, "examples/active_learning.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "predictive_entropy" in done.stdout
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    first, second = ([float(cell) for cell in row] for row in rows)
    assert (first[0], second[0]) == (20, 30)
    # The same labels and the same seed, so the same weights, whatever the strategy will be.
    assert len(set(first[1:])) == 1
    assert "<svg" in figure.read_text()

"""Reports for tests, as small as they may be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from service.registry.reports import folder_of
from service.types import ModelRef


def numbers(ref: ModelRef, **more: Any) -> dict[str, Any]:
    """Of a classifier, those that a list shows."""
    methods = [
        {
            "name": name,
            "title": title,
            "accuracy": accuracy,
            "brier": 0.1,
            "log_likelihood": -0.25,
            "calibration": {"equal_mass": {"expected": 0.03}, "equal_width": {"expected": 0.5}},
            "diagrams": {},
        }
        for name, title, accuracy in (
            ("deterministic", "Deterministic softmax", 0.9),
            ("mc_dropout", "MC dropout", 0.95),
        )
    ]
    deferrals = [{"share": share, "avoided": 5 * share} for share in (0.01, 0.1, 0.2)]
    return {
        "model": ref.name,
        "version": ref.version,
        "task": "classification",
        "passes": 50,
        "seed": 0,
        "masks": "shared",
        "precision": "float32",
        "data": {"path": "/home/somebody/test.npz", "sha256": "d" * 64, "rows": 450},
        "strangers": None,
        "class_methods": methods,
        "regression_methods": [],
        "rankings": [
            {
                "name": "predictive_entropy",
                "title": "MC dropout: predictive entropy",
                "deferrals": deferrals,
            }
        ],
        "headline": "predictive_entropy",
        "detection": None,
        "verdict": ["It earns its price."],
        "candor": "0.1.0",
        **more,
    }


def detection(**aurocs: float) -> dict[str, Any]:
    """Scores by their AUROC."""
    return {
        "separations": [
            {
                "name": name,
                "title": name.replace("_", " "),
                "rates": {"auroc": auroc, "auroc_interval": [auroc - 0.02, auroc + 0.02]},
            }
            for name, auroc in aurocs.items()
        ]
    }


def write_report(
    root: Path, ref: ModelRef, name: str, *, page: str | None = None, **more: Any
) -> Path:
    """Put a report beside its version; returns the file of its numbers.

    Args:
        root: the model repository.
        ref: a version in it.
        name: of the report.
        page: its HTML; None: it has none.
        more: numbers that are others than those of `numbers`.
    """
    folder = folder_of(root, ref)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(numbers(ref, **more)))
    # Hours apart and in the past, so that what is written later is newer.
    hour = 1_700_000_000 + 3600 * len(list(folder.iterdir()))
    os.utime(path, (hour, hour))
    if page is not None:
        (folder / f"{name}.html").write_text(page)
    return path

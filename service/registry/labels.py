"""Labels by the names that `model.toml` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.registry.manifest import Manifest


def named(manifest: Manifest, label_B: NDArray[Any]) -> NDArray[Any]:
    """Indices of labels, of any shape, as names; as they are where the model names none."""
    return label_B if manifest.labels is None else np.array(manifest.labels)[label_B]


def held(manifest: Manifest, holds_BC: NDArray[np.bool_]) -> list[list[Any]]:
    """The labels that hold in each row, by name or index, in the order of the classes."""
    choices = named(manifest, np.arange(holds_BC.shape[1]))
    return [choices[row].tolist() for row in holds_BC]

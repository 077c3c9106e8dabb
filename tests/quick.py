"""Models that load quickly, where how fast they then answer is not what is tested."""

from __future__ import annotations

from service.inference import tuning
from service.registry import loading


def load_quickly() -> None:
    """Time next to nothing when a model loads, and answer no more than one request beforehand.

    Each way of running passes is as right as the other: `inference/test_tuning.py` says how one is
    chosen, and a server that starts as a user's does (`e2e/servers.py`) times them all.
    """
    tuning._ENOUGH_S, tuning._ROUNDS = 0.0, 1
    # Whatever takes less gets chunks of the largest size without further ado.
    tuning._INSTANT_S = 1.0
    loading._WARMED_S = 0.0

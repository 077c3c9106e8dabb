"""Histograms of uncertainty take whole batches and count every finite value once."""

from __future__ import annotations

import numpy as np
import torch
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.metrics import Metrics


def test_a_batch_of_values_is_counted_into_cumulative_buckets() -> None:
    metrics = Metrics()
    metrics.uncertainty.observe("m", "variance", np.array([0.05, 0.1, 0.15, 9.0, -np.inf, np.nan]))
    metrics.uncertainty.observe("m", "variance", np.array([0.05]))
    families = text_string_to_metric_families(metrics.render().decode())
    [family] = [f for f in families if f.name == "candor_uncertainty"]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    assert buckets["0.03"] == 0
    assert buckets["0.1"] == 3  # a bound belongs to its bucket
    assert buckets["0.2"] == 4
    assert buckets["5.0"] == 4
    assert buckets["+Inf"] == 5
    [total] = [s.value for s in family.samples if s.name.endswith("_sum")]
    assert np.isclose(total, 0.05 + 0.1 + 0.15 + 9.0 + 0.05)


def test_what_waits_to_be_counted_is_bounded() -> None:
    metrics = Metrics()
    for _ in range(30):
        metrics.uncertainty.observe("m", "variance", np.zeros(1000))
        assert metrics.uncertainty._waiting_rows <= 10_000
    assert 'candor_uncertainty_count{measure="variance",model="m"} 30000.0' in (
        metrics.render().decode()
    )


def test_of_a_dense_output_nothing_waits_but_a_number_a_row() -> None:
    metrics = Metrics()
    metrics.uncertainty.observe("m", "variance", np.full((3, 64, 64), 0.05))
    [waiting] = metrics.uncertainty._waiting["m", "variance"]
    assert waiting.shape == (3,)
    assert waiting.base is None
    assert 'candor_uncertainty_bucket{le="0.1",measure="variance",model="m"} 3.0' in (
        metrics.render().decode()
    )


def test_refusals_and_what_is_read_when_asked() -> None:
    metrics = Metrics()
    metrics.rejected("queue_full")
    metrics.rejected("queue_full")
    metrics.read_when_asked(lambda: 12, lambda: 3)
    found = metrics.registry.get_sample_value
    assert found("candor_rejected_total", {"reason": "queue_full"}) == 2
    assert found("candor_queue_bytes") == 12
    assert found("candor_requests_in_flight") == 3
    assert (found("process_resident_memory_bytes") or 0) > 2**20
    labels = {"version": __version__, "torch": torch.__version__}
    assert found("candor_build_info", labels) == 1

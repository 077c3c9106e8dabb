"""Histograms of uncertainty take whole batches and count every finite value once."""

from __future__ import annotations

import numpy as np
import torch
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.metrics import Metrics
from service.types import ModelRef

ONE, TWO = ModelRef("m", 1), ModelRef("m", 2)


def test_a_batch_of_values_is_counted_into_cumulative_buckets() -> None:
    metrics = Metrics()
    metrics.uncertainty.observe(ONE, "variance", np.array([0.05, 0.1, 0.15, 9.0, -np.inf, np.nan]))
    metrics.uncertainty.observe(ONE, "variance", np.array([0.05]))
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
        metrics.uncertainty.observe(ONE, "variance", np.zeros(1000))
        assert metrics.uncertainty._waiting_rows <= 10_000
    assert 'candor_uncertainty_count{measure="variance",model="m"} 30000.0' in (
        metrics.render().decode()
    )


def test_of_a_dense_output_nothing_waits_but_a_number_a_row() -> None:
    metrics = Metrics()
    metrics.uncertainty.observe(ONE, "variance", np.full((3, 64, 64), 0.05))
    [waiting] = metrics.uncertainty._waiting["m", 1, "variance"]
    assert waiting.shape == (3,)
    assert waiting.base is None
    assert 'candor_uncertainty_bucket{le="0.1",measure="variance",model="m"} 3.0' in (
        metrics.render().decode()
    )


def test_versions_are_told_apart_and_together_are_their_model() -> None:
    metrics = Metrics()
    found = metrics.registry.get_sample_value
    metrics.uncertainty.observe(ONE, "variance", np.array([0.05, 0.5]))
    metrics.uncertainty.observe(TWO, "variance", np.array([0.5]))

    def rows(name: str, le: str, **labels: str) -> float | None:
        return found(name, {"measure": "variance", "model": "m", "le": le, **labels})

    assert rows("candor_version_uncertainty_bucket", "0.1", version="1") == 1
    assert rows("candor_version_uncertainty_bucket", "+Inf", version="1") == 2
    assert rows("candor_version_uncertainty_bucket", "+Inf", version="2") == 1
    assert rows("candor_uncertainty_bucket", "0.1") == 1
    assert rows("candor_uncertainty_bucket", "+Inf") == 3
    metrics.keep_versions([TWO])
    assert rows("candor_version_uncertainty_bucket", "+Inf", version="1") is None
    # What is counted of a model does not fall when a version goes.
    assert rows("candor_uncertainty_bucket", "+Inf") == 3
    metrics.uncertainty.observe(ONE, "variance", np.array([0.05]))
    assert rows("candor_version_uncertainty_bucket", "+Inf", version="1") == 1
    assert rows("candor_uncertainty_bucket", "0.1") == 2


def test_requests_are_counted_by_version_where_one_was_chosen() -> None:
    metrics = Metrics()
    found = metrics.registry.get_sample_value
    metrics.answered("m", 1, "/predict", 200, 0.004)
    metrics.answered("m", 1, "/predict", 500, 0.2)
    metrics.answered("m", 2, "/predict", 200, 0.004)
    metrics.answered("m", None, "/models/{name}", 200, 0.001)
    metrics.answered("", None, "/predict", 404, 0.001)
    of_one = {"model": "m", "version": "1", "endpoint": "/predict"}
    assert found("candor_version_requests_total", {**of_one, "code": "200"}) == 1
    assert found("candor_version_requests_total", {**of_one, "code": "500"}) == 1
    assert found("candor_version_request_seconds_bucket", {**of_one, "le": "0.005"}) == 1
    assert found("candor_version_request_seconds_count", of_one) == 2
    assert np.isclose(found("candor_version_request_seconds_sum", of_one) or 0, 0.204)
    text = metrics.render().decode()
    assert text.count("candor_version_requests_total{") == 3
    of_model = {"model": "m", "endpoint": "/predict"}
    assert found("candor_requests_total", {**of_model, "code": "200"}) == 2
    metrics.keep_versions([TWO])
    assert found("candor_version_requests_total", {**of_one, "code": "200"}) is None
    assert found("candor_version_request_seconds_count", of_one) is None
    assert found("candor_version_request_seconds_count", {**of_one, "version": "2"}) == 1
    assert found("candor_requests_total", {**of_model, "code": "200"}) == 2


def test_requests_that_wait_to_be_counted_are_bounded() -> None:
    metrics = Metrics()
    for _ in range(10_001):
        metrics.answered("m", 1, "/predict", 200, 0.004)
    assert metrics.requests._waiting_requests == 0
    labels = {"model": "m", "version": "1", "endpoint": "/predict", "code": "200"}
    assert metrics.registry.get_sample_value("candor_version_requests_total", labels) == 10_001


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

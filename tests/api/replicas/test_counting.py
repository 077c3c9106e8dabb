"""What several processes counted reads like what one did."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.api.replicas import counting
from service.metrics import Metrics


def value(families: list[Metric], name: str, **labels: str) -> float:
    """Of the one sample that has these labels, as Prometheus reads it."""
    text = counting.render(families).decode()
    [found] = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found


def two() -> tuple[Metrics, Metrics]:
    first, second = Metrics(), Metrics()
    first.answered("digits", None, "/predict", 200, 0.004)
    for _ in range(2):
        second.answered("digits", None, "/predict", 200, 0.004)
    second.answered("co2", None, "/eval", 503, 0.004)
    return first, second


def test_counters_and_histograms_are_sums() -> None:
    families = counting.summed([counting.counted(each.registry) for each in two()])
    labels = {"model": "digits", "endpoint": "/predict"}
    assert value(families, "candor_requests_total", code="200", **labels) == 3
    assert value(families, "candor_request_seconds_count", **labels) == 3
    assert value(families, "candor_request_seconds_bucket", le="0.005", **labels) == 3
    assert value(families, "candor_request_seconds_bucket", le="0.0025", **labels) == 0
    other = {"model": "co2", "endpoint": "/eval", "code": "503"}
    assert value(families, "candor_requests_total", **other) == 1


def test_a_version_is_ready_where_it_is_on_all() -> None:
    processes = two()
    for metrics, ready in zip(processes, (1, 0), strict=True):
        metrics.model_ready.labels("digits", "1").set(ready)
        metrics.model_ready.labels("digits", "2").set(1)
        metrics.ood_flagged_rate.labels("digits", "1").set(0.25 * (1 + ready))
        metrics.read_when_asked(lambda: 10, lambda: 2)
    families = counting.summed([counting.counted(each.registry) for each in processes])
    assert value(families, "candor_model_ready", model="digits", version="1") == 0
    assert value(families, "candor_model_ready", model="digits", version="2") == 1
    assert value(families, "candor_ood_flagged_rate", model="digits", version="1") == 0.375
    assert value(families, "candor_requests_in_flight") == 4
    assert value(families, "candor_queue_bytes") == 20


def test_one_process_reads_as_it_would_by_itself() -> None:
    [metrics, _] = two()
    metrics.of("digits").batch_rows.observe(3)
    alone = counting.summed([counting.counted(metrics.registry)])
    of_others = ("process_", "#")
    lines = [
        sorted(line for line in text.decode().splitlines() if not line.startswith(of_others))
        for text in (counting.render(alone), metrics.render())
    ]
    assert lines[0] == lines[1]


def test_of_a_process_that_ended_what_grows_stays() -> None:
    first, _ = two()
    first.model_ready.labels("digits", "1").set(1)
    left = {family.name for family in counting.totals(counting.counted(first.registry))}
    assert {"candor_requests", "candor_request_seconds", "candor_uncertainty"} <= left
    assert not left & {"candor_model_ready", "candor_queue_depth"}
    assert not any(name.startswith("process_") for name in left)


def test_some_families_by_name() -> None:
    [metrics, _] = two()
    found = counting.counted(metrics.registry, ["candor_requests"])
    assert [family.name for family in found] == ["candor_requests"]

"""The paper's arithmetic, the simulated replica, and what the README says of both."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import asdict
from itertools import accumulate, repeat
from typing import Any

import pytest

from benchmarks.overload import arrivals
from benchmarks.scaling.__main__ import PASSES, batching, beside_a_gpu, kinds, on_paper
from benchmarks.scaling.measure import Kind, Seen, connections_for, cost, processor_s
from benchmarks.scaling.model import (
    ENGINE,
    HTTP,
    NETWORK,
    Cost,
    Plan,
    bounds,
    capacity,
    first_full,
    split,
)
from benchmarks.scaling.report import section
from benchmarks.scaling.simulation import at_load, highest_load, latencies, quantile

COST = Cost(http_batch_s=0.0002, http_s=0.0002, engine_batch_s=0.001, engine_s=0.0001)


def alone(http_s: float, engine_s: float) -> Cost:
    """Of requests that are no cheaper together."""
    return Cost(0.0, http_s, 0.0, engine_s)


@pytest.mark.parametrize("together", [2.0, 5.5, 60.0])
def test_what_a_batch_takes_is_told_from_what_each_request_adds(together: float) -> None:
    found = split(COST.engine_of(1), COST.engine_of(together), together)
    assert found == pytest.approx((COST.engine_batch_s, COST.engine_s))


@pytest.mark.parametrize(("alone_s", "full_s", "together"), [(3.0, 2.0, 1.0), (2.0, 3.0, 8.0)])
def test_requests_that_are_no_cheaper_together_take_it_each(
    alone_s: float, full_s: float, together: float
) -> None:
    assert split(alone_s, full_s, together) == (0.0, full_s)


def test_no_part_is_negative_whatever_was_measured() -> None:
    batch_s, each_s = split(alone_s=9.0, full_s=1.0, together=4.0)
    assert (batch_s, each_s) == (4.0, 0.0)


def test_a_replica_does_what_its_processors_do_until_one_thread_is_full() -> None:
    of_one = alone(0.001, 0.003)
    assert capacity(of_one, 1, 1) == pytest.approx(250)
    assert capacity(of_one, 1, 1.2) == pytest.approx(300)
    # The engine's thread has no use for more than a processor.
    assert capacity(of_one, 1, 8) == pytest.approx(1000 / 3)
    assert capacity(COST, 10, 1) > capacity(COST, 1, 1)


def test_what_is_full_first_is_what_does_the_least() -> None:
    limits = bounds(alone(0.001, 0.003), 1, request_bytes=1000, network_bytes_per_s=2.5e5)
    assert limits == pytest.approx({HTTP: 1000, ENGINE: 1000 / 3, NETWORK: 250})
    assert first_full(limits) == NETWORK
    assert first_full(bounds(alone(0.002, 0.001), 1, 1, 1e9)) == HTTP
    assert first_full(bounds(alone(0.001, 0.002), 1, 1, 1e9)) == ENGINE


def test_a_billion_a_day_takes_what_its_peak_takes() -> None:
    plan = Plan(predictions_a_day=1e9, peak=2.0, spare=1)
    assert plan.rows_per_s == pytest.approx(2 * 1e9 / 86_400)
    # 23,148.1 a second, of which a replica does 500.
    assert plan.replicas(1000.0, 0.5) == 47 + 1
    assert plan.hours_of_a_million(0.0036) == pytest.approx(1.0)
    assert plan.price_of_a_million(0.0036) == pytest.approx(plan.processor_hour)


def simulated(come_s: list[float], of_one: Cost, processors: float, **how: Any) -> list[float]:
    options: dict[str, Any] = {"batch_s": 1e9, "most": 1, **how}
    return latencies(come_s, of_one, processors=processors, **options)


def test_two_requests_share_one_processor_and_have_two_for_themselves() -> None:
    # Reading one second, computing one, writing one. On one processor the second is read while the
    # first is computed, both at half the speed, and so on: six seconds of work end after six.
    of_one = alone(2.0, 1.0)
    assert simulated([0.0, 1.0], of_one, processors=1) == pytest.approx([5.0, 5.0])
    assert simulated([0.0, 1.0], of_one, processors=2) == pytest.approx([3.0, 3.0])


def test_what_waits_is_computed_together() -> None:
    of_one = Cost(0.0, 0.0, engine_batch_s=1.0, engine_s=0.1)
    come_s = [0.0, 0.1, 0.2, 0.3]
    # The first alone until 1.1, the others together until 2.4.
    found = simulated(come_s, of_one, processors=1, most=10)
    assert found == pytest.approx([1.1, 2.3, 2.2, 2.1])
    # Two at most, by number or by time.
    for how in ({"most": 2}, {"most": 10, "batch_s": 1.25}):
        found = simulated(come_s, of_one, processors=1, **how)
        assert found == pytest.approx([1.1, 2.2, 2.1, 3.1])


def test_a_batch_pays_once_what_is_paid_once() -> None:
    of_one = Cost(http_batch_s=1.0, http_s=0.2, engine_batch_s=0.0, engine_s=0.0)
    assert simulated([0.0], of_one, processors=1) == pytest.approx([1.2])


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_waiting_is_that_of_a_queue_with_one_server_and_equal_requests(load: float) -> None:
    """Pollaczek and Khinchine: W = S + load S / (2 (1 - load))."""
    found = at_load(
        load, alone(0.0, 0.01), together=1, processors=1, batch_s=1.0, most=1, requests=100_000
    )
    expected_s = 0.01 * (1 + load / (2 * (1 - load)))
    # The mean of dependent waits: at 0.8 its standard error is some 1 % with so many.
    assert sum(found) / len(found) == pytest.approx(expected_s, rel=0.06)


def test_every_request_is_answered_and_none_before_its_work_is_done() -> None:
    come_s = list(arrivals(800.0, 5.0, seed=3))
    found = latencies(come_s, COST, processors=1, batch_s=0.02, most=100)
    assert len(found) == len(come_s)
    assert min(found) >= COST.http_s + COST.engine_batch_s + COST.engine_s - 1e-9


def test_a_replica_that_is_full_does_what_the_paper_says() -> None:
    # Twice as many as it can do, for a second: it ends when the work is done.
    of_one = alone(0.0002, 0.0003)
    full_per_s = capacity(of_one, 1, 1)
    come_s = list(accumulate(repeat(1 / (2 * full_per_s), int(2 * full_per_s))))
    found = simulated(come_s, of_one, processors=1, most=100)
    assert len(come_s) / (come_s[-1] + found[-1]) == pytest.approx(full_per_s, rel=0.01)
    # Batches wait for nobody, and so are smaller than they could be.
    together = 100
    come_s = list(accumulate(repeat(1 / 10_000, 10_000)))
    found = simulated(come_s, COST, processors=1, most=together)
    rate_per_s = len(come_s) / (come_s[-1] + found[-1])
    assert capacity(COST, 2, 1) < rate_per_s < capacity(COST, together, 1)


def test_the_highest_load_is_lower_the_sooner_answers_have_to_come() -> None:
    how: dict[str, Any] = {"together": 10, "processors": 1, "batch_s": 0.02, "most": 100}
    how["requests"] = 3000
    objectives_s = (0.1, 0.01, 0.004)
    found = [highest_load(objective_s, COST, **how) or 0.0 for objective_s in objectives_s]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] > 0
    assert highest_load(0.0001, COST, **how) is None
    for load, objective_s in zip(found, objectives_s, strict=True):
        assert quantile(at_load(load, COST, **how), 0.99) <= objective_s


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 3.0, 4.0]


def test_the_kernel_tells_the_first_thread_from_the_others() -> None:
    def spin(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    before = processor_s(os.getpid())
    stay = threading.Event()

    def work() -> None:
        spin(0.3)
        stay.wait(60)

    other = threading.Thread(target=work)
    other.start()
    while processor_s(os.getpid())[1] - before[1] < 0.2:
        time.sleep(0.01)
    first_s, others_s = (
        now - then for then, now in zip(before, processor_s(os.getpid()), strict=True)
    )
    stay.set()
    other.join()
    assert others_s >= 0.2
    assert first_s < others_s


def test_connections_keep_a_replica_busy() -> None:
    assert connections_for(0.001) == 64
    assert connections_for(0.01) == 20
    assert connections_for(3.0) == 2


@pytest.mark.parametrize("kind", kinds(["mlp"]))
def test_a_request_says_what_is_asked(kind: Kind) -> None:
    head, _, body = kind.request().partition(b"\r\n\r\n")
    if kind.arrays:
        assert f"POST /predict?model=mlp&passes={kind.passes} ".encode() in head
        assert body.startswith(b"\x93NUMPY")
        assert len(body) > kind.rows * 60 * 4
    else:
        sent = json.loads(body)
        assert (sent["model"], sent["passes"]) == ("mlp", kind.passes)
        assert [len(row) for row in sent["inputs"]] == [60] * kind.rows


def seen(of_one: Cost, together: float) -> Seen:
    """As if measured of a replica on one processor that is never idle."""
    http_s, engine_s = of_one.http_of(together), of_one.engine_of(together)
    rate = 1 / (http_s + engine_s)
    return Seen(rate, 1 / rate, 2 / rate, http_s, engine_s, together, 0.1)


def result() -> dict[str, Any]:
    """As `make scaling` would write it, of a network that was never measured."""
    plan = Plan()
    cases = [
        {
            **asdict(kind),
            "form": kind.form,
            **on_paper(kind, seen(COST, 1), seen(COST, 20), (700, 900), plan),
        }
        for kind in kinds(["mlp"])
    ]
    run = {"count": 2, "processors": 1.8, "of_expected": 0.97, "processor_s": 0.0004}
    load = {"load": 0.7, "offered_per_s": 700.0, "in_time_per_s": 699.0, "p50_s": 0.002}
    load |= {"p99_s": 0.011, "simulated_p50_s": 0.0021, "simulated_p99_s": 0.0123}
    name = {"network": "mlp", "rows": 1, "passes": 50, "form": "JSON"}
    return {
        "machine": {"processor": "a processor", "cpus": 2, "torch_threads": 1},
        "versions": {"torch": "2.13.0"},
        "date": "2026-11-27T12:00:00+00:00",
        "plan": asdict(plan),
        "cases": cases,
        "at_random": {**name, "full_per_s": 1000.0, "runs": [load]},
        "side_by_side": [{**name, "runs": [{**run, "requests_per_s": 3456.0}]}],
        "gpu": None,
    }


def test_the_costs_that_were_measured_are_those_that_are_computed_with() -> None:
    assert asdict(cost(seen(COST, 1), seen(COST, 20))) == pytest.approx(asdict(COST))
    for case in result()["cases"]:
        assert case["rows_per_s"] == pytest.approx(case["paper_rows_per_s"])
        assert 0 < case["load"] < 1
        one_s = COST.of(20) / case["rows"]
        assert case["processor_hours"] == pytest.approx(one_s * 1e6 / 3600)
        needed = Plan().rows_per_s / (case["rows_per_s"] * case["load"])
        assert case["replicas"] == math.ceil(needed) + 1


def test_batches_are_those_of_the_server() -> None:
    assert batching(Kind("mlp", 1, 50)) == {"batch_s": 0.02, "most": 2000}
    assert batching(Kind("mlp", 1_000, 200)) == {"batch_s": 0.02, "most": 1}


def test_the_section_says_what_was_assumed_and_what_was_seen() -> None:
    text = section(result())
    for part in ("1,000,000,000 predictions a day", "10 Gbit/s", "a processor", "3,456", "97%"):
        assert part in text
    assert (
        text.count("| mlp | 1 row, JSON |") == text.count("| mlp | 32 rows, .npy |") == len(PASSES)
    )
    assert "12.3" in text


def test_beside_a_gpu_http_takes_processors() -> None:
    cases = result()["cases"]
    measured = {"float32": 0.004, "bfloat16": 0.0001, "loop": 1.0, "repeat": 1.0}
    engine = {
        "passes": 50,
        "networks": [
            {"network": "mlp", "cases": [{"rows": 32, "seconds": measured}]},
            {"network": "unknown", "cases": [{"rows": 32, "seconds": measured}]},
        ],
    }
    [found] = beside_a_gpu(cases, engine)
    assert found["rows_per_s"] == pytest.approx(320_000)
    assert found["http_processors"] == pytest.approx(COST.http_of(20) / 0.0001)
    assert found["first_full"] == HTTP
    text = section({**result(), "gpu": {"name": "a card", "cases": [found]}})
    assert "a card" in text
    assert "320,000" in text

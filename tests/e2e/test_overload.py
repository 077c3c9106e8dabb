"""More than can be served, and an engine that fails: refused and said so, and nothing wedged."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.servers import Server, serving
from tests.repositories import SLOW, write_model
from tests.waiting import wait_for

ROW = [0.0, 0.0, 0.0, 0.0]

NOT_A_NUMBER = """
import torch
from torch import nn

class Strange(nn.Sequential):
    def forward(self, x):
        return torch.where(x > 100, float("nan"), super().forward(x))

def build():
    return Strange(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
"""
"""Not a number where its input is above a hundred."""

ENDS_THREADS = """
import ctypes
import sys
import threading
import time
from torch import nn

timers = []

def end(ident):
    # While it waits for work: locks that it holds elsewhere would stay held.
    while sys._current_frames()[ident].f_code.co_name != "_work":
        time.sleep(0.01)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
    )

class Ending(nn.Sequential):
    def forward(self, x):
        if (x > 100).any():
            raise SystemExit(3)
        if (x > 50).any() and not timers:
            timers.append(threading.Timer(0.3, end, [threading.get_ident()]))
            timers[0].start()
        return super().forward(x)

def build():
    return Ending(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
"""
"""Ends the program above a hundred; above fifty the thread that it ran on, when that next waits."""

HUNGRY = """
from torch import nn

class Hungry(nn.Sequential):
    def forward(self, x):
        if float(x.max()) > 100:
            scratch = x.new_empty(len(x), 2**30)
            x = x + scratch[:, :1] * 0
        return super().forward(x)

def build():
    return Hungry(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
"""
"""Asks for four gigabytes a row above a hundred, of which it touches one page."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Few may wait, long waits cost passes, and an engine is given up after three seconds."""
    root = tmp_path_factory.mktemp("overload")
    write_model(root, "good")
    write_model(root, "slow", SLOW, shape="[1]", more="passes = 40")
    write_model(root, "strange", NOT_A_NUMBER, shape="[1]")
    write_model(root, "ending", ENDS_THREADS, shape="[1]")
    write_model(root, "hungry", HUNGRY, shape="[1]", more="passes = 2")
    flags = ("--queue-requests", "4", "--engine-hang-s", "3", "--degrade-after-s", "0.2")
    with serving(root, *flags, "--degrade-min-passes", "5") as server:
        yield server


def _metric(server: Server, name: str) -> float:
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name + " ")) for line in lines if line.startswith(name))


def _slow(server: Server, milliseconds: float, **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    body = {"model": "slow", "inputs": [[milliseconds]], **more}
    return server.post("/predict", body, headers=headers)


def test_what_would_be_late_is_refused_at_once_and_again_accepted_when_it_was_told(
    loaded: Server,
) -> None:
    # The passes of this network run one after the other; it is known by two sizes.
    for passes in (2, 4, 8):
        _slow(loaded, 50, passes=passes)
    before = _metric(loaded, 'candor_rejected_total{reason="deadline_unreachable"}')
    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(_slow, loaded, 50, passes=20, seed=seed) for seed in range(3)]
        time.sleep(0.3)
        late = _slow(loaded, 50, passes=4, headers={"X-Request-Timeout": "0.5"})
        assert late.status_code == 429
        assert late.json()["type"] == "urn:candor:problem:deadline-unreachable"
        wait_s = int(late.headers["Retry-After"])
        assert wait_s >= 1
        assert not all(request.done() for request in busy)
        assert {request.result().status_code for request in busy} == {200}
    assert _metric(loaded, 'candor_rejected_total{reason="deadline_unreachable"}') == before + 1
    again = _slow(loaded, 50, passes=4, headers={"X-Request-Timeout": "5"})
    assert again.status_code == 200


def test_exactly_the_excess_is_refused_and_the_lowest_priority_first(loaded: Server) -> None:
    def ask(priority: str) -> int:
        # A deterministic pass runs alone, to its end.
        headers = {"X-Request-Priority": priority}
        body = {"model": "slow", "inputs": [[0]]}
        return loaded.post("/eval", body, headers=headers).status_code

    def until_accepted(number: int) -> None:
        wait_for(lambda: _metric(loaded, "candor_requests_in_flight") >= number, 10.0)

    with ThreadPoolExecutor(12) as pool:
        busy = pool.submit(loaded.post, "/eval", {"model": "slow", "inputs": [[2500]]})
        until_accepted(1)
        low = [pool.submit(ask, "low") for _ in range(4)]
        until_accepted(5)
        # One runs and four wait: each of these takes the place of one of them.
        higher = [pool.submit(ask, priority) for priority in ("normal", "normal", "high", "high")]
        assert [request.result() for request in low] == [429] * 4
        assert ask("low") == 429
        assert ask("normal") == 429
        assert not busy.done()
        assert [request.result() for request in higher] == [200] * 4
        assert busy.result().status_code == 200


def test_a_priority_that_there_is_not_is_refused(loaded: Server) -> None:
    body = {"model": "good", "inputs": [ROW]}
    wrong = loaded.post("/predict", body, headers={"X-Request-Priority": "urgent"})
    assert wrong.status_code == 422
    assert wrong.json()["field"] == "X-Request-Priority"
    assert wrong.json()["expected"] == ["high", "normal", "low"]


def test_a_long_wait_costs_passes_which_the_answer_says(loaded: Server) -> None:
    def evaluate() -> httpx.Response:
        return loaded.post("/eval", {"model": "slow", "inputs": [[600]]})

    for _ in range(2):
        evaluate()
    before = _metric(loaded, 'candor_degraded_total{model="slow"}')
    with ThreadPoolExecutor(4) as pool:
        # One runs, one waits, and it is known how long that takes.
        busy = [pool.submit(evaluate) for _ in range(2)]
        time.sleep(0.2)
        fewer = pool.submit(_slow, loaded, 1)
        as_said = pool.submit(_slow, loaded, 1, passes=6)
        arrays = httpx.post(
            loaded.url + "/predict",
            json={"model": "slow", "inputs": [[1.0]]},
            headers={"Accept": "application/x-npz"},
            timeout=60.0,
        )
        assert {request.result().status_code for request in busy} == {200}
    answer = fewer.result().json()
    assert 5 <= answer["passes"] < 40
    assert answer["degraded"] == {
        "requested_passes": 40,
        "reason": "many requests were waiting",
    }
    # It is the answer that so many passes give, and its standard error that of so many.
    exact = _slow(loaded, 1, passes=answer["passes"]).json()
    for name in ("mean", "standard_error"):
        np.testing.assert_allclose(answer[name], exact[name], rtol=1e-4)
    assert as_said.result().json()["passes"] == 6
    assert "degraded" not in as_said.result().json()
    with np.load(io.BytesIO(arrays.content)) as npz:
        assert npz["degraded_requested_passes"] == 40
        assert npz["passes"] < 40
    assert _metric(loaded, 'candor_degraded_total{model="slow"}') == before + 2


def test_one_huge_request_does_not_hold_up_the_others(loaded: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        huge = pool.submit(
            loaded.post, "/predict", {"model": "good", "inputs": [ROW] * 8000, "passes": 100}
        )
        answered = 0
        while not huge.done():
            short = loaded.post("/eval", {"model": "slow", "inputs": [[0]]})
            assert short.status_code == 200
            answered += not huge.done()
        assert huge.result().status_code == 200
    assert answered > 2


def test_what_is_not_a_number_is_null_in_a_valid_answer(loaded: Server) -> None:
    answer = loaded.post("/predict", {"model": "strange", "inputs": [[500.0], [1.0]]})
    assert answer.status_code == 200
    assert answer.json()["mean"][0] == [None, None]
    assert all(np.isfinite(answer.json()["mean"][1]))


def test_a_model_that_ends_the_program_ends_its_own_request(loaded: Server) -> None:
    failed = loaded.post("/predict", {"model": "ending", "inputs": [[500.0]]})
    assert failed.status_code == 500
    assert "SystemExit" in failed.json()["detail"]
    assert loaded.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200


def test_an_engine_thread_that_ends_is_replaced_and_nobody_waits_for_it(loaded: Server) -> None:
    name = "candor_engine_restarts_total"
    before = _metric(loaded, name)
    assert loaded.post("/predict", {"model": "ending", "inputs": [[60.0]]}).status_code == 200
    deadline_s = time.monotonic() + 20.0
    while _metric(loaded, name) == before and time.monotonic() < deadline_s:
        answer = loaded.post("/predict", {"model": "good", "inputs": [ROW]})
        assert answer.status_code in (200, 500)
    assert _metric(loaded, name) > before
    assert loaded.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200
    assert loaded.get("/livez").status_code == 200


def test_an_engine_that_does_not_come_back_is_not_live_until_it_does(loaded: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        body = {"model": "slow", "inputs": [[5000]]}
        hanging = pool.submit(loaded.post, "/eval", body)
        seen = {200}
        while not hanging.done():
            live = loaded.get("/livez")
            if live.status_code == 503 and 503 not in seen:
                assert "has not come back" in live.json()["detail"]
                assert loaded.get("/readyz").status_code == 503
                refused = loaded.post("/predict", {"model": "good", "inputs": [ROW]})
                assert refused.status_code in (200, 503)
            seen.add(live.status_code)
            time.sleep(0.05)
        assert hanging.result().status_code == 200
    assert seen == {200, 503}
    assert loaded.get("/livez").status_code == 200
    assert loaded.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200


def test_a_request_for_which_the_memory_runs_out_is_answered_late_and_not_lost(
    loaded: Server,
) -> None:
    rows = [[101.0 + number] for number in range(1024)]
    body = {"model": "hungry", "return": ["mean", "std"], "passes": 2}
    answer = loaded.post("/predict", {**body, "inputs": rows})
    assert answer.status_code == 200, answer.text
    for number in (0, 511, 1023):
        alone = loaded.post("/predict", {**body, "inputs": [rows[number]]}).json()
        for field in ("mean", "std"):
            found = answer.json()[field][number]
            np.testing.assert_allclose(found, alone[field][0], rtol=1e-5, atol=1e-7)
    assert loaded.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200
    assert loaded.get("/readyz").status_code == 200


def test_a_deterministic_pass_that_the_memory_does_not_hold_is_an_error_that_harms_nobody_else(
    loaded: Server,
) -> None:
    body = {"model": "hungry", "inputs": [[101.0]] * 4096}
    answer = loaded.post("/eval", body)
    assert answer.status_code == 500
    assert "memory of the server ran out" in answer.json()["detail"]
    assert loaded.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200

"""One measures, the others take over; and what a process there is given."""

from __future__ import annotations

from typing import Any

import pytest

from service import cluster
from service.cluster import Noted
from service.errors import InvalidInput
from service.settings import load_settings
from tests.api.replicas.others import Clock

MEASURED: dict[str, Any] = {"chunk": 32}


def test_the_first_that_asks_measures_and_the_others_wait_for_it() -> None:
    noted = Noted()
    assert noted.ask("digits") is True
    assert noted.ask("digits") is False
    assert noted.ask("co2") is True
    noted.tell("digits", MEASURED)
    assert noted.ask("digits") == MEASURED
    noted.tell("digits", {"chunk": 64})
    assert noted.ask("digits") == MEASURED


def test_another_measures_where_the_first_gave_up_or_died() -> None:
    clock = Clock()
    noted = Noted(clock)
    assert noted.ask("digits") is True
    noted.give_up("digits")
    assert noted.ask("digits") is True
    for _ in range(10):
        clock.now_s += cluster._DEAD_S / 2
        noted.still("digits")
        assert noted.ask("digits") is False
    clock.now_s += 2 * cluster._DEAD_S
    assert noted.ask("digits") is True
    assert noted.ask("digits") is False


def test_who_gave_up_measures_no_more_whatever_it_still_says() -> None:
    noted = Noted()
    assert noted.ask("digits") is True
    noted.give_up("digits")
    noted.still("digits")
    assert noted.ask("digits") is True


def test_a_process_computes_on_as_many_threads_as_it_has_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "doubt")
    monkeypatch.setenv("SECRET", "abc")
    for cpus, threads in ((0.25, "1"), (1.0, "1"), (3.0, "3")):
        given = cluster.environment(cpus)
        assert given["OMP_NUM_THREADS"] == threads
        assert given["OTEL_SERVICE_NAME"] == "doubt"
        assert "SECRET" not in given


def test_a_process_that_is_given_no_gpu_sees_none() -> None:
    assert cluster.environment(1.0)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in cluster.environment(1.0, 0.5)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidInput, match=r"pip install 'candor\[ray\]'"):
        cluster.require()


LISTENING = {"host": "127.0.0.1", "port": 8000, "ssl_certfile": None}


def test_a_serve_that_runs_already_has_to_listen_as_it_is_to() -> None:
    assert cluster.agreed_port(LISTENING, LISTENING) == 8000
    assert cluster.agreed_port(LISTENING, {**LISTENING, "port": 0}) == 8000
    others = [("host", "0.0.0.0"), ("port", 9000), ("ssl_certfile", "/certificate.pem")]
    for name, other in others:
        with pytest.raises(InvalidInput, match=f"{name} {other} and not {LISTENING[name]}"):
            cluster.agreed_port({**LISTENING, name: other}, LISTENING)


def test_more_processes_than_this_machine_has_room_for_are_refused() -> None:
    def check(cpus: float, gpus: float = 0.0, **settings: str) -> None:
        there = {"CPU": cpus, "GPU": gpus}
        cluster.check_room(load_settings(settings, environment={}), there)

    check(3, ray_replicas="2")
    check(3, ray_replicas="2-8")
    check(2.5, 1, ray_replicas="2", ray_gpus="0.5")
    with pytest.raises(InvalidInput, match=r"4\.5 CPUs are needed and 3 there"):
        check(3, ray_replicas="4")
    with pytest.raises(InvalidInput, match="1 GPUs are needed and 0 there"):
        check(3, ray_gpus="1")

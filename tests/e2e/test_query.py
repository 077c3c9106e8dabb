"""Active learning over HTTP and on the command line: the same rows from both."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from service.client import BINARY_FROM, AsyncClient, Client
from service.errors import InvalidInput
from service.inference.choosing import strategies_of
from service.types import Task
from tests.e2e.servers import SHIPPED, Server
from tests.e2e.test_cli import candor
from tests.repositories import write_model

POOL = load_digits().images[:300, None].astype(np.float32)


@pytest.mark.parametrize("strategy", strategies_of(Task.CLASSIFICATION))
def test_every_strategy_gives_k_rows_and_a_repeat_gives_them_again(
    strategy: str, shipped: Server
) -> None:
    body = {"inputs": POOL[:60].tolist(), "model": "digits", "k": 7, "strategy": strategy}
    first = shipped.post("/query", {**body, "exclude": [0, 59]})
    assert first.status_code == 200, first.text
    answer = first.json()
    assert (answer["model"], answer["version"], answer["strategy"]) == ("digits", 1, strategy)
    assert (answer["passes"], answer["seed"]) == (50, 0)
    assert len(set(answer["indices"])) == len(answer["scores"]) == 7
    assert not {0, 59} & set(answer["indices"])
    again = shipped.post("/query", {**body, "exclude": [0, 59]}).json()
    # Sums in another order differ in the last of sixteen digits, entropies of order one.
    np.testing.assert_allclose(again.pop("scores"), answer.pop("scores"), rtol=0, atol=1e-6)
    assert again == answer


def test_scores_are_those_of_predict(shipped: Server) -> None:
    with Client(shipped.url) as client:
        found = client.query(POOL, 10, strategy="bald", model="digits", passes=30, seed=4)
        told = client.predict(POOL, model="digits", passes=30, seed=4)
    assert told.mutual_information is not None
    np.testing.assert_allclose(found.scores, told.mutual_information[found.indices], atol=1e-6)
    assert (found.passes, found.seed) == (30, 4)
    assert found.scores.min() >= np.sort(told.mutual_information)[-10] - 1e-6


def test_large_pools_travel_as_arrays_and_choose_alike(shipped: Server) -> None:
    assert POOL.size >= BINARY_FROM
    options = {"strategy": "batch_bald", "model": "digits", "exclude": [1, 2, 3]}
    with Client(shipped.url) as client:
        binary = client.query(POOL, 5, **options)  # type: ignore[arg-type]
    body = {"inputs": POOL.tolist(), "k": 5, **options}
    assert binary.indices.tolist() == shipped.post("/query", body).json()["indices"]

    async def again() -> list[int]:
        async with AsyncClient(shipped.url) as client:
            found = await client.query(POOL, 5, **options)  # type: ignore[arg-type]
            return [int(index) for index in found.indices]

    assert asyncio.run(again()) == binary.indices.tolist()


def test_more_rows_are_excluded_than_stand_in_any_query(shipped: Server) -> None:
    with Client(shipped.url) as client:
        few = client.query(POOL, 5, model="digits", exclude=[1, 2, 3])
        many = client.query(POOL, 5, model="digits", exclude=[1, 2, 3] * 20_000)
    assert many.indices.tolist() == few.indices.tolist()


def test_a_regression_pool(shipped: Server) -> None:
    years = np.linspace(1960, 2050, 40)[:, None]
    with Client(shipped.url) as client:
        alone = client.query(years, 4, model="co2")
        together = client.query(years, 4, model="co2", strategy="batch_bald")
    # Beyond its data the model knows least, and neighbours tell the same.
    assert set(alone.indices) == {36, 37, 38, 39}
    assert together.indices[0] == alone.indices[0]
    assert len(set(together.indices) & set(alone.indices)) < 4


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"strategy": "entropy"}, "strategy", "predictive_entropy"),
        ({"k": 0}, "k", "1"),
        ({"k": 6}, "k", "5 rows are left"),
        ({"k": 4, "exclude": [0, 1]}, "k", "3 rows are left"),
        ({"exclude": [5]}, "exclude", "0 to 4"),
        ({"exclude": [-1]}, "exclude", "0"),
        ({"passes": 1}, "passes", "2"),
        ({"budget": 3}, "budget", "strategy"),
        ({"inputs": [[1.0]]}, "inputs", "1, 8, 8"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, object], field: str, words: str, shipped: Server
) -> None:
    body = {"inputs": POOL[:5].tolist(), "model": "digits", "k": 2, **change}
    answer = shipped.post("/query", body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert words in str(answer.json())


def test_the_client_raises_what_the_server_says(shipped: Server) -> None:
    with Client(shipped.url) as client, pytest.raises(InvalidInput, match="is one of bald"):
        client.query(POOL[:5], 2, model="digits", strategy="entropy")


def test_a_selection_that_takes_long_does_not_keep_predictions_waiting(shipped: Server) -> None:
    with Client(shipped.url, timeout_s=120) as client:

        async def both() -> tuple[float, float]:
            async with AsyncClient(shipped.url, timeout_s=120) as patient:
                pool = np.concatenate([POOL] * 8)
                started = time.perf_counter()
                selecting = asyncio.create_task(
                    patient.query(pool, 60, strategy="batch_bald", model="digits", passes=20)
                )
                answered = 0
                while not selecting.done():
                    await patient.predict(POOL[:1], model="digits")
                    answered += 1
                    assert answered < 10_000
                await selecting
                return answered, time.perf_counter() - started

        answered, _ = asyncio.run(both())
        client.models()
    assert answered > 3


def test_the_command_chooses_what_the_server_does(shipped: Server, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", POOL)
    (tmp_path / "labelled.txt").write_text("1\n2\n3\n")
    words = ("--pool", str(tmp_path / "pool.npy"), "-k", "5", "--models", str(SHIPPED))
    more = ("--model", "digits", "--exclude", str(tmp_path / "labelled.txt"))
    for strategy in ("bald", "batch_bald"):
        done = candor("query", *words, *more, "--strategy", strategy)
        printed = [line.split("\t") for line in done.stdout.splitlines()]
        with Client(shipped.url) as client:
            told = client.query(POOL, 5, model="digits", strategy=strategy, exclude=[1, 2, 3])
        assert [int(index) for index, _ in printed] == told.indices.tolist()
        assert [float(score) for _, score in printed] == pytest.approx(told.scores, rel=1e-3)


def test_what_the_commands_cannot_do_is_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", POOL[:5])
    pool, models = str(tmp_path / "pool.npy"), ("--model", "digits", "--models", str(SHIPPED))
    (tmp_path / "words.txt").write_text("first second")
    for words, sentence in (
        (("query", "--pool", pool, "--strategy", "entropy"), "one of bald, predictive_entropy"),
        (("query", "--pool", pool, "-k", "6"), "5 rows are left"),
        (("query", "--pool", str(tmp_path / "pool.csv")), "expected .npy"),
        (("query", "--pool", pool, "--exclude", str(tmp_path / "words.txt")), "one a line"),
        (("score", pool, "-o", str(tmp_path / "scores.csv")), "should end in .parquet"),
        (("score", str(tmp_path / "none.npy"), "-o", "scores.parquet"), "cannot be read"),
    ):
        done = candor(*words, *models, code=1)
        assert sentence in done.stderr
        assert done.stderr.strip().count("\n") == 0, done.stderr


def test_scoring_that_was_killed_goes_on_and_ends_with_the_same_table(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "mine", more="passes = 10")
    rows = np.random.default_rng(0).normal(size=(400_000, 4)).astype(np.float32)
    np.save(tmp_path / "pool.npy", rows)
    words = ["score", str(tmp_path / "pool.npy"), "--models", str(tmp_path / "models")]
    whole, output = tmp_path / "whole.parquet", tmp_path / "scores.parquet"
    candor(*words, "-o", str(whole))
    process = subprocess.Popen(
        [sys.executable, "-m", "service", *words, "-o", str(output)],
        stderr=subprocess.DEVNULL,
    )
    try:
        parts = tmp_path / "scores.parquet.parts"
        while not (parts / "000001.arrow").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not output.exists()
    done = candor(*words, "-o", str(output))
    assert "of them by an earlier run" in done.stderr
    found, expected = pq.read_table(output), pq.read_table(whole)
    assert found.schema.equals(expected.schema)
    assert found["index"].equals(expected["index"])
    assert len(found) == 400_000
    # Two processes may add up in another order: float32 has seven digits.
    for name in ("mutual_information", "variance", "predictive_entropy"):
        np.testing.assert_allclose(
            found[name].to_numpy(), expected[name].to_numpy(), rtol=0, atol=1e-6
        )
    assert not parts.exists()

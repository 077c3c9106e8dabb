"""Kept requests over HTTP: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.api.app import build_service
from service.client import AsyncClient, Client, KeptSample
from service.errors import InvalidInput, SampleConflict, SampleNotFound
from service.settings import load_settings
from tests import waiting
from tests.databases import PostgreSQL, sqlite_address
from tests.e2e.servers import SHIPPED, Server, copied, serving

wait_for = functools.partial(waiting.wait_for, patience_s=30.0)
DIGITS = np.random.default_rng(0).uniform(0, 16, (12, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return sqlite_address(tmp_path_factory.mktemp("samples"))
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture(scope="module")
def keeping(database: str) -> Iterator[Server]:
    """The shipped models; all of digits and co2 is kept, nothing of breast_cancer."""
    environment = {"CANDOR_DATABASE_URL": database, "CANDOR_KEEP_SAMPLES": "digits=all,co2=all"}
    with serving(SHIPPED, environment=environment) as server:
        yield server


@pytest.fixture
def client(keeping: Server) -> Iterator[Client]:
    """For an empty store."""
    with Client(keeping.url) as made:
        for model in ("digits", "co2"):
            made.remove_samples(model=model)
        yield made


def fill(client: Client, rows: int = len(DIGITS)) -> None:
    """Predictions whose rows are in the store at the end."""
    client.predict(DIGITS[:rows], model="digits")
    wait_for(lambda: len(client.samples(model="digits").samples) == rows)


def test_a_prediction_is_kept_with_its_scores(client: Client, keeping: Server) -> None:
    answer = keeping.post(
        "/predict",
        {"model": "digits", "inputs": DIGITS[:3].tolist(), "return": ["mean"], "passes": 30},
        {"X-Request-ID": "first-of-all"},
    )
    assert answer.json().keys() >= {"mean"}
    assert "variance" not in answer.json()
    wait_for(lambda: len(client.samples(model="digits").samples) == 3)
    told = client.predict(DIGITS[:3], model="digits", passes=30)
    found = {sample.row: sample for sample in client.samples(model="digits").samples}
    for row, sample in found.items():
        np.testing.assert_array_equal(sample.input.astype(np.float32), DIGITS[row])
        assert (sample.request_id, sample.version) == ("first-of-all", 1)
        assert (sample.status, sample.label, sample.labelled_time) == ("unlabelled", None, None)
        for name in ("variance", "predictive_entropy", "mutual_information", "variation_ratio"):
            assert sample.scores[name] == pytest.approx(getattr(told, name)[row], abs=1e-6)
    one = keeping.get(f"/samples/{found[0].id}").json()
    assert one["id"] == found[0].id
    assert np.shape(one["input"]) == (1, 8, 8)


def test_pages_are_most_uncertain_first(client: Client) -> None:
    fill(client)
    seen: list[KeptSample] = []
    after = None
    while True:
        page = client.samples(model="digits", limit=5, after=after)
        seen += page.samples
        after = page.next
        if after is None:
            break
        # What ended the page may go before the next is asked for.
        if len(seen) == 5:
            client.skip(seen[-1].id)
    information = [sample.scores["mutual_information"] for sample in seen]
    assert information == sorted(information, reverse=True)
    assert len({sample.id for sample in seen}) == len(DIGITS)
    by_entropy = client.samples(model="digits", order="predictive_entropy").samples
    entropies = [sample.scores["predictive_entropy"] for sample in by_entropy]
    assert entropies == sorted(entropies, reverse=True)
    assert len(client.samples(model="digits", status="unlabelled").samples) == len(DIGITS) - 1


def test_a_regression_is_ordered_by_its_variance(client: Client) -> None:
    client.predict([[1975.5], [2090.0], [2000.0]], model="co2")
    wait_for(lambda: len(client.samples(model="co2").samples) == 3)
    samples = client.samples(model="co2").samples
    assert samples[0].input.tolist() == [2090.0]
    variances = [sample.scores["variance"] for sample in samples]
    assert variances == sorted(variances, reverse=True)
    assert "mutual_information" not in samples[0].scores


def test_nothing_is_kept_of_a_model_that_is_not_named(client: Client, keeping: Server) -> None:
    client.predict(np.zeros((2, 30)), model="breast_cancer")
    fill(client)
    assert client.samples(model="breast_cancer").samples == []


def test_two_annotators_never_get_the_same_sample(client: Client, keeping: Server) -> None:
    fill(client)

    async def annotate() -> list[str]:
        async with AsyncClient(keeping.url) as both:
            leases = await asyncio.gather(*(both.lease("digits", limit=3) for _ in range(6)))
            for lease in leases:
                for sample in lease.samples:
                    await both.label(sample.id, 3, lease=lease.lease)
            return [sample.id for lease in leases for sample in lease.samples]

    labelled = asyncio.run(annotate())
    assert len(labelled) == len(set(labelled)) == len(DIGITS)
    assert len(client.samples(model="digits", status="labelled").samples) == len(DIGITS)


def test_what_is_leased_is_nobody_elses_until_the_lease_ends(client: Client) -> None:
    fill(client, 2)
    mine = client.lease("digits", limit=1, seconds=1.5)
    [sample] = mine.samples
    assert sample.id == client.samples(model="digits").samples[0].id
    with pytest.raises(SampleConflict, match="somebody else's") as raised:
        client.label(sample.id, 1)
    assert 0 < (raised.value.retry_after_s or 0) <= 2
    assert [s.id for s in client.lease("digits").samples] != [sample.id]
    time.sleep(1.6)
    assert client.label(sample.id, 1).label == "1"


def test_labels_and_skips(client: Client) -> None:
    fill(client, 3)
    first, second, third = client.samples(model="digits").samples
    done = client.label(first.id, np.int64(7))
    assert (done.label, done.status) == ("7", "labelled")
    assert done.labelled_time is not None
    assert client.label(first.id, "8").label == "8"
    assert client.skip(second.id).status == "skipped"
    assert [s.id for s in client.samples(model="digits", status="unlabelled").samples] == [third.id]
    assert client.samples(model="digits", status="skipped").samples[0].id == second.id


def test_a_lease_is_renewed_and_given_back(client: Client) -> None:
    fill(client, 3)
    first, second, third = client.samples(model="digits").samples
    mine = client.lease("digits", limit=2, seconds=30.0)
    assert mine.lease is not None
    client.label(first.id, 1, lease=mine.lease)
    assert client.renew(mine.lease, seconds=600.0) == [second.id]
    with pytest.raises(SampleConflict, match="for another") as raised:
        client.label(second.id, 1)
    assert (raised.value.retry_after_s or 0) > 500
    assert client.release(mine.lease) == 1
    assert client.renew(mine.lease) == []
    assert [s.id for s in client.lease("digits", limit=9).samples] == [second.id, third.id]


def test_a_label_and_a_skip_are_undone(client: Client) -> None:
    fill(client, 3)
    mine = client.lease("digits", limit=2)
    first, second = mine.samples
    client.label(first.id, 1, lease=mine.lease)
    client.skip(second.id, lease=mine.lease)
    undone = client.undo(first.id, lease=mine.lease, seconds=60.0)
    assert (undone.status, undone.label, undone.labelled_time) == ("unlabelled", None, None)
    assert first.id not in [s.id for s in client.lease("digits", limit=9).samples]
    assert client.label(first.id, 2, lease=mine.lease).label == "2"
    # The same again is what a client sends that heard no answer.
    assert client.label(first.id, 2, lease=mine.lease).label == "2"
    client.label(first.id, 3)
    with pytest.raises(SampleConflict, match="was not decided by this lease"):
        client.undo(first.id, lease=mine.lease)
    assert client.undo(second.id).status == "unlabelled"
    with pytest.raises(SampleConflict, match="nothing to undo"):
        client.undo(second.id)


def test_progress_is_counted(client: Client, keeping: Server) -> None:
    fill(client, 5)
    assert len(client.lease("digits", limit=2, seconds=60.0).samples) == 2
    other = client.samples(model="digits", status="unlabelled").samples[-1]
    client.label(other.id, 4)
    [digits] = client.counts(model="digits")
    assert digits.model_dump() == {
        "model": "digits",
        "unlabelled": 4,
        "leased": 2,
        "labelled": 1,
        "skipped": 0,
    }
    assert client.counts() == [digits]
    # One whose samples are none, yet.
    [none] = client.counts(model="co2")
    assert (none.unlabelled, none.labelled) == (0, 0)

    async def the_same() -> list[str]:
        async with AsyncClient(keeping.url) as both:
            assert await both.counts(model="digits") == [digits]
            assert (await both.undo(other.id)).status == "unlabelled"
            lease = await both.lease("digits", limit=1)
            assert lease.lease is not None
            held = await both.renew(lease.lease, seconds=60.0)
            assert await both.release(lease.lease) == 1
            return held

    assert len(asyncio.run(the_same())) == 1


def test_what_was_labelled_leaves_as_a_training_set(client: Client, keeping: Server) -> None:
    fill(client, 4)
    digits = {}
    for number, sample in enumerate(client.samples(model="digits").samples[:3]):
        client.label(sample.id, number + 4)
        digits[number + 4] = sample.input.astype(np.float32)
    arrays = client.export("digits")
    assert sorted(arrays["y"].tolist()) == [4, 5, 6]
    for x, y in zip(arrays["x"], arrays["y"], strict=True):
        np.testing.assert_array_equal(x, digits[int(y)])
    assert len(client.export("digits", status="unlabelled")["x"]) == 1
    lines = keeping.get("/samples/export?model=digits&status=all").text.splitlines()
    assert sorted(str(json.loads(line)["label"]) for line in lines) == ["4", "5", "6", "None"]
    answer = keeping.get("/samples/export?model=digits&format=parquet")
    assert answer.headers["Content-Disposition"].endswith('"samples-digits.parquet"')
    table = pq.read_table(io.BytesIO(answer.content))
    assert sorted(table["label"].to_pylist()) == ["4", "5", "6"]


def test_deleted_is_deleted(client: Client, keeping: Server) -> None:
    fill(client, 3)
    for request_id in ("one", "two"):
        keeping.post(
            "/predict",
            {"model": "co2", "inputs": [[float(len(request_id) * ord(request_id[0]))]]},
            {"X-Request-ID": request_id},
        )
    # What waits to be written when the deletion comes is deleted, too.
    assert client.remove_samples(request_id="one") == 1
    wait_for(lambda: len(client.samples(model="co2").samples) == 1)
    sample = client.samples(model="digits").samples[0]
    assert keeping.request("DELETE", f"/samples/{sample.id}").json() == {"deleted": 1}
    assert keeping.get(f"/samples/{sample.id}").status_code == 404
    assert client.remove_samples(model="digits") == 2
    assert client.samples(model="digits").samples == []
    with pytest.raises(SampleNotFound):
        client.label(sample.id, 1)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "words"),
    [
        ("GET", "?status=done", None, 422, "status", "unlabelled"),
        ("GET", "?order=confidence", None, 422, "order", "mutual_information"),
        ("GET", "?limit=0", None, 422, "limit", "1"),
        ("GET", "?limit=many", None, 422, "limit", "integer"),
        ("GET", "?after=here", None, 422, "after", "next"),
        ("GET", "?pages=2", None, 422, "pages", "limit"),
        ("GET", "?model=cats", None, 404, "model", "digits"),
        ("GET", "/none", None, 404, "id", "no sample none"),
        ("GET", "/export?format=csv", None, 422, "format", "parquet"),
        ("GET", "/export?format=npz", None, 422, "model", "missing"),
        ("GET", "/export?format=npz&model=cats", None, 404, "model", "digits"),
        ("DELETE", "", None, 422, "model", "request_id"),
        ("DELETE", "/none", None, 404, "id", "no sample none"),
        ("POST", "/none/label", b'{"label": 1}', 404, "id", "no sample none"),
        ("POST", "/none/skip", None, 404, "id", "no sample none"),
        ("POST", "/ID/label", None, 422, "body", "missing"),
        ("POST", "/ID/label", b"{", 400, "body", "not JSON"),
        ("POST", "/ID/label", b"[1]", 422, "body", "JSON object"),
        ("POST", "/ID/label", b"{}", 422, "label", "missing"),
        ("POST", "/ID/label", b'{"lable": 1}', 422, "lable", "label"),
        ("POST", "/ID/label", b'{"label": "ten"}', 422, "label", "'ten'"),
        ("POST", "/ID/skip", b'{"label": 1}', 422, "label", "lease"),
        ("GET", "?model=co2&model=digits", None, 422, "model", "twice"),
        ("GET", "?model=%00", None, 422, "model", "pattern"),
        ("GET", "/%00", None, 404, "id", "no sample"),
        ("GET", "/export?model=cats", None, 404, "model", "digits"),
        ("DELETE", "?model=cats", None, 404, "model", "digits"),
        ("POST", "/ID/label", b'{"label": "\\ud800"}', 422, "label", "one of 0, 1"),
        ("POST", "/ID/label", b'{"label": 1, "lease": "\\ud800"}', 422, "lease", "`lease` is"),
        ("POST", "/lease", b'{"model": "\\ud800"}', 422, "model", "string"),
        ("POST", "/lease", b'{"model": "cats"}', 404, "model", "digits"),
        ("POST", "/lease", b'{"model": "digits", "seconds": -1}', 422, "seconds", "greater than 0"),
        ("POST", "/lease/renew", b"{}", 422, "lease", "missing"),
        ("POST", "/lease/release", b'{"lease": "mine"}', 422, "lease", "`lease` is"),
        ("POST", "/none/undo", None, 404, "id", "no sample none"),
        ("POST", "/ID/undo", b'{"seconds": 0}', 422, "seconds", "greater than 0"),
        ("POST", "/ID/undo", None, 409, "lease", "nothing to undo"),
        ("GET", "/counts?model=cats", None, 404, "model", "digits"),
        ("GET", "/counts?status=all", None, 422, "status", "model"),
    ],
)
def test_what_does_not_fit_is_named(
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    field: str,
    words: str,
    client: Client,
    keeping: Server,
) -> None:
    if "ID" in path:
        fill(client, 1)
        path = path.replace("ID", client.samples(model="digits").samples[0].id)
    answer = keeping.request(
        method,
        f"/samples{path}",
        content=body,
        headers={"Content-Type": "application/json"} if body else None,
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert words in answer.text


def test_bodies_are_bounded_and_not_sent_back(client: Client, keeping: Server) -> None:
    fill(client, 1)
    path = f"/samples/{client.samples(model='digits').samples[0].id}/label"
    answer = keeping.post(path, {"label": "x" * 10**6})
    assert answer.status_code == 422
    assert len(answer.content) < 4000
    headers = {"Content-Type": "application/json"}
    too_large = b'{"label": "' + b"x" * (64 * 2**20) + b'"}'
    answer = keeping.request("POST", path, content=too_large, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
    text = {"Content-Type": "text/csv"}
    answer = keeping.request("POST", path, content=b"label,1", headers=text)
    assert (answer.status_code, answer.json()["field"]) == (415, "Content-Type")


def test_what_was_kept_is_counted(client: Client, keeping: Server) -> None:
    def kept() -> float:
        line = 'candor_samples_kept_total{model="digits"}'
        [found] = [x for x in keeping.get("/metrics").text.splitlines() if x.startswith(line)]
        return float(found.split()[-1])

    fill(client, 2)
    before = kept()
    client.predict(DIGITS[:5], model="digits")
    # Two of the five are there already.
    wait_for(lambda: kept() == before + 3)
    assert "candor_sample_store_up 1.0" in keeping.get("/metrics").text
    assert "candor_samples_dropped_total 0.0" in keeping.get("/metrics").text


def test_nothing_is_kept_unless_it_is_switched_on(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    environment = {"CANDOR_DATABASE_URL": sqlite_address(store)}
    with serving(copied(tmp_path / "models", "digits"), environment=environment) as server:
        with Client(server.url) as client:
            client.predict(DIGITS, model="digits")
        time.sleep(0.5)
        assert list(store.iterdir()) == []
        assert server.get("/samples").json() == {"samples": [], "next": None}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"CANDOR_KEEP_SAMPLES": "sometimes"}, "expected off, uncertain"),
        ({"CANDOR_KEEP_SCORE": "doubt"}, "CANDOR_KEEP_SCORE"),
        ({"CANDOR_DATABASE_URL": "mysql://here/there"}, "sqlite:///FILE or postgresql://"),
    ],
)
def test_settings_that_do_not_fit_end_the_server_at_once(
    environment: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        build_service(load_settings({"models": SHIPPED}, environment))

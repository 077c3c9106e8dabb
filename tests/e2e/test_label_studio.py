"""Label Studio's calls, as its own connector makes them, against a real server.

What it sends and what it reads back is in label_studio/ml_api_connector.py and ml/models.py of
https://github.com/HumanSignal/label-studio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.client import Client
from tests.e2e.servers import Server, serving
from tests.repositories import write_model

CHOICES = """<View>
  <Image name="image" value="$image"/>
  <Choices name="kind" toName="image"><Choice value="0"/><Choice value="1"/></Choices>
</View>"""
NUMBER = '<View><Text name="text" value="$text"/><Number name="how_much" toName="text"/></View>'
ROWS = np.random.default_rng(0).normal(0, 3, (12, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("label_studio")
    write_model(root, "kinds", more='labels = ["cat", "dog", "owl"]')
    write_model(root, "many", task="multilabel")
    write_model(root, "amounts", task="regression")
    with serving(root, "--default-model", "kinds") as running:
        yield running


def body(label_config: str | None = CHOICES, rows: Any = ROWS) -> dict[str, Any]:
    tasks = [
        {"id": number, "data": {"image": "https://images/1.png", "input": row.tolist()}}
        for number, row in enumerate(rows)
    ]
    return {
        "tasks": tasks,
        "project": "7.1789000000",
        "label_config": label_config,
        "params": {"login": None, "password": None, "context": None},
    }


def test_a_backend_is_added(server: Server) -> None:
    assert server.get("/label-studio/health").json() == {"status": "UP", "model_class": "kinds"}
    assert server.get("/label-studio/many/health").json()["model_class"] == "many"
    asked = {
        "project": "7.1789000000",
        "schema": CHOICES,
        "hostname": "http://localhost:8080",
        "access_token": "secret",
        "extra_params": None,
    }
    assert server.post("/label-studio/setup", asked).json() == {"model_version": "kinds:1"}


def test_predictions_come_with_a_label_and_a_certainty(server: Server) -> None:
    answer = server.post("/label-studio/predict", body()).json()
    assert answer["model_version"] == "kinds:1"
    with Client(server.url) as client:
        told = client.predict(ROWS, model="kinds")
    assert told.label is not None
    assert told.mutual_information is not None
    assert len(answer["results"]) == len(ROWS)
    for prediction, label in zip(answer["results"], told.label, strict=True):
        assert prediction["model_version"] == "kinds:1"
        [region] = prediction["result"]
        assert region == {
            "from_name": "kind",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [label]},
        }
    # Label Studio takes the lowest score first: that of which the model knows least.
    scores = [prediction["score"] for prediction in answer["results"]]
    np.testing.assert_allclose(scores, 1 - told.mutual_information / np.log(3), atol=1e-6)
    assert int(np.argmin(scores)) == int(np.argmax(told.mutual_information))


def test_a_regression_fills_a_number(server: Server) -> None:
    answer = server.post("/label-studio/amounts/predict", body(NUMBER)).json()
    with Client(server.url) as client:
        told = client.predict(ROWS, model="amounts")
    assert told.mean is not None
    assert told.variance is not None
    for prediction, mean_C in zip(answer["results"], told.mean, strict=True):
        [region] = prediction["result"]
        assert (region["from_name"], region["type"]) == ("how_much", "number")
        assert region["value"]["number"] == pytest.approx(mean_C[0], rel=1e-5)
    scores = [prediction["score"] for prediction in answer["results"]]
    np.testing.assert_allclose(scores, 1 / (1 + told.variance), rtol=1e-5)


def test_a_multilabel_task_chooses_several(server: Server) -> None:
    answer = server.post("/label-studio/many/predict", body()).json()
    with Client(server.url) as client:
        told = client.predict(ROWS, model="many")
    assert told.label is not None
    for prediction, holds_C in zip(answer["results"], told.label, strict=True):
        chosen = prediction["result"][0]["value"]["choices"]
        assert chosen == [str(index) for index in np.flatnonzero(holds_C)]
        assert 0 <= prediction["score"] <= 1


def test_no_tasks_and_no_interface(server: Server) -> None:
    assert server.post("/label-studio/predict", body(rows=[])).json()["results"] == []
    for prediction in server.post("/label-studio/predict", body(None)).json()["results"]:
        assert prediction["result"] == []
        assert 0 <= prediction["score"] <= 1


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("path", "change", "status", "field", "words"),
    [
        ("/cats/predict", {}, 404, "model", "kinds"),
        ("/predict", {"tasks": [{"data": {"image": "x"}}]}, 422, "tasks[0].data.input", "image"),
        ("/predict", {"tasks": [{"id": 1}]}, 422, "tasks[0].data.input", "no data"),
        ("/predict", {"tasks": [{"data": {"input": [1, 2]}}]}, 422, "inputs", "[B, 4]"),
        ("/predict", {"tasks": None}, 422, "tasks", "list"),
        ("/predict", {"label_config": NUMBER}, 422, "label_config", "<Choices>"),
        ("/amounts/predict", {"label_config": CHOICES}, 422, "label_config", "<Number>"),
        ("/predict", {"label_config": "<View>"}, 422, "label_config", "cannot be read"),
        ("/predict", {"label_config": BOMB}, 422, "label_config", "document type"),
        ("/setup", {"schema": NUMBER}, 422, "label_config", "<Choices>"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    path: str, change: dict[str, Any], status: int, field: str, words: str, server: Server
) -> None:
    answer = server.post(f"/label-studio{path}", {**body(), **change})
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert words in answer.text

"""A server that keeps samples is killed under load, again and again: nothing that it said it kept
is lost, and nothing is there twice."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from service.store.samples import SampleStore
from tests.e2e.servers import serving
from tests.repositories import write_model

KILLS = int(os.environ.get("KILLS", "1"))
"""Of each database; `make kill-store` does it twenty times."""

WRITERS = 8
REQUESTS = 10_000
"""Of each model, if nobody killed the server before."""

MODELS = ("first", "second")


class Load:
    """Eight writers with distinct inputs, and an eye on what the server says it kept."""

    def __init__(self, url: str, run: int) -> None:
        self.kept: dict[str, float] = dict.fromkeys(MODELS, 0.0)
        self.shown: set[str] = set()
        self._url = url
        self._run = run
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)
        ]
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30.0) as http:
            for number in range(writer, REQUESTS, WRITERS):
                for model in MODELS:
                    body = {"model": model, "inputs": [[self._run, number, 0, 0]], "passes": 2}
                    name = f"{model}-{self._run}-{number}"
                    try:
                        http.post("/predict", json=body, headers={"X-Request-ID": name})
                    except httpx.TransportError:
                        return

    def _watch(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30.0) as http:
            while not self._ended.is_set():
                try:
                    lines = http.get("/metrics").text.splitlines()
                    samples = http.get("/samples", params={"limit": 1000}).json()["samples"]
                except httpx.TransportError:
                    return
                self.shown |= {sample["request_id"] for sample in samples}
                for model in MODELS:
                    start = f'candor_samples_kept_total{{model="{model}"}}'
                    for line in lines:
                        if line.startswith(start):
                            self.kept[model] = float(line.split()[-1])
                time.sleep(0.02)


def test_what_was_said_to_be_kept_is_there_once_after_every_kill(url: str, tmp_path: Path) -> None:
    moments = random.Random(0)
    root = tmp_path / "models"
    for model in MODELS:
        write_model(root, model)
    store = SampleStore(url)
    environment = {"CANDOR_DATABASE_URL": url, "CANDOR_KEEP_SAMPLES": "all"}
    said: Counter[str] = Counter()
    shown: set[str] = set()
    for run in range(KILLS):
        with serving(root, environment=environment) as server:
            load = Load(server.url, run)
            # At a random moment from the first samples that are said to be kept.
            deadline = time.monotonic() + 60.0
            while not all(load.kept.values()) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 1.2))
            server.process.kill()
            load.end()
        for model, count in load.kept.items():
            said[model] += int(count)
        shown |= load.shown
        # It opens, as it was left.
        held = Counter(found.request_id for found in store.every(None, None))
        assert set(held.values()) <= {1}
        assert shown <= held.keys()
        for model in MODELS:
            assert sum(name.startswith(f"{model}-") for name in held) >= said[model]
    assert min(said.values()) > 0
    inputs = {(s.model, *np.ravel(s.input).tolist()) for s in store.every(None, None)}
    assert len(inputs) == sum(store.counts().values())
    store.close()

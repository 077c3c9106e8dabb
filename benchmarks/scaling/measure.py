"""What a request takes of a replica: seconds of each of its threads, seen by the kernel.

The replica is a `candor serve` of its own that has one processor and one thread to compute with;
the load generator has another processor, so that neither takes anything from the other.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import ARRAYS, JSON, post, press, press_several
from benchmarks.networks import NETWORKS
from benchmarks.scaling.model import Cost, split
from benchmarks.servers import CANDOR, Peer, started, write_repository

GENERATOR = 1
"""The processor of the load generator while one replica is measured."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MOST_CONNECTIONS = 64
_ENOUGH_S = 0.2
"""Of work that is under way at a time, so that the replica always has some."""
PRECISION = "float32"
"""`auto` measures at load, and two replicas that do may choose differently."""


@dataclass(frozen=True)
class Kind:
    """What is asked: so many rows of a network, T passes each, as JSON or as .npy."""

    network: str
    rows: int
    passes: int
    arrays: bool = False

    @property
    def form(self) -> str:
        """As a table says it."""
        return ".npy" if self.arrays else "JSON"

    def request(self) -> bytes:
        """As it goes over the wire."""
        shape = (self.rows, *NETWORKS[self.network]().shape)
        inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        if not self.arrays:
            body = {"model": self.network, "passes": self.passes, "inputs": inputs.tolist()}
            return post(json.dumps(body).encode(), JSON)
        file = io.BytesIO()
        np.save(file, inputs)
        asked = urlencode({"model": self.network, "passes": self.passes})
        return post(file.getvalue(), ARRAYS, f"/predict?{asked}")


@dataclass(frozen=True)
class Replica:
    """A running server: its port and its process."""

    port: int
    process: int


@dataclass(frozen=True)
class Seen:
    """What a load saw: rate, latencies, and seconds of a processor that each request took.

    Args:
        requests_per_s: of all replicas.
        p50_s: of the latencies.
        p99_s: of the latencies.
        http_s: of the thread that reads and writes.
        engine_s: of all other threads.
        together: requests of a batch, on average.
        generator_share: of a processor that the load generator took.
    """

    requests_per_s: float
    p50_s: float
    p99_s: float
    http_s: float
    engine_s: float
    together: float
    generator_share: float


@contextmanager
def replicas(names: Sequence[str], processors: Sequence[int]) -> Iterator[list[Replica]]:
    """Servers of these networks, each on its own processor of this machine.

    Args:
        names: of the networks.
        processors: one number a replica.

    Raises:
        RuntimeError: one did not start.
    """
    taskset = shutil.which("taskset")
    if taskset is None:
        raise RuntimeError("taskset is missing, which ties a process to a processor: util-linux")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as all_of_them:
        write_repository(Path(folder, "models"), names)
        found = []
        for processor in processors:
            words = ("-c", str(processor), sys.executable, "-m", "service", "serve")
            environment = {
                "CANDOR_MODELS": f"{folder}/models",
                "CANDOR_DATABASE_URL": f"sqlite:///{folder}/samples.sqlite",
                "CANDOR_PRECISION": PRECISION,
                "CANDOR_DEFAULT_MODEL": names[0],
                "CANDOR_LOG_LEVEL": "error",
                "OMP_NUM_THREADS": "1",
            }
            peer = Peer(CANDOR, Path(taskset), (*words, "--port", "{port}"), environment)
            port, process = all_of_them.enter_context(started(peer, _ready))
            found.append(Replica(port, process.pid))
        yield found


def _ready(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


@contextmanager
def generating_on(processors: set[int]) -> Iterator[None]:
    """This process, the load generator, on these processors alone."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def processor_s(process: int) -> tuple[float, float]:
    """Seconds of a processor that a process's first thread has had, and all its others together.

    In `candor serve` the first one is the event loop; what computes is among the others.
    """
    first_s = others_s = 0.0
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            # It ended between the two looks.
            continue
        ticks = int(fields[11]) + int(fields[12])
        if task.name == str(process):
            first_s += ticks / _TICKS_PER_S
        else:
            others_s += ticks / _TICKS_PER_S
    return first_s, others_s


def batches(port: int, model: str) -> tuple[float, float]:
    """Rows and batches that a server has counted of a model."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30.0).text
    counted = {"sum": 0.0, "count": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name == "candor_batch_rows" and sample.labels.get("model") == model:
                kind = sample.name.rpartition("_")[2]
                if kind in counted:
                    counted[kind] += sample.value
    return counted["sum"], counted["count"]


def load(all_of_them: Sequence[Replica], kind: Kind, connections: int, seconds: float) -> Seen:
    """Press replicas and see what it took."""
    counted = [batches(each.port, kind.network) for each in all_of_them]
    used = [processor_s(each.process) for each in all_of_them]
    ports = [each.port for each in all_of_them]
    found = press_several(ports, kind.request(), connections, seconds)
    more_used = [processor_s(each.process) for each in all_of_them]
    more_counted = [batches(each.port, kind.network) for each in all_of_them]
    http_s, engine_s = _more(used, more_used)
    rows, ran = _more(counted, more_counted)
    requests = rows / kind.rows
    return Seen(
        found.requests_per_s,
        found.p50_s,
        found.p99_s,
        http_s / requests,
        engine_s / requests,
        max(1.0, requests / ran),
        found.generator_share,
    )


def _more(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """How much two counters have grown, those of all replicas together."""
    first, second = (
        sum(now[which] - then[which] for then, now in zip(before, after, strict=True))
        for which in (0, 1)
    )
    return first, second


def connections_for(alone_s: float) -> int:
    """As many as keep a replica busy whose requests take so long alone."""
    return max(2, min(_MOST_CONNECTIONS, math.ceil(_ENOUGH_S / alone_s)))


def measure(replica: Replica, kind: Kind, seconds: float) -> tuple[Seen, Seen]:
    """A replica that is asked one request at a time, and one that always has some waiting."""
    request = kind.request()
    press(replica.port, request, 1, seconds / 4)
    alone = load([replica], kind, 1, seconds)
    connections = connections_for(alone.p50_s)
    press(replica.port, request, connections, seconds / 4)
    full = load([replica], kind, connections, seconds)
    return alone, full


def cost(alone: Seen, full: Seen) -> Cost:
    """Of a request, parted into what a batch takes and what each request adds."""
    http_batch_s, http_s = split(alone.http_s, full.http_s, full.together)
    engine_batch_s, engine_s = split(alone.engine_s, full.engine_s, full.together)
    return Cost(http_batch_s, http_s, engine_batch_s, engine_s)


def wire_bytes(replica: Replica, kind: Kind) -> tuple[int, int]:
    """Of a request and of its answer, heads and all, without what TCP adds."""
    request = kind.request()
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    path = first.split()[1]
    url = f"http://127.0.0.1:{replica.port}{path}"
    answer = httpx.post(url, content=body, headers=headers, timeout=120.0)
    answer.raise_for_status()
    head_bytes = sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)
    return len(request), len(b"HTTP/1.1 200 OK\r\n\r\n") + head_bytes + len(answer.content)

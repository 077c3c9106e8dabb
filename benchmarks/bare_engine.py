"""Scheduler and engine without HTTP, in a process of its own, as the server has them.

Reads `CONNECTIONS SECONDS` lines, writes the requests a second of each: see `benchmarks.service`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.servers import write_repository
from service.api.predict import DEFAULT_FIELDS
from service.inference.devices import resources
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.scheduling.runner import Runner
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.settings import load_settings

ROWS = 256
_TIMEOUT_S = 600.0


async def press(model: LoadedModel, runner: Runner, connections: int, seconds: float) -> float:
    """Requests of `ROWS` rows a second, so many at a time."""
    inputs = torch.randn(ROWS, 60, generator=torch.Generator().manual_seed(0))
    plan = model.manifest.plan_for()
    started = time.perf_counter()

    async def one() -> int:
        done = 0
        while time.perf_counter() < started + seconds:
            await runner.submit(model, inputs, plan, DEFAULT_FIELDS, timeout_s=_TIMEOUT_S)
            done += 1
        return done

    done = sum(await asyncio.gather(*(one() for _ in range(connections))))
    return done / (time.perf_counter() - started)


def main() -> None:
    """Answer each line until there are no more."""
    settings = load_settings()
    with tempfile.TemporaryDirectory() as folder:
        write_repository(Path(folder))
        registry = Registry(Path(folder), resources(settings))
        registry.scan()
        # In a thread that ends, as in the server: OpenMP keeps a team of threads for every thread
        # that ever ran an operation, and once there are more than processors they hardly spin.
        loader = threading.Thread(target=registry.load_all)
        loader.start()
        loader.join()
    model = registry.resolve("mlp", None)
    limits = QueueLimits(settings.queue_requests, settings.queue_bytes, settings.queue_work)
    scheduler = Scheduler(settings.batch_work, settings.batch_seconds, limits)
    runner = Runner(scheduler, Metrics())
    for line in sys.stdin:
        connections, seconds = line.split()
        print(asyncio.run(press(model, runner, int(connections), float(seconds))), flush=True)
    runner.close()


if __name__ == "__main__":
    main()

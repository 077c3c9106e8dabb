"""Ray Serve with @serve.batch.

PORT=9004 .venv-peers/ray/bin/python -m benchmarks.peers.with_ray
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from ray import serve
from starlette.requests import Request
from torch import Tensor

from benchmarks.networks import by_repeat, mlp, stochastic, summarize

PASSES = 50
NAMES = ("mean", "std", "predictive_entropy", "mutual_information")


@serve.deployment(max_ongoing_requests=256)
class Service:
    """Rows of a batch are joined along their first dimension and parted again."""

    def __init__(self) -> None:
        self.module = stochastic(mlp().module)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def sample(self, inputs: list[Tensor]) -> list[dict[str, Any]]:
        sizes = [len(one) for one in inputs]
        with torch.inference_mode():
            summary = summarize(by_repeat(self.module, torch.cat(inputs), PASSES))
        parts = zip(*(part.split(sizes) for part in summary), strict=True)
        return [dict(zip(NAMES, (p.tolist() for p in row), strict=True)) for row in parts]

    async def __call__(self, request: Request) -> Any:
        return await self.sample(torch.tensor((await request.json())["inputs"]))


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Service.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    while True:
        time.sleep(60)

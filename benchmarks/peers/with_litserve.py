"""LitServe with dynamic batching.

PORT=9002 .venv-peers/litserve/bin/python -m benchmarks.peers.with_litserve
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import litserve
import torch
from torch import Tensor

from benchmarks.networks import by_repeat, mlp, stochastic, summarize

PASSES = 50
NAMES = ("mean", "std", "predictive_entropy", "mutual_information")


class Predict(litserve.LitAPI):
    """Rows of a batch are joined along their first dimension and parted again.

    LitServe makes FastAPI parameters of the annotations of decode and encode: these have none.
    """

    def setup(self, device: str) -> None:
        self.module = stochastic(mlp().module)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return torch.tensor(request["inputs"])

    def batch(self, inputs: Sequence[Tensor]) -> Tensor:
        self.sizes = [len(one) for one in inputs]
        return torch.cat(list(inputs))

    def predict(self, inputs: Tensor) -> Sequence[Tensor]:
        with torch.inference_mode():
            return summarize(by_repeat(self.module, inputs, PASSES))

    def unbatch(self, output: Sequence[Tensor]) -> list[Any]:
        return list(zip(*(part.split(self.sizes) for part in output), strict=True))

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return {name: part.tolist() for name, part in zip(NAMES, output, strict=True)}


if __name__ == "__main__":
    litserve.LitServer(Predict(max_batch_size=64, batch_timeout=0.002), accelerator="cpu").run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        generate_client_file=False,
        log_level="warning",
    )

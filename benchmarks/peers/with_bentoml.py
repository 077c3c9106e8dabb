"""BentoML with adaptive batching.

.venv-peers/bentoml/bin/bentoml serve benchmarks.peers.with_bentoml:Service --port 9003
"""

# BentoML reads the annotations as types: no `from __future__ import annotations` here.

import bentoml
import numpy as np
import torch

from benchmarks.networks import by_repeat, mlp, stochastic, summarize

PASSES = 50


@bentoml.service(workers=1, traffic={"timeout": 60})
class Service:
    """A batch is one array, so that the answer is one, too: the summary's parts side by side."""

    def __init__(self) -> None:
        self.module = stochastic(mlp().module)

    @bentoml.api(
        batchable=True, batch_dim=0, max_batch_size=64, max_latency_ms=1000, route="/predict"
    )
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            rows = torch.as_tensor(inputs, dtype=torch.float32)
            mean, std, entropy, information = summarize(by_repeat(self.module, rows, PASSES))
        return torch.cat([mean, std, entropy[:, None], information[:, None]], dim=1).numpy()

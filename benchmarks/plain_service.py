"""What people write today: FastAPI around a loop, or around one repeated batch.

PORT=9001 HOW=loop python -m benchmarks.plain_service
"""

from __future__ import annotations

import os
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.networks import by_loop, by_repeat, mlp, stochastic, summarize

PASSES = 50


class Inputs(BaseModel):
    """A batch of rows."""

    inputs: list[list[float]]


def build_app(how: str) -> FastAPI:
    """The application; `how` is loop or repeat."""
    module = stochastic(mlp().module)
    sample = by_loop if how == "loop" else by_repeat
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Inputs) -> dict[str, Any]:
        samples = sample(module, torch.tensor(body.inputs), PASSES)
        names = ("mean", "std", "predictive_entropy", "mutual_information")
        return dict(zip(names, (t.tolist() for t in summarize(samples)), strict=True))

    return app


if __name__ == "__main__":
    uvicorn.run(
        build_app(os.environ["HOW"]),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
    )

"""What KServe's own client sees of a server, as one JSON document.

Run by the Python of an environment that has it: python kserve_client.py URL
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def request(*, binary: bool, value: float | None = None, **parameters: Any) -> InferRequest:
    """One that asks for three outputs, in the form that its input has."""
    one = InferInput("input", [3, 4], "FP32")
    rows = ROWS if value is None else np.full_like(ROWS, value)
    one.set_data_from_numpy(rows, binary_data=binary)
    wanted = [
        RequestedOutput(name, {"binary_data": binary}) for name in ("mean", "label", "samples")
    ]
    return InferRequest(
        "good", [one], request_id="mine", parameters=parameters, request_outputs=wanted
    )


def seen(response: Any) -> dict[str, Any]:
    """An answer as KServe reads it."""
    return {
        "id": response.id,
        "model": response.model_name,
        "parameters": response.parameters,
        **{one.name: one.as_numpy().tolist() for one in response.outputs},
    }


async def ask(url: str) -> dict[str, Any]:
    """Everything that its client can ask for."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "good"),
            "broken_ready": await client.is_model_ready(url, "raises"),
        }
        for binary in (True, False):
            asked = request(binary=binary, passes=9, seed=4)
            found = await client.infer(url, asked, model_name="good")
            answers[f"binary {binary}"] = seen(found)
            odd = await client.infer(url, request(binary=binary, value=3e38), model_name="good")
            [mean] = [one.as_numpy() for one in odd.outputs if one.name == "mean"]
            answers[f"not a number {binary}"] = bool(np.isnan(mean).all())
        try:
            await client.infer(url, request(binary=True, passes=1), model_name="good")
        except Exception as error:
            answers["error"] = str(error)
    return answers


if __name__ == "__main__":
    json.dump(asyncio.run(ask(sys.argv[1])), sys.stdout)

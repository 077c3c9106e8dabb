"""The endpoints that carry the load: they need only a desk, so that any process may answer them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response

from service.api import evaluate, predict
from service.api.inference_protocol import infer

Endpoint = Callable[[Request], Awaitable[Response]]

DIRECT: Mapping[str, Endpoint] = {
    "/predict": predict.predict,
    "/eval": evaluate.evaluate,
    infer.ROUTE: infer.infer,
}
"""By route, for POST."""

"""`Client` and `AsyncClient`: Candor over HTTP, with numpy arrays in and out. Imports no torch.

from service.client import Client

with Client("http://127.0.0.1:8000") as candor:
    answer = candor.predict([[1975.5], [2030.0]], model="co2")
    print(answer.mean, answer.std)
"""

from __future__ import annotations

from service.client.answers import Evaluation, KeptSample, Prediction, SamplePage, Selection
from service.client.calls import BINARY_FROM
from service.client.clients import AsyncClient, Client

__all__ = [
    "BINARY_FROM",
    "AsyncClient",
    "Client",
    "Evaluation",
    "KeptSample",
    "Prediction",
    "SamplePage",
    "Selection",
]

"""All routes of the protocol."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.inference_protocol import infer, metadata, repository, statistics

router = APIRouter()
# `/v2/models/stats` is not the model of that name.
for module in (statistics, infer, metadata, repository):
    router.include_router(module.router)

"""Wiring only: settings in, application out. To add a route: one file, one line here."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service import __version__
from service.api import errors, evaluate, health, models, predict, query
from service.api.front import Front
from service.api.scope import Service
from service.inference.devices import resources
from service.metrics import Metrics
from service.registry.registry import Registry
from service.scheduling.aside import Aside
from service.scheduling.runner import Runner
from service.scheduling.scheduler import Scheduler
from service.settings import Settings


def build_service(settings: Settings) -> Service:
    """The parts of a server, models listed and not yet loaded.

    Raises:
        ModelBroken: the model repository is missing.
        InvalidInput: a device that is not there.
    """
    metrics = Metrics()
    registry = Registry(
        settings.models,
        resources(settings),
        settings.default_model,
    )
    registry.scan()
    scheduler = Scheduler(
        settings.batch_work, settings.batch_seconds, settings.queue_requests, settings.queue_bytes
    )
    runner = Runner(scheduler, metrics, settings.drift_rows)
    return Service(settings, registry, runner, Aside(), metrics)


def build_app(service: Service) -> Front:
    """The application; models load in a thread of their own once it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loader = threading.Thread(target=service.registry.load_all, name="loader", daemon=True)
        loader.start()
        yield
        service.registry.stop()
        service.runner.close()
        service.aside.close()

    app = FastAPIOffline(
        title="Candor",
        version=__version__,
        summary="Dropout-trained PyTorch models that say how sure they are.",
        lifespan=lifespan,
    )
    for module in (predict, evaluate, query, models, health):
        app.include_router(module.router)
    errors.install(app)
    return Front(app, service, {"/predict": predict.predict, "/eval": evaluate.evaluate})

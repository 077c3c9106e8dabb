"""Wiring only: settings in, application out. To add a route: one file, one line here."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi_offline import FastAPIOffline

from service import __version__
from service.api import (
    documentation_pages,
    errors,
    evaluate,
    health,
    label_studio,
    models,
    page,
    predict,
    query,
    reports,
    samples,
    security,
)
from service.api.direct import DIRECT
from service.api.front import Front
from service.api.inference_protocol import routes as inference_protocol
from service.api.local_engine import LocalEngine
from service.api.scope import Service
from service.inference.devices import resources
from service.inference.tuning import Choices
from service.metrics import Metrics
from service.registry.loader import Loader
from service.registry.registry import Registry
from service.scheduling.aside import Aside
from service.scheduling.degrading import Degrading
from service.scheduling.runner import Runner, Times
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.settings import Settings
from service.store.collector import Collector, Told
from service.store.keeping import Rules, read_rules
from service.store.samples import Limits, SampleStore
from service.tracing import tracing_by

_DAY_S = 86_400.0
_LAST_SAMPLES_S = 10.0
"""What waits to be kept gets so long at the end."""
_LAST_LOAD_S = 10.0

log = logging.getLogger(__name__)


def build_service(settings: Settings, choices: Choices | None = None) -> Service:
    """The parts of a server, models listed and not yet loaded.

    Args:
        settings: of the server.
        choices: of other processes, with which this one is to compute alike.

    Raises:
        ModelBroken: the model repository is missing.
        InvalidInput: a device that is not there, settings of the sample store that do not fit, or
            traces without OpenTelemetry.
    """
    tracing = tracing_by(settings)
    metrics = Metrics()
    store = SampleStore(settings.database_url)
    rules = read_rules(settings.keep_samples)
    collector = _collector(settings, rules, store, metrics)
    registry = Registry(
        settings.models,
        resources(settings, choices),
        settings.default_model,
    )
    registry.scan()
    unknown = rules.named.keys() - {model.name for model in registry.models()}
    if unknown:
        log.warning("CANDOR_KEEP_SAMPLES names models that there are not: %s", sorted(unknown))
    limits = QueueLimits(settings.queue_requests, settings.queue_bytes, settings.queue_work)
    scheduler = Scheduler(settings.batch_work, settings.batch_seconds, limits)
    times = Times(settings.queue_timeout_s, settings.batch_seconds, settings.engine_hang_s)
    runner = Runner(scheduler, metrics, settings.drift_rows, times, tracing)
    degrading = Degrading(settings.degrade_after_s, settings.degrade_min_passes)
    engine = LocalEngine(
        *(registry, runner, collector, degrading, metrics), settings.max_answer_bytes
    )
    loader = Loader(registry, settings.watch)
    return Service(
        settings,
        engine,
        metrics,
        tracing,
        metrics,
        registry,
        loader,
        runner,
        Aside(),
        store,
        collector,
    )


def _collector(settings: Settings, rules: Rules, store: SampleStore, metrics: Metrics) -> Collector:
    days = settings.keep_days
    collector = Collector(
        store,
        rules,
        settings.keep_score,
        settings.keep_quantile,
        settings.keep_queue_bytes,
        Limits(settings.keep_limit, math.inf if days is None else days * _DAY_S),
        Told(
            kept=lambda model, count: metrics.samples_kept_total.labels(model).inc(count),
            dropped=metrics.samples_dropped_total.inc,
        ),
    )
    metrics.sample_store_up.set_function(lambda: not collector.troubled)
    return collector


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """The server's parts at work: models load in a thread of their own, samples are kept."""
    service.loader.start()
    yield
    service.loader.stop()
    service.runner.close()
    service.aside.close()
    if not await asyncio.to_thread(service.collector.close, _LAST_SAMPLES_S):
        log.error("samples that waited to be kept are lost: the store could not be used")
    service.store.close()
    if not await asyncio.to_thread(service.loader.join, _LAST_LOAD_S):
        log.error("a model is still loading; its own code does not return")
    if service.tracing is not None:
        await asyncio.to_thread(service.tracing.close)


def build_app(service: Service) -> Front:
    """The application, whose parts are `running` while it is served."""
    app = FastAPIOffline(
        title="Candor",
        version=__version__,
        summary="Dropout-trained PyTorch models that say how sure they are.",
        lifespan=lambda _: running(service),
        docs_url=None,
        redoc_url=None,
        static_url=documentation_pages.STATIC,
        # A path with a slash too many names nothing.
        redirect_slashes=False,
    )
    for module in (predict, evaluate, query, samples, label_studio, models, reports, health):
        app.include_router(module.router)
    app.include_router(documentation_pages.router)
    app.include_router(page.router)
    app.include_router(inference_protocol.router)
    errors.install(app)
    security.install(app, service.settings)
    return Front(app, service, DIRECT)

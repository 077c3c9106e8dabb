"""Settings that several processes on several machines cannot have."""

from __future__ import annotations

from service.errors import InvalidInput
from service.settings import Settings
from service.store.keeping import read_rules


def check_settings(settings: Settings) -> None:
    """Refuse what each process would do for itself, or what nobody there would do.

    Raises:
        InvalidInput: settings that do not go together on several machines.
    """
    keeps = not read_rules(settings.keep_samples).off
    if keeps and not settings.database_url.startswith("postgresql"):
        raise InvalidInput(
            "samples are kept on Ray by processes that need not share a file; expected "
            "CANDOR_DATABASE_URL=postgresql://USER@HOST/DATABASE, or CANDOR_KEEP_SAMPLES=off",
            field="database_url",
            expected="postgresql://USER@HOST/DATABASE",
            received=settings.database_url.partition(":")[0],
        )
    if settings.watch:
        raise InvalidInput(
            "on Ray each process would look at the folder of models by itself, and some would "
            "serve what others do not; leave CANDOR_WATCH at 0, and POST /models/{name}/reload "
            "changes all of them in turn",
            field="watch",
            received=settings.watch,
        )
    if settings.device.startswith("cuda") and not settings.ray_gpus:
        raise InvalidInput(
            f"CANDOR_DEVICE is {settings.device}, and on Ray processes have as many GPUs as "
            "CANDOR_RAY_GPUS says, which is 0; give 1, or less for several to share one",
            field="ray_gpus",
            received=settings.ray_gpus,
        )
    if settings.tls_client_ca is not None:
        raise InvalidInput(
            "on Ray nobody would be asked for a certificate: Ray's proxies do not; have something "
            "in front that does, and leave CANDOR_TLS_CLIENT_CA away",
            field="tls_client_ca",
            received=str(settings.tls_client_ca),
        )
    if settings.workers > 1:
        raise InvalidInput(
            "on Ray the processes that speak HTTP are CANDOR_RAY_DOORS; leave CANDOR_WORKERS at 1",
            field="workers",
            received=settings.workers,
        )

"""The end of a server that was told to end: accepted requests finish, new ones are refused."""

from __future__ import annotations

import asyncio
import logging
import time

from service.api.scope import Service

log = logging.getLogger(__name__)

_LEAST_S = 5.0


async def drain(service: Service) -> float:
    """Wait until what was accepted is answered, and load balancers had time to notice.

    Returns:
        Seconds that are left to those who still send, or take their answer.
    """
    settings = service.settings
    service.loader.stop()
    log.info("draining: accepted requests finish, new ones are answered 503")
    started = time.monotonic()
    if not await service.runner.drain(settings.drain_timeout_s):
        log.error("requests were cut off: not done after %g s", settings.drain_timeout_s)
    elapsed = time.monotonic() - started
    await asyncio.sleep(max(0.0, settings.drain_linger_s - elapsed))
    return max(_LEAST_S, started + settings.drain_timeout_s - time.monotonic())

"""Candor on a Ray cluster: `candor serve --ray ADDRESS`, or `serve deploy` with `build`.

Three deployments make one service. `Door` speaks HTTP, `Replica` computes, each scaled by itself;
`Board` is one process that both report to (`service/api/replicas/`). Every replica holds all models
of the repository.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import ray.exceptions
from numpy.typing import NDArray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message

from service import __version__, logs
from service.api.exposure import is_loopback, refuse_open_door, tls_options
from service.api.replicas.asking import ReplicaLost
from service.api.replicas.board import REPLICA, Board, Told
from service.api.replicas.clerk import Clerk
from service.api.replicas.door import Door
from service.api.replicas.fitting import check_settings
from service.api.replicas.requests import Whole
from service.cluster import (
    DOOR_CPUS,
    LOCAL,
    SharedChoices,
    agreed_port,
    check_room,
    connect,
    environment,
)
from service.errors import CandorError, ModelNotReady, QueueFull
from service.registry import repository
from service.settings import Settings, between, load_settings

if TYPE_CHECKING:
    from service.api.replicas.replica import Answer

log = logging.getLogger(__name__)

NAME = "candor"
"""Of the application, in `serve status`."""

_AT_ONCE = 256
"""Requests that one replica has, which it takes together into batches."""

_AT_ONE_DOOR = 4096
"""And as many may wait for it: their bodies lie in the memory of Ray's proxy."""

_ON_THE_BOARD = 100_000

_ATTEMPTS = 3
_UPSCALE_S, _DOWNSCALE_S = 10.0, 300.0
_CHECK_S = 5.0

_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
"""What a call raises whose process died."""

_RETRY_S = 1.0
_ANYWHERE = "0.0.0.0"


class _Processes:
    """See `Others`: those of one deployment.

    Args:
        handle: of it.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._following = handle.options(stream=True)

    async def ask(self, method: str, *arguments: Any) -> Any:
        """See `Others`."""
        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            if _cancelled_here():
                raise
            raise ReplicaLost(_ENDS) from None
        except Exception as error:
            if (told := _told_apart(error)) is None:
                raise
            raise told from error

    async def follow(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
        """See `Others`."""
        parts = getattr(self._following, method).remote(*arguments)
        ended = False
        try:
            async for part in parts:
                yield part
            ended = True
        except asyncio.CancelledError:
            if _cancelled_here():
                raise
            ended = True
            raise ReplicaLost(_ENDS) from None
        except Exception as error:
            ended = True
            if (told := _told_apart(error)) is None:
                raise
            raise told from error
        finally:
            if not ended:
                parts.cancel()


_ENDS = "the process that was asked ends, and has cancelled it"


def _cancelled_here() -> bool:
    """Whether it is this task that was cancelled, and not the one elsewhere that it waits for, of
    which Ray tells in the same way."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told_apart(error: Exception) -> Exception | None:
    """What Ray raises, as Candor names it; None where it is nothing that Candor knows."""
    if isinstance(error, _LOST):
        return ReplicaLost(str(error))
    if isinstance(error, BackPressureError):
        full = f"{error}; send it again later (CANDOR_QUEUE_REQUESTS)"
        return QueueFull(full, retry_after_s=_RETRY_S)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, CandorError):
        # Ray makes a class of it that is this one's and an error of its own.
        return error.cause
    return None


class _ReplicaProcess:
    """The deployment that computes."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, settings: str, board: DeploymentHandle[Any]
    ) -> None:
        # What computes takes PyTorch, with which a door would be slower to start, and larger.
        from service.api.app import build_app, build_service, running
        from service.api.health import why_not_live
        from service.api.replicas.replica import Replica

        self._stack = AsyncExitStack()
        own = _begin(settings)
        service = build_service(own, SharedChoices())
        who = serve.get_replica_context().replica_id.unique_id
        others = _Processes(board)
        self._why_not_live = functools.partial(why_not_live, service)
        self._replica = Replica(service, build_app(service).app)
        self._clerk = Clerk(
            *(others, who, REPLICA, self._replica.counted, self._told),
            self._replica.change,
            self._replica.unloaded,
        )
        known = {model.name for model in service.registry.models()}
        for name in await others.ask("join", who, REPLICA):
            if name in known:
                service.registry.unload(name)
        # Before anything loads: what is changed meanwhile on others is changed here, too.
        self._clerk.start()
        await self._stack.enter_async_context(running(service))
        self._stack.push_async_callback(self._clerk.stop)
        # Requests come once this returns.
        await asyncio.to_thread(service.registry.loaded.wait)

    def _told(self, told: Told) -> None:
        self._replica.told(changing=told.changing)

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> Answer:
        """See `Replica`."""
        return await self._replica.resolve(name, version, key)

    async def compute(self, digest: str, inputs: NDArray[Any], call: Any) -> Answer:
        """See `Replica`."""
        return await self._replica.compute(digest, inputs, call)

    async def answer(self, request: Whole) -> AsyncIterator[Message]:
        """See `Replica`."""
        async for part in self._replica.answer(request):
            yield part

    def check_health(self) -> None:
        """Ray starts another in the place of one that only a restart helps."""
        reason = self._why_not_live()
        if reason is not None:
            raise RuntimeError(reason)

    async def __del__(self) -> None:
        # Ray calls and awaits it at the end, when all requests are answered.
        await self._stack.aclose()


class _DoorProcess:
    """The deployment that speaks HTTP."""

    def __init__(
        self, settings: str, replicas: DeploymentHandle[Any], board: DeploymentHandle[Any]
    ) -> None:
        who = serve.get_replica_context().replica_id.unique_id
        self._door = Door(_begin(settings), _Processes(replicas), _Processes(board), who)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._door


def _begin(settings: str) -> Settings:
    found = Settings.model_validate_json(settings)
    logs.set_up(found.log_level, found.log_format)
    logs.take_over()
    return found


def application(settings: Settings) -> Any:
    """The application, for `serve.run`.

    Raises:
        InvalidInput: settings that do not go together on several machines.
    """
    check_settings(settings)
    written = _absolute(settings).model_dump_json()
    drain_s = settings.drain_timeout_s
    common: dict[str, Any] = {
        "graceful_shutdown_timeout_s": drain_s,
        "health_check_period_s": _CHECK_S,
    }
    # Typed as a decorator, which it is not where it is given what to decorate.
    deployment: Any = serve.deployment
    board = deployment(
        Board,
        name="Board",
        max_ongoing_requests=_ON_THE_BOARD,
        ray_actor_options={"num_cpus": 0},
    ).bind()
    replicas = deployment(
        _ReplicaProcess,
        name="Replica",
        max_ongoing_requests=_AT_ONCE,
        max_queued_requests=settings.queue_requests,
        max_constructor_retry_count=_ATTEMPTS,
        ray_actor_options={
            "num_cpus": settings.ray_cpus,
            "num_gpus": settings.ray_gpus,
            "runtime_env": {"env_vars": environment(settings.ray_cpus, settings.ray_gpus)},
        },
        **_scaled(settings.ray_replicas, settings.ray_waiting),
        **common,
    ).bind(written, board)
    return deployment(
        serve.ingress()(_DoorProcess),
        name="Door",
        max_ongoing_requests=_AT_ONE_DOOR,
        max_queued_requests=_AT_ONE_DOOR,
        ray_actor_options={
            "num_cpus": DOOR_CPUS,
            "runtime_env": {"env_vars": environment(DOOR_CPUS)},
        },
        **_scaled(settings.ray_doors, settings.ray_waiting),
        **common,
    ).bind(written, replicas, board)


def build(args: Mapping[str, Any]) -> Any:
    """The application by settings, as `serve run` and `serve deploy` give them: `models: /models`.

    Raises:
        InvalidInput: what is no setting, or does not fit; or no token, since Serve and not Candor
            says there who can reach it.
    """
    settings = load_settings({**args})
    refuse_open_door(settings.model_copy(update={"host": _ANYWHERE}))
    return application(settings)


def serve_on_ray(settings: Settings) -> None:
    """Run on a cluster until a signal ends it.

    Raises:
        InvalidInput: no such cluster, settings that do not go together there, or an address beyond
            loopback without a token.
    """
    assert settings.ray is not None
    refuse_open_door(settings)
    # Said here rather than by every replica: this machine sees the same folder.
    repository.model_names(settings.models)
    app = application(settings)
    wanted = _listening(settings)
    ended = threading.Event()

    def signalled(*_: object) -> None:
        """The first drains, the second ends at once."""
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    started = connect(settings.ray, DOOR_CPUS * between(settings.ray_doors)[1])
    # Ray has handlers of its own.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signalled)
    try:
        if started:
            check_room(settings, ray.cluster_resources())
        port = _listen(settings, wanted)
        _deploy(app)
        https = wanted["ssl_certfile"] is not None
        print(_announcement(settings, port, https=https), flush=True)
        ended.wait()
        log.info("draining: accepted requests finish")
        try:
            serve.delete(NAME)
        except TimeoutError as error:
            log.error("the service is still ending: %s", error)
    finally:
        if started:
            serve.shutdown()
            ray.shutdown()


_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""Of Ray Serve itself, on whose every call a line would be; Candor's log is by its own settings."""


def _deploy(app: Any) -> None:
    """Start it, and wait until it serves.

    Raises:
        ModelNotReady: it could not be started.
    """
    try:
        serve.run(app, name=NAME, route_prefix="/", logging_config=_LOGGING)
    except RuntimeError as error:
        raise ModelNotReady(
            f"Ray could not start the service: {error} `serve status` and the logs of its replicas "
            "(/tmp/ray/session_latest/logs/serve) say why"
        ) from None


def _listening(settings: Settings) -> dict[str, Any]:
    """Where and how Ray's proxies are to listen; port 0 is any."""
    tls = tls_options(settings)
    certificate, key = tls.get("ssl_certfile"), tls.get("ssl_keyfile")
    return {
        "host": settings.host,
        "port": settings.port,
        "ssl_certfile": None if certificate is None else os.path.abspath(certificate),
        # It may lie in the certificate's file, which Ray has to be told.
        "ssl_keyfile": None if certificate is None else os.path.abspath(key or certificate),
        "ssl_keyfile_password": tls.get("ssl_keyfile_password"),
    }


def _listen(settings: Settings, wanted: Mapping[str, Any]) -> int:
    """Have Ray's proxies listen; the port.

    Raises:
        InvalidInput: they do already, and elsewhere or otherwise than they are to.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        there = client.http_config
        return agreed_port({name: getattr(there, name) for name in wanted}, wanted)
    port = settings.port or _free_port(settings.host)
    serve.start(
        # Loopback is one machine's; there its proxy is.
        proxy_location="HeadOnly" if is_loopback(settings.host) else "EveryNode",
        http_options={**{k: v for k, v in wanted.items() if v is not None}, "port": port},
        logging_config=_LOGGING,
    )
    return port


def _scaled(scale: str, waiting: float) -> dict[str, Any]:
    least, most = between(scale)
    if least == most:
        return {"num_replicas": least}
    return {
        "autoscaling_config": {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": waiting,
            "upscale_delay_s": _UPSCALE_S,
            "downscale_delay_s": _DOWNSCALE_S,
        }
    }


def _absolute(settings: Settings) -> Settings:
    """Paths as they are from any folder; they have to be there on every machine."""
    changed: dict[str, Any] = {"models": settings.models.absolute()}
    if settings.tuning is not None:
        changed["tuning"] = settings.tuning.absolute()
    scheme, _, path = settings.database_url.partition(":///")
    if scheme == "sqlite" and path:
        changed["database_url"] = f"sqlite:///{os.path.abspath(path)}"
    return settings.model_copy(update=changed)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _announcement(settings: Settings, port: int, *, https: bool) -> str:
    host = "127.0.0.1" if settings.host in (_ANYWHERE, "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    address = f"{'https' if https else 'http'}://{host}:{port}"
    where = "a cluster of this machine" if settings.ray == LOCAL else str(settings.ray)
    return (
        f"Candor {__version__} serves {address} on Ray ({where}): {settings.ray_replicas} that "
        f"compute, {settings.ray_doors} that speak HTTP   (documentation: {address}/docs)"
    )

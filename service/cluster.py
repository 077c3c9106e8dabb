"""A Ray cluster: how it is reached, and what its processes have to agree on to compute alike.

Needs `candor[ray]`, which is imported when it is asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, Any

from service.errors import InvalidInput
from service.settings import Settings, between

if TYPE_CHECKING:
    # Without torch, which whoever notes what was measured does not need.
    from service.inference.tuning import Tuned

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, which ends with this process."""

DOOR_CPUS = 0.5
"""Of a process that speaks HTTP."""

_WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
_NAMESPACE = "candor"
_BOARD = "choices"
_SAY_S = 1.0
"""Whoever measures says so often that it still does."""

_DEAD_S = 15.0
"""One that has not said so for that long has died; then the next that asks measures."""

_ASK_AGAIN_S = 0.2


def require() -> None:
    """Say in words that Ray is missing, where it is.

    Raises:
        InvalidInput: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise InvalidInput("Ray is not installed; pip install 'candor[ray]'", field="ray")


def connect(address: str, more_cpus: float = 0.0) -> bool:
    """Reach a cluster, or start one of this machine; whether it was started.

    Args:
        address: HOST:PORT, `auto` for the one that this machine is of, or `local`.
        more_cpus: that one of this machine says it has beyond those that it has, for processes
            that mostly wait.

    Raises:
        InvalidInput: there is none, or Ray is not installed.
    """
    require()
    # Candor asks nobody to be told what its users run, and Ray would.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    started = address == LOCAL
    cpus = (os.cpu_count() or 1) + ceil(more_cpus)
    more: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus} if started else {}
    try:
        ray.init(
            address=address,
            namespace=_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **more,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InvalidInput(
            f"there is no Ray cluster at {address!r}: {str(error).splitlines()[0]}; expected auto, "
            f"HOST:PORT as `ray start --head` prints it, or {LOCAL}",
            field="ray",
            received=address,
        ) from None
    return started


@contextmanager
def connected(address: str, gpus: float = 0.0) -> Iterator[None]:
    """While a command computes there; raises as `connect` does.

    Args:
        address: see there.
        gpus: of each process there. Without one this process computes without one, too, as they do.
    """
    connect(address)
    import ray

    if not gpus:
        os.environ.update(_WITHOUT_GPU)
    try:
        yield
    finally:
        # The cluster, too, where it was started for this.
        ray.shutdown()


def environment(cpus: float, gpus: float = 0.0) -> dict[str, str]:
    """Variables of a process that computes there, as `service/__main__.py` sets them here.

    Args:
        cpus: that it is given; below one it computes on one thread.
        gpus: that it is given. Without one it sees none, which Ray leaves to whoever asks.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, int(cpus)))}
    spin = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000"}
    seen = {} if gpus else _WITHOUT_GPU
    # Where traces go, and nothing else of what happens to be set here.
    traces = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    return {**threads, **spin, **seen, **traces}


class Noted:
    """What was measured of versions, in a process of its own.

    Args:
        clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._measured: dict[str, Mapping[str, Any]] = {}
        self._said_s: dict[str, float] = {}

    def ask(self, key: str) -> Mapping[str, Any] | bool:
        """What is known; otherwise whether the one that asks is to measure it, and say."""
        if key in self._measured:
            return self._measured[key]
        now_s = self._clock()
        if now_s - self._said_s.get(key, -math.inf) < _DEAD_S:
            return False
        self._said_s[key] = now_s
        return True

    def still(self, key: str) -> None:
        """The one that is to measure it still does."""
        if key in self._said_s:
            self._said_s[key] = self._clock()

    def tell(self, key: str, measured: Mapping[str, Any]) -> None:
        """What the one that was to measure has found; the first that says it is right."""
        self._measured.setdefault(key, measured)

    def give_up(self, key: str) -> None:
        """The one that was to measure does not."""
        self._said_s.pop(key, None)


class SharedChoices:
    """See `Choices`: those of all processes of the cluster that this one is of.

    They outlast whoever made them, so that a replica that is started a week later computes as
    those that were there before.
    """

    def __init__(self) -> None:
        self._measuring: dict[str, threading.Event] = {}

    def known(self, key: str) -> Tuned | None:
        """See `Choices`."""
        import ray

        from service.inference.tuning import Tuned

        board = _noted()
        while True:
            found = ray.get(board.ask.remote(key))
            if found is True:
                self._begin(key)
                return None
            if found is not False:
                return Tuned.read(found)
            time.sleep(_ASK_AGAIN_S)

    def measured(self, key: str, tuned: Tuned) -> None:
        """See `Choices`."""
        import ray

        self._end(key)
        ray.get(_noted().tell.remote(key, tuned.written()))

    def given_up(self, key: str) -> None:
        """See `Choices`."""
        import ray

        self._end(key)
        ray.get(_noted().give_up.remote(key))

    def _begin(self, key: str) -> None:
        """Say from now on that this process is there and measures."""
        over = self._measuring[key] = threading.Event()
        threading.Thread(target=_go_on_saying, args=(key, over), daemon=True).start()

    def _end(self, key: str) -> None:
        if (over := self._measuring.pop(key, None)) is not None:
            over.set()


def _go_on_saying(key: str, over: threading.Event) -> None:
    board = _noted()
    while not over.wait(_SAY_S):
        board.still.remote(key)


def _noted() -> Any:
    import ray

    return (
        ray.remote(Noted)
        .options(
            name=_BOARD,
            namespace=_NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote()
    )


def agreed_port(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
    """The port of a Ray Serve that runs already, whose proxies listen as they began.

    Raises:
        InvalidInput: who may ask was decided for other listeners than these.
    """
    differing = [
        name
        for name, value in wanted.items()
        if there[name] != value and not (name == "port" and value == 0)
    ]
    if differing:
        # Of a password that it differs is enough.
        said = ", ".join(
            name if "password" in name else f"{name} {there[name]} and not {wanted[name]}"
            for name in differing
        )
        raise InvalidInput(
            f"Ray Serve runs on this cluster already, and listens otherwise: {said}; give the same "
            "(CANDOR_HOST, CANDOR_PORT, CANDOR_TLS_CERTIFICATE), or end it with `serve shutdown`",
            field="host",
        )
    port: int = there["port"]
    return port


def check_room(settings: Settings, there: Mapping[str, float]) -> None:
    """Refuse what would wait for ever, on a cluster of this machine, which does not grow.

    Args:
        settings: of the service.
        there: what the cluster has, by Ray's names.

    Raises:
        InvalidInput: the fewest processes that are to run need more.
    """
    replicas, doors = between(settings.ray_replicas)[0], between(settings.ray_doors)[0]
    needed = {
        "CPU": replicas * settings.ray_cpus + doors * DOOR_CPUS,
        "GPU": replicas * settings.ray_gpus,
    }
    missing = {kind: need for kind, need in needed.items() if need > there.get(kind, 0.0)}
    if missing:
        said = ", ".join(
            f"{need:g} {kind}s are needed and {there.get(kind, 0.0):g} there"
            for kind, need in missing.items()
        )
        raise InvalidInput(
            f"this machine has no room for so many processes: {said}; give fewer "
            "(CANDOR_RAY_REPLICAS), or less to each (CANDOR_RAY_CPUS, CANDOR_RAY_GPUS)",
            field="ray_replicas",
            received=settings.ray_replicas,
        )

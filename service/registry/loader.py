"""The one thread that loads and unloads models while a server serves.

At the start, on request, and when the repository changed. One after the other, so that loading
never takes more than its share of the machine; and always in the same thread, since each that
computes has threads and heaps of its own.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from service.errors import ModelNotReady
from service.inference import reclaiming
from service.registry.registry import Registry

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_LOOK_FOR_LEFTOVERS_S = 0.5
_LEFTOVERS_S = 120.0
"""After so long nobody waits for the answer of a request to a model that was replaced."""

_INTERRUPT_AGAIN_S = 0.2
"""One that falls into a callback of the garbage collector or of a weak reference is lost."""

_Task = tuple["Future[object]", Callable[[], object]]


class _Ended(BaseException):
    """Raised within the thread to end what it loads."""


class Loader:
    """Loads what the registry lists, then does what is submitted and looks for changes.

    Args:
        registry: of the models.
        watch_s: seconds between looks at the repository; 0 for none.
    """

    def __init__(self, registry: Registry, watch_s: float) -> None:
        self._registry = registry
        self._watch_s = watch_s
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._doing: Future[object] | None = None
        self._ending = threading.Event()
        self._long = False
        # A model's own code may never return; it must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Have a function called on the thread, after those that were submitted before."""
        future: Future[Result] = Future()
        if self._ending.is_set():
            future.set_exception(_ends())
        else:
            self._tasks.put((cast("Future[object]", future), function))
        return future

    def stop(self) -> None:
        """End what is loaded now and all that waits: the server is shutting down."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._registry.stop()
        self._tasks.put(None)
        self._interrupt()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; whether it has."""
        until_s = time.monotonic() + timeout_s
        while self._thread.is_alive() and (left_s := until_s - time.monotonic()) > 0:
            self._thread.join(min(_INTERRUPT_AGAIN_S, left_s))
            self._interrupt()
        return not self._thread.is_alive()

    def _interrupt(self) -> None:
        if self._long and self._thread.is_alive() and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Ended)
            )

    @contextmanager
    def _taking_long(self) -> Iterator[None]:
        """What may have to be interrupted. All else here ends by itself."""
        self._long = True
        try:
            yield
        finally:
            self._long = False

    def _work(self) -> None:
        try:
            reclaiming.set_apart()
            with self._taking_long():
                self._registry.load_all()
            self._serve()
        except _Ended:
            pass
        finally:
            self._refuse_waiting()

    def _serve(self) -> None:
        look_s = time.monotonic() + self._watch_s
        leftovers_until_s = 0.0
        while not self._ending.is_set():
            now_s = time.monotonic()
            waits = [look_s - now_s] if self._watch_s else []
            if now_s < leftovers_until_s:
                waits.append(_LOOK_FOR_LEFTOVERS_S)
            changed = False
            try:
                task = self._tasks.get(timeout=max(0.0, min(waits)) if waits else None)
            except Empty:
                task = None
            if task is not None:
                self._do(*task)
                changed = True
            if self._watch_s and time.monotonic() >= look_s:
                changed |= self._look()
                look_s = time.monotonic() + self._watch_s
            if changed:
                leftovers_until_s = time.monotonic() + _LEFTOVERS_S
            if leftovers_until_s:
                reclaiming.give_back()
                if not self._registry.leftovers():
                    leftovers_until_s = 0.0

    def _look(self) -> bool:
        try:
            with self._taking_long():
                return self._registry.look()
        except Exception:
            log.exception("looking for changes in the model repository")
            return False

    def _do(self, future: Future[object], function: Callable[[], object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._doing = future
        try:
            with self._taking_long():
                result = function()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        self._doing = None

    def _refuse_waiting(self) -> None:
        """Nobody may wait for what is never done."""
        waiting = [self._doing] if self._doing is not None else []
        try:
            while True:
                task = self._tasks.get_nowait()
                if task is not None and task[0].set_running_or_notify_cancel():
                    waiting.append(task[0])
        except Empty:
            for future in waiting:
                if not future.done():
                    future.set_exception(_ends())


def _ends() -> ModelNotReady:
    return ModelNotReady("the server is shutting down and loads no more models")

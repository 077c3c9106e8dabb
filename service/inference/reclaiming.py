"""Memory that models leave behind, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import linecache
import logging
import sys
from collections.abc import Callable
from types import FunctionType

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import graph_module
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from service.inference.exporting import NotExpressible, export

log = logging.getLogger(__name__)


def set_apart() -> None:
    """Have the garbage collector pass over all that is there now, for good.

    To be called before the first model is loaded: of a model that was passed over, what refers to
    itself in circles, as graphs do, would never be found again. What loading brings along, once for
    all models, is brought along before.
    """
    # Where nothing can be exported, there is nothing that exporting brings along.
    with contextlib.suppress(NotExpressible):
        export(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval(), torch.zeros(2, 2))
    forget_exports()
    gc.collect()
    gc.freeze()


_elsewhere: set[str] = set()
"""Ways to forget that this release of PyTorch has not, of which the log was told."""


def forget_exports() -> None:
    """Let go of what torch.export keeps of each call.

    Its caches hold what it knew of shapes. That, in turn, holds the tensors that it was told of by,
    whose sizes refer back to it from where the garbage collector does not see. The source of a
    graph's code stays for as long as there is a function of it, whose errors show it.

    These are PyTorch's own affairs. Where a release has them elsewhere, memory stays, and models
    load nonetheless.
    """
    for forget in (_fakes, _sources_and_fakes, _shapes):
        try:
            forget()
        except AttributeError as error:
            if forget.__name__ not in _elsewhere:
                _elsewhere.add(forget.__name__)
                log.warning(
                    "PyTorch %s keeps what it exported elsewhere (%s): of each load of a model "
                    "some memory stays",
                    torch.__version__,
                    error,
                )


def _fakes() -> None:
    FakeTensorMode.cache_clear()


def _sources_and_fakes() -> None:
    live = set()
    for found in gc.get_objects():
        if type(found) is ShapeEnv:
            found.tracked_fakes = None
        elif type(found) is FunctionType:
            live.add(found.__code__.co_filename)
    for name in graph_module._loader.eval_cache.keys() - live:
        del graph_module._loader.eval_cache[name]
        linecache.cache.pop(name, None)


def _shapes() -> None:
    for attribute in vars(ShapeEnv).values():
        if hasattr(attribute, "cache_clear"):
            attribute.cache_clear()


def give_back() -> None:
    """Collect garbage, and return to the system what the heap no longer needs."""
    gc.collect()
    _trim()


def _trim_of_glibc() -> Callable[[], object]:
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            return lambda: trim(0)
    return lambda: None


_trim = _trim_of_glibc()

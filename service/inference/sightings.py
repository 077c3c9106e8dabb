"""Watches one forward pass with chosen modules in train mode: who draws random numbers there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from service.inference.draws import Draw, DrawSource
from service.inference.graph import GraphNetwork
from service.inference.masks import Streams
from service.inference.mode import SamplingMode

ROOT = "(root)"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One random operation of one forward pass: the shape of its noise and whether it applies."""

    path: str
    kind: str
    rate: float | None
    shape: tuple[int, ...]
    live: bool


@contextmanager
def switched(
    network: nn.Module, on: Iterable[nn.Module], *, keep_buffers: bool = False
) -> Iterator[None]:
    """Eval mode with only the modules of `on` in train mode; every flag is put back afterwards.

    Args:
        network: whose flags are set.
        on: modules in train mode, each by itself without its children.
        keep_buffers: also put every buffer back, for a pass that may move some.
    """
    flags = [(module, module.training) for module in network.modules()]
    buffers = [(b, b.clone()) for b in network.buffers()] if keep_buffers else []
    network.eval()
    try:
        for module in on:
            module.training = True
        yield
    finally:
        for module, flag in flags:
            module.training = flag
        for buffer, saved in buffers:
            buffer.copy_(saved)


class Watcher:
    """A source of draws that notes who asked. Its own draws are those of one pass."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self.unknown: dict[str, str] = {}
        self._source = DrawSource(Streams(seed=0, passes=[0]), rows=1)
        self._stack: list[str] = []

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None:
        path = self._stack[-1] if self._stack else ROOT
        live = live and rate != 0.0
        self.sightings.append(Sighting(path, kind, rate, tuple(shape), live))
        return self._source.draw(kind, rate, shape, device, live=live)

    def note_unknown(self, operation: str) -> None:
        """Note who drew random numbers in a way that cannot be taken over."""
        self.unknown.setdefault(self._stack[-1] if self._stack else ROOT, operation)

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Follow which module of `network` is running."""
        with ExitStack() as hooks:
            for path, module in network.named_modules():

                def enter(module: nn.Module, inputs: object, path: str = path or ROOT) -> None:
                    self._stack.append(path)

                def leave(module: nn.Module, inputs: object, outputs: object) -> None:
                    self._stack.pop()

                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield


def sightings(
    network: nn.Module,
    on: Iterable[nn.Module],
    inputs: Tensor,
    *,
    keep_buffers: bool = False,
    follow: bool = True,
    watcher: Watcher | None = None,
) -> list[Sighting]:
    """The random operations of one forward pass with the modules of `on` in train mode.

    Args:
        network: any module.
        on: modules in train mode.
        inputs: [B, D...].
        keep_buffers: put buffers back afterwards.
        follow: note which module each is in; this hooks every module.
        watcher: to be told also of random operations that cannot be taken over, which are an error
            without it.
    """
    unknown = watcher.note_unknown if watcher is not None else None
    watcher = watcher or Watcher()
    with (
        torch.inference_mode(),
        switched(network, on, keep_buffers=keep_buffers),
        watcher.watching(network) if follow else nullcontext(),
        SamplingMode(watcher, unknown),
    ):
        network(inputs)
    found = watcher.sightings
    if isinstance(network, GraphNetwork) and len(network.site_paths) == len(found):
        paths = zip(found, network.site_paths, strict=True)
        return [replace(sighting, path=path or ROOT) for sighting, path in paths]
    return found

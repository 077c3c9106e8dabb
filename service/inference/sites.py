"""Finds what drops out in a network, switches it on and nothing else, and probes its effect.

Which modules have to be in train mode is found by looking, not guessed from class names: a first
forward pass has everything in train mode but the normalisation layers, and shows who draws random
numbers; from then on only those modules are in train mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from service.errors import ModelBroken, NoStochasticSite
from service.inference.control_flow import Mark, looks_at_values
from service.inference.draws import Draw, DrawSource
from service.inference.graph import GraphNetwork
from service.inference.masks import Streams
from service.inference.mode import SamplingMode
from service.inference.sightings import ROOT, Sighting, Watcher, sightings, switched
from service.types import Site

_KNOWN = (
    _DropoutNd,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""Modules that drop out and do it by their own `training` flag."""

_PROBE_PASSES = 8
_PROBE_RATE = 0.5


@dataclass(frozen=True, slots=True)
class Dropping:
    """What drops out in a network.

    Args:
        sites: in the order of execution.
        modules: those that must be in train mode.
        batch_dims: for each site the dimension of its noise that holds the rows, None where it has
            none; None in place of the whole where that could not be told.
        reason: why it could not be told.
        warnings: what its maker should look at.
    """

    sites: tuple[Site, ...]
    modules: tuple[nn.Module, ...]
    batch_dims: tuple[int | None, ...] | None
    reason: str = ""
    warnings: tuple[str, ...] = ()


def find_droppers(
    network: nn.Module, inputs: Tensor, also: Collection[str] = ()
) -> tuple[tuple[nn.Module, ...], str]:
    """The modules that must be in train mode for everything to drop that can drop.

    Args:
        network: any module.
        inputs: [B, D...], a batch it accepts.
        also: names of further module classes that drop (`stochastic` in model.toml).

    Returns:
        The modules, and a warning where something may be missing among them.
    """
    if isinstance(network, GraphNetwork):
        return (network,), ""
    modules = {path or ROOT: module for path, module in network.named_modules()}
    named = [m for m in modules.values() if type(m).__name__ in also]
    known = [m for m in modules.values() if isinstance(m, _KNOWN)]
    everything = [m for m in modules.values() if not isinstance(m, _NormBase)]
    warning = ""
    watcher = Watcher()
    try:
        wanted = sightings(network, everything, inputs, keep_buffers=True, watcher=watcher)
    except Exception as error:
        # Some networks do something else in train mode (ask for targets, say). What PyTorch's own
        # modules need is known all the same.
        return tuple(dict.fromkeys((*known, *named))), (
            f"the network does not run in train mode ({type(error).__name__}: {error}), so dropout "
            "was looked for only in PyTorch's own modules and in classes named under `stochastic`"
        )
    if watcher.unknown:
        listed = ", ".join(f"{path} ({kind})" for path, kind in watcher.unknown.items())
        warning = (
            f"what draws random numbers in a way that cannot be made reproducible stays in eval "
            f"mode: {listed}"
        )
    # A module around them may bypass them in eval mode, as nn.TransformerEncoderLayer does in its
    # fused path. Hooks keep it from doing so, so whether anything is missing shows without them.
    paths = {s.path for s in wanted}
    paths |= {p for p in _around(paths) if isinstance(modules[p], _KNOWN)}
    while True:
        on = [module for path, module in modules.items() if path in paths]
        on = [m for m in dict.fromkeys((*on, *named)) if not isinstance(m, _NormBase)]
        got = sightings(network, on, inputs, keep_buffers=True, follow=False)
        wider = paths | _around(paths, levels=1)
        if len(got) == len(wanted) or wider == paths:
            return tuple(on), warning
        paths = wider


def _around(paths: Collection[str], levels: int | None = None) -> set[str]:
    """The paths of the modules that contain those of `paths`, `levels` up or all the way."""
    around: set[str] = set()
    for path in paths:
        parts = [] if path == ROOT else path.split(".")
        outer = [".".join(parts[:n]) or ROOT for n in range(len(parts) - 1, -1, -1)]
        around.update(outer[:levels])
    return around


def inspect(
    network: nn.Module,
    example: Callable[[int], Tensor],
    also: Collection[str] = (),
) -> Dropping:
    """Find every site of a network and probe that each varies its output.

    Args:
        network: in whatever mode; left as it was found.
        example: makes inputs [B, D...] for a B.
        also: names of further module classes that drop.

    Raises:
        NoStochasticSite: nothing drops, or nothing that drops changes the output.
    """
    inputs = example(2)
    modules, warning = find_droppers(network, inputs, also)
    seen = sightings(network, modules, example(1))
    if not seen:
        raise NoStochasticSite(
            "no dropout was found. Looked for: nn.Dropout and its kin, nn.MultiheadAttention, "
            "nn.Transformer layers, nn.LSTM/GRU/RNN with dropout between layers, F.dropout, "
            "scaled_dot_product_attention with dropout_p, torch.bernoulli and torch.rand in "
            "the network's forward. If a module drops only under a condition of its own, name its "
            "class under `stochastic` in model.toml; if it is meant to have none, write "
            "deterministic = true there" + (f". But {warning}" if warning else "")
        )
    batch_dims, reason = _batch_dims(network, modules, example, seen)
    sites = _probe(network, modules, inputs, seen, batch_dims)
    if all(site.inert for site in sites):
        listed = ", ".join(f"{s.path} ({s.kind}, rate {s.rate})" for s in sites)
        raise NoStochasticSite(
            f"it has dropout, but none of it changes the output: {listed}. A rate of 0 drops "
            "nothing; nn.LSTM/GRU/RNN drop only between stacked layers (num_layers ≥ 2)"
        )
    warned = [*_warnings(sites), *([warning] if warning else [])]
    return Dropping(sites, modules, batch_dims, reason, tuple(warned))


def _looks_at_values(network: nn.Module, modules: Sequence[nn.Module], inputs: Tensor) -> bool:
    def run(mark: Mark) -> object:
        mark(inputs)
        with SamplingMode(_MarkingSource(Streams(0, [0]), rows=len(inputs), mark=mark)):
            return network(inputs)

    with torch.inference_mode(), switched(network, modules):
        return looks_at_values(run)


@dataclass(slots=True)
class _MarkingSource(DrawSource):
    """Marks all noise that it hands out."""

    mark: Mark = field(kw_only=True)

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None:
        found = DrawSource.draw(self, kind, rate, shape, device, live=live)
        if found is not None:
            self.mark(found.bits)
        return found


def _probe(
    network: nn.Module,
    modules: Sequence[nn.Module],
    inputs: Tensor,
    seen: Sequence[Sighting],
    batch_dims: Sequence[int | None] | None,
) -> tuple[Site, ...]:
    def run(passes: int, only: Collection[int]) -> Tensor:
        source = DrawSource(
            Streams(0, [passes]), rows=len(inputs), only=only, probe_rate=_PROBE_RATE
        )
        with torch.inference_mode(), switched(network, modules), SamplingMode(source):
            return output_tensor(network(inputs))

    quiet = run(0, only=())
    sites = []
    counts = Counter(s.path for s in seen)
    numbers: Counter[str] = Counter()
    for index, sighting in enumerate(seen):
        varies = sighting.live and any(
            not torch.equal(quiet, run(t, only=(index,))) for t in range(_PROBE_PASSES)
        )
        numbers[sighting.path] += 1
        path = sighting.path
        if counts[path] > 1:
            path = f"{path}:{numbers[path]}"
        mask = list(sighting.shape)
        if batch_dims is not None and (batch_dim := batch_dims[index]) is not None:
            mask[batch_dim] = -1
        sites.append(Site(path, sighting.kind, sighting.rate, not varies, tuple(mask)))
    return tuple(sites)


def _batch_dims(
    network: nn.Module,
    modules: Sequence[nn.Module],
    example: Callable[[int], Tensor],
    of_1: Sequence[Sighting],
) -> tuple[tuple[int | None, ...] | None, str]:
    """Where the rows are in each site's noise, told from batches of 2 and of 3 rows."""
    if _looks_at_values(network, modules, example(2)):
        return None, "it looks at values of its input or noise, and may do something else for each"
    of_2, of_3 = (sightings(network, modules, example(rows)) for rows in (2, 3))
    alike = [[replace(s, shape=()) for s in found] for found in (of_1, of_2, of_3)]
    if alike[0] != alike[1] or alike[1] != alike[2]:
        return None, "its dropout sites change with the number of rows"
    found: list[int | None] = []
    for small, large in zip(of_2, of_3, strict=True):
        pairs = list(zip(small.shape, large.shape, strict=False))
        moved = [dim for dim, (a, b) in enumerate(pairs) if a != b]
        grows = all(pairs[dim][0] * 3 == pairs[dim][1] * 2 for dim in moved)
        if len(small.shape) != len(large.shape) or len(moved) > 1 or not grows:
            return None, f"the noise of {small.path} has a shape that does not follow the batch"
        found.append(moved[0] if moved else None)
    return tuple(found), ""


def _warnings(sites: Sequence[Site]) -> list[str]:
    """A sentence for each site that never changes the output."""
    found = []
    for site in sites:
        if site.inert:
            if site.rate == 0.0:
                cause = "its rate is 0"
            elif site.kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
                cause = "recurrent layers drop only between stacked layers, num_layers ≥ 2"
            else:
                cause = f"not in {_PROBE_PASSES} passes at rate {_PROBE_RATE}; is it a dead branch?"
            found.append(f"{site.path} ({site.kind}) never changes the output: {cause}")
    return found


def output_tensor(output: object) -> Tensor:
    """The network's output, which has to be one tensor.

    Raises:
        ModelBroken: it is something else.
    """
    if isinstance(output, Tensor):
        return output
    raise ModelBroken(
        f"the network returns {type(output).__name__}, and has to return one tensor; wrap it in a "
        "module whose forward picks the tensor to serve"
    )

"""A network as a graph of ATen operations, with what drops out in it switched on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import transformer

from service.inference.graph import GraphNetwork


class NotExpressible(Exception):
    """A network, or a part of one, that a graph cannot say; the message says why.

    It never leaves this package: a plainer strategy takes over and shows the reason.
    """


def export(
    network: nn.Module, inputs: Tensor, variable: Collection[int] = ()
) -> torch.export.ExportedProgram:
    """Trace `network` in the mode it is in, for any number of rows.

    Args:
        network: with what drops out in train mode.
        inputs: [B, D...], B ≥ 2.
        variable: dimensions of `inputs`, beside the first, that may vary where the network lets
            them.

    Raises:
        NotExpressible: torch.export cannot follow it.
    """
    dynamic: dict[int, object] = {0: torch.export.Dim.DYNAMIC}
    dynamic |= dict.fromkeys(variable, torch.export.Dim.AUTO)
    try:
        # The exporter warns of what a comparison afterwards shows.
        with warnings.catch_warnings(), torch.no_grad(), _quiet(), _masks_taken_as_they_are():
            warnings.simplefilter("ignore")
            return torch.export.export(network, (inputs,), dynamic_shapes=(dynamic,), strict=False)
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise NotExpressible(
            f"torch.export cannot follow it ({type(error).__name__}: {lines[0] if lines else ''})"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _masks_taken_as_they_are() -> Iterator[None]:
    """Keep nn.Transformer from looking whether a mask is causal, which a graph cannot say.

    It looks in order to pass a hint on; the mask itself is applied either way.
    """
    original = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = original


def graph_of(network: nn.Module, inputs: Tensor, variable: Collection[int] = ()) -> fx.GraphModule:
    """The graph of a network whose dropping modules are in train mode.

    Raises:
        NotExpressible: there is none for any number of rows.
    """
    if isinstance(network, GraphNetwork):
        if network.fixed_rows is not None:
            raise NotExpressible(f"its archive takes exactly {network.fixed_rows} rows")
        return network.dropping_graph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = export(network, inputs, variable).module()
    assert isinstance(graph, fx.GraphModule)
    return graph

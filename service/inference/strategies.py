"""Ways of running T stochastic passes over B rows, from the best to the plainest.

All give the same numbers: what a pass drops depends on (seed, site, pass) and, with independent
masks, on the row, never on what was computed together. The way is chosen when a model loads, by
trying each against the plainest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from service.errors import ModelBroken
from service.inference.draws import DrawSource
from service.inference.masks import Streams
from service.inference.mode import SamplingMode
from service.inference.sightings import switched
from service.inference.sites import Dropping, output_tensor
from service.types import Masks


class Strategy(StrEnum):
    """REPEATED_BATCH: the batch T times over, in one forward call. PASS_BY_PASS: T calls with all
    rows. ROW_BY_ROW: each row alone, T times: always right, for any network."""

    REPEATED_BATCH = "repeated_batch"
    PASS_BY_PASS = "pass_by_pass"
    ROW_BY_ROW = "row_by_row"


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy that a model is served with, and why no better one."""

    name: Strategy
    reason: str


def run_passes(
    network: nn.Module, dropping: Dropping, strategy: Strategy, inputs: Tensor, streams: Streams
) -> Tensor:
    """Run the passes of `streams` over every row; outputs [T, B, ...].

    Call it inside `torch.inference_mode()` and `switched(network, dropping.modules)`.

    Args:
        network: with its dropping modules in train mode.
        dropping: what drops out in it.
        strategy: how.
        inputs: [B, D...].
        streams: numbers of the passes, and of the rows where masks are independent.
    """
    if strategy is Strategy.REPEATED_BATCH:
        return _repeated_batch(network, dropping, inputs, streams)
    if strategy is Strategy.PASS_BY_PASS:
        single = [Streams(streams.seed, [t], streams.rows) for t in streams.passes]
        return torch.cat([_repeated_batch(network, dropping, inputs, one) for one in single])
    return _row_by_row(network, dropping, inputs, streams)


def _repeated_batch(
    network: nn.Module, dropping: Dropping, inputs: Tensor, streams: Streams
) -> Tensor:
    passes, rows = len(streams.passes), len(inputs)
    source = DrawSource(streams, rows=rows, batch_dims=dropping.batch_dims)
    repeated = inputs.expand(passes, *inputs.shape).flatten(0, 1)
    with SamplingMode(source):
        outputs = output_tensor(network(repeated))
    if outputs.shape[:1] != (passes * rows,):
        raise ModelBroken(
            f"for {passes * rows} rows the network returned the shape {list(outputs.shape)}; the "
            "first dimension has to be the rows"
        )
    return outputs.reshape(passes, rows, *outputs.shape[1:])


def _row_by_row(network: nn.Module, dropping: Dropping, inputs: Tensor, streams: Streams) -> Tensor:
    by_pass = []
    for number in streams.passes:
        by_row = []
        for index, row in enumerate(inputs.split(1)):
            own = None if streams.rows is None else [streams.rows[index]]
            alone = Streams(streams.seed, [number], own)
            with SamplingMode(DrawSource(alone, rows=1, batch_dims=dropping.batch_dims)):
                by_row.append(output_tensor(network(row)))
        by_pass.append(torch.cat(by_row))
    return torch.stack(by_pass)


_TRIAL_ROWS = 3
_TRIAL_PASSES = 3
_TRIAL_TOLERANCE = 1e-4
"""Largest difference from row by row, as a share of the largest output. Rounding stays two orders
below; one element of one mask that differs stays above in all but freak networks."""


def choose(network: nn.Module, dropping: Dropping, example: Callable[[int], Tensor]) -> Choice:
    """The best strategy that gives what running each row alone gives, in both mask modes.

    Args:
        network: in whatever mode; left as it was found.
        dropping: what drops out in it.
        example: makes inputs [B, D...] for a B.

    Raises:
        ModelBroken: the network cannot even be run row by row.
    """
    if dropping.batch_dims is None:
        return Choice(Strategy.ROW_BY_ROW, dropping.reason)
    refusals: list[str] = []
    candidates = [Strategy.REPEATED_BATCH, Strategy.PASS_BY_PASS]
    without_rows = [
        site.path
        for site, dim in zip(dropping.sites, dropping.batch_dims, strict=True)
        if dim is None and not site.inert
    ]
    if without_rows:
        candidates.remove(Strategy.REPEATED_BATCH)
        refusals.append(f"{without_rows[0]} draws one mask for the whole batch")
    inputs = example(_TRIAL_ROWS)
    for strategy in candidates:
        refusal = _trial(network, dropping, strategy, inputs)
        if refusal is None:
            reason = "; ".join([*refusals, "equal to running each row alone"])
            return Choice(strategy, reason)
        refusals.append(f"{strategy} {refusal}")
    return Choice(Strategy.ROW_BY_ROW, "; ".join(refusals))


def _trial(
    network: nn.Module, dropping: Dropping, strategy: Strategy, inputs: Tensor
) -> str | None:
    """None where `strategy` agrees with row by row; otherwise why it does not."""
    passes, rows = range(_TRIAL_PASSES), range(_TRIAL_ROWS)
    with torch.inference_mode(), switched(network, dropping.modules):
        for masks in Masks:
            own_rows = rows if masks is Masks.INDEPENDENT else None
            streams = Streams(0, passes, own_rows)
            expected = run_passes(network, dropping, Strategy.ROW_BY_ROW, inputs, streams)
            try:
                got = run_passes(network, dropping, strategy, inputs, streams)
            except Exception as error:
                return f"failed: {error}"
            if got.shape != expected.shape:
                return f"gave the shape {list(got.shape)}, not {list(expected.shape)}"
            limit = _TRIAL_TOLERANCE * expected.abs().max()
            if not torch.allclose(got, expected, rtol=0.0, atol=float(limit), equal_nan=True):
                error_size = (got - expected).abs().max()
                return f"with {masks} masks is off by {error_size:.2g}"
    return None

"""Ways of running T stochastic passes over B rows, from the best to the plainest.

All give the same numbers: what a pass drops depends on (seed, site, pass) and, with independent
masks, on the row, never on what was computed together. The way is chosen when a model loads, by
trying each against the plainest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor, nn

from service.errors import ModelBroken
from service.inference.boundary import Boundary
from service.inference.draws import DrawSource
from service.inference.exporting import NotExpressible
from service.inference.masks import Streams
from service.inference.mode import SamplingMode
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program, build_program
from service.inference.sightings import switched
from service.inference.sites import Dropping, output_tensor
from service.types import Masks


class Strategy(StrEnum):
    """SAMPLING_PROGRAM: the network's graph, what comes before its first site computed once.
    REPEATED_BATCH: the batch T times over, in one forward call. PASS_BY_PASS: T calls with all
    rows. ROW_BY_ROW: each row alone, T times: always right, for any network."""

    SAMPLING_PROGRAM = "sampling_program"
    REPEATED_BATCH = "repeated_batch"
    PASS_BY_PASS = "pass_by_pass"
    ROW_BY_ROW = "row_by_row"


PLAIN = (Strategy.REPEATED_BATCH, Strategy.PASS_BY_PASS, Strategy.ROW_BY_ROW)
"""Those that call the network itself."""


class Way(Protocol):
    """Something that runs passes: a `Program`, or the network itself."""

    groups_together: bool
    """Whether groups of several seeds run as one, or one after the other anyway."""

    def open(self, inputs: Tensor) -> Boundary:
        """What can be computed of inputs [B, D...] before any noise is known."""
        ...

    def run(self, boundary: Boundary, noise: Noise) -> Tensor:
        """Outputs [T, B, ...]; the rows of the boundary lie group after group."""
        ...


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


class Plain:
    """Runs passes by calling the network.

    Args:
        network: in whatever mode; every call leaves it as it was found.
        dropping: what drops out in it.
        strategy: one of `PLAIN`.
    """

    groups_together = False

    def __init__(self, network: nn.Module, dropping: Dropping, strategy: Strategy) -> None:
        self._network, self._dropping, self._strategy = network, dropping, strategy

    def open(self, inputs: Tensor) -> Boundary:
        """The inputs as they are."""
        return Boundary((inputs,), (0,), len(inputs))

    def run(self, boundary: Boundary, noise: Noise) -> Tensor:
        """Outputs [T, B, ...], group by group."""
        parts = []
        with torch.inference_mode(), switched(self._network, self._dropping.modules):
            for group in range(noise.layout.groups):
                inputs = boundary.values[0][group * noise.rows : (group + 1) * noise.rows]
                parts.append(
                    run_passes(
                        self._network,
                        self._dropping,
                        self._strategy,
                        inputs,
                        noise.streams(group),
                    )
                )
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


_TRIAL_ROWS = 3
_TRIAL_PASSES = 3
_TRIAL_TOLERANCE = 1e-4
"""Largest difference from row by row, as a share of the largest output. Rounding stays two orders
below; one element of one mask that differs stays above in all but freak networks."""

_TRIAL_BANK_BYTES = 64 * 2**20


def choose_plain(
    network: nn.Module, dropping: Dropping, example: Callable[[int], Tensor]
) -> Choice:
    """The best plain strategy that gives what running each row alone gives, in both mask modes.

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
        refusal = try_out(network, dropping, Plain(network, dropping, strategy), inputs)
        if refusal is None:
            reason = "; ".join([*refusals, "equal to running each row alone"])
            return Choice(strategy, reason)
        refusals.append(f"{strategy} {refusal}")
    return Choice(Strategy.ROW_BY_ROW, "; ".join(refusals))


def choose_program(
    network: nn.Module,
    dropping: Dropping,
    example: Callable[[int], Tensor],
    variable: Collection[int] = (),
) -> tuple[Program | None, str]:
    """The network's sampling program, if it gives what running each row alone gives.

    Args:
        network: in whatever mode; left as it was found.
        dropping: what drops out in it.
        example: makes inputs [B, D...] for a B.
        variable: dimensions of the inputs, beside the first, that may vary.

    Returns:
        The program and what it is, or None and why there is none.
    """
    if dropping.batch_dims is None:
        return None, dropping.reason
    inputs = example(_TRIAL_ROWS)
    try:
        with switched(network, dropping.modules, keep_buffers=True):
            program = build_program(network, dropping.sites, dropping.batch_dims, inputs, variable)
    except NotExpressible as error:
        return None, str(error)
    shorter = inputs
    for dim in program.variable_dims:
        shorter = shorter.narrow(dim, 0, max(2, shorter.shape[dim] - 5))
    for tried in (inputs, shorter) if program.variable_dims else (inputs,):
        for thinned in (None, 1) if program.chains else (None,):
            program.thin_from(thinned)
            refusal = try_out(network, dropping, program, tried)
            if refusal is not None:
                return None, f"its graph {refusal}"
    program.thin_from(None)
    prefix, suffix = program.size()
    return program, (
        f"equal to running each row alone; {prefix} operations run once, {suffix} in every pass"
    )


def try_out(network: nn.Module, dropping: Dropping, way: Way, inputs: Tensor) -> str | None:
    """None where `way` agrees with row by row; otherwise why it does not."""
    rows = range(len(inputs))
    bank = NoiseBank(0, _TRIAL_BANK_BYTES)
    reference = Plain(network, dropping, Strategy.ROW_BY_ROW)
    for masks in Masks:
        own_rows = rows if masks is Masks.INDEPENDENT else None
        noise = Noise([bank], range(_TRIAL_PASSES), len(inputs), own_rows)
        with _all_digits(inputs.device):
            expected = reference.run(reference.open(inputs), noise)
            try:
                with torch.inference_mode():
                    got = way.run(way.open(inputs), noise)
            except Exception as error:
                lines = str(error).strip().splitlines()
                return f"failed: {type(error).__name__}: {lines[0] if lines else ''}"
        if got.shape != expected.shape:
            return f"gave the shape {list(got.shape)}, not {list(expected.shape)}"
        limit = _TRIAL_TOLERANCE * expected.abs().max()
        if not torch.allclose(got, expected, rtol=0.0, atol=float(limit), equal_nan=True):
            error_size = (got - expected).abs().max()
            return f"with {masks} masks is off by {error_size:.2g}"
    return None


@contextmanager
def _all_digits(device: torch.device) -> Iterator[None]:
    """Convolutions and recurrent layers with all of float32's digits, where a GPU takes TF32.

    One row may be computed otherwise than several then, with an error that hides a wrong mask's.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before

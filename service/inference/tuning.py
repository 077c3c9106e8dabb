"""What is fastest on this machine, measured when a model loads."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from service.inference.boundary import Boundary
from service.inference.exporting import NotExpressible
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program
from service.inference.strategies import Way
from service.inference.workers import Workers, workers

log = logging.getLogger(__name__)

_CHUNKS = (16, 32, 64, 128, 256, 1024, 4096)
"""Rows × passes of a chunk that are tried."""

_ROWS = 32
"""Of the batches that are timed."""

_MANY_ROWS = 256
"""Of those that are timed beside them where the number of rows matters: what a pass does once for
all rows costs a row of few of them much."""

_LONG_S = 0.2
"""A run that takes longer is not repeated, and no larger chunk is tried."""

_INSTANT_S = 2e-4
"""A pass of so many rows that takes less gains nothing by other chunks than the largest."""

_SMALL = 250_000
"""Weights below which a network stays dense and in float32: what it would gain few would notice,
and a measurement that is mostly noise must not decide what digits it answers."""

_ROUNDS = 4
_ENOUGH_S = 0.05
"""Spent on each function at least: others take the processor for tens of milliseconds."""

_SURELY = 0.9
"""Share of the time below which several chunks at a time count as faster than one."""

_CLEARLY = 0.7
"""Share of float32's time below which bfloat16 counts as faster: noise must not decide."""

_ALLOWED_ERROR = 0.1
"""Of lower precision, as a share of the Monte Carlo standard error."""


def seconds(*functions: Callable[[], object]) -> list[float]:
    """Best time of each in several calls, in turns, so that a busy moment meets all alike.

    Functions that take long are called only once more after the first time.
    """
    for function in functions:
        function()
    best = [float("inf")] * len(functions)
    rounds, spent = 0, 0.0
    while rounds < _ROUNDS or spent < _ENOUGH_S * len(functions):
        for i, function in enumerate(functions):
            started = time.perf_counter()
            function()
            elapsed = time.perf_counter() - started
            best[i] = min(best[i], elapsed)
            spent += elapsed
        rounds += 1
        if max(best) > _LONG_S:
            break
    return best


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a way runs.

    Args:
        chunk: rows × passes that run fastest together.
        seconds: of one row × pass in such a chunk, the geometric mean over batches.
    """

    chunk: int
    seconds: float


def time_chunks(
    way: Way,
    example: Callable[[int], Tensor],
    limit: int,
    passes: int,
    bank: NoiseBank,
    threads: Workers | None = None,
) -> Timing:
    """The chunk that runs fastest, over batches of few rows and of many.

    Args:
        way: that runs passes.
        example: makes inputs [B, D...] for a B.
        limit: rows × passes that fit the memory budget.
        passes: the model's T: a chunk has no more of them.
        bank: for the noise.
        threads: that run a chunk each; one chunk at a time by default.
    """
    best = Timing(1, float("inf"))
    rows = min(_ROWS, limit)
    boundary = way.open(example(rows))
    once = Noise([bank], range(1), rows)
    way.run(boundary, once)
    started = time.perf_counter()
    way.run(boundary, once)
    if time.perf_counter() - started < _INSTANT_S:
        return Timing(min(limit, _CHUNKS[-1]), 0.0)
    at_a_time = 1 if threads is None else len(threads)
    many = way.open(example(min(_MANY_ROWS, limit)))
    for chunk in [*(c for c in _CHUNKS if c < limit), min(limit, _CHUNKS[-1])]:
        # Of a chunk that few rows fill more rows make no other.
        batches = (boundary,) if chunk <= rows else (boundary, many)
        each, elapsed = 1.0, 0.0
        for batch in batches:
            run, row_passes = _chunks(way, batch, bank, chunk, passes, at_a_time, threads)
            (spent,) = seconds(run)
            each *= (spent / row_passes) ** (1 / len(batches))
            elapsed = max(elapsed, spent)
        # Larger chunks cost less around the engine, so they win a tie.
        if each <= 1.03 * best.seconds:
            best = Timing(chunk, each)
        if elapsed > _LONG_S:
            break
    return best


def _chunks(
    way: Way,
    boundary: Boundary,
    bank: NoiseBank,
    chunk: int,
    most_passes: int,
    count: int,
    threads: Workers | None,
) -> tuple[Callable[[], object], int]:
    """What runs so many chunks, on threads or one after the other, and their rows × passes."""
    some = boundary.select(range(min(boundary.rows, chunk)))
    passes = max(1, min(most_passes, chunk // some.rows))
    noise = Noise([bank], range(passes), some.rows)

    def one(_number: int) -> Tensor:
        with torch.inference_mode():
            return way.run(some, noise)

    def run() -> None:
        many = map(one, range(count)) if threads is None else threads.in_order(one, range(count))
        deque(many, maxlen=0)

    return run, count * passes * some.rows


def choose_workers(
    program: Program,
    example: Callable[[int], Tensor],
    limit: int,
    chunk: int,
    passes: int,
    bank: NoiseBank,
) -> tuple[int, Workers] | None:
    """Threads that run a chunk each, and its size, where that beats all cores on each chunk.

    Args:
        program: that runs passes.
        example: makes inputs [B, D...] for a B.
        limit: rows × passes that fit the memory budget.
        chunk: rows × passes that run fastest on all cores.
        passes: the model's T.
        bank: for the noise.
    """
    count = torch.get_num_threads()
    if count < 2 or program.weights < _SMALL or example(1).device.type != "cpu":
        return None
    threads = workers(count)
    several = time_chunks(program, example, limit // count, passes, bank, threads)
    if not several.seconds:
        return None
    # Batches of few rows and of many: what is won for the ones must not be lost for the others.
    for rows in (_ROWS, _MANY_ROWS):
        boundary = program.open(example(min(rows, limit)))
        enough = 2 * count * max(several.chunk, chunk)
        (alone, alone_work), (shared, shared_work) = (
            _chunks(program, boundary, bank, each, passes, ceil(enough / each), on)
            for each, on in ((chunk, None), (several.chunk, threads))
        )
        alone_s, shared_s = seconds(alone, shared)
        if shared_s / shared_work > _SURELY * alone_s / alone_work:
            return None
    return several.chunk, threads


def tune_thinning(
    program: Program, example: Callable[[int], Tensor], passes: int, bank: NoiseBank
) -> int | None:
    """Set from how many rows on thinned passes are faster; returns it, None for never."""
    program.thin_from(None)
    if sum(chain.size for chain in program.chains) < _SMALL:
        return None
    found: int | None = None
    for rows in (128, 32, 16, 12, 8, 1):
        boundary = program.open(example(rows))
        noise = Noise([bank], range(passes), rows)
        run = functools.partial(_run_thinned_from, program, boundary, noise)
        dense, thinned = seconds(functools.partial(run, None), functools.partial(run, 1))
        if thinned > 0.95 * dense:
            break
        found = rows
    program.thin_from(found)
    return found


def _run_thinned_from(program: Program, boundary: Boundary, noise: Noise, rows: int | None) -> None:
    program.thin_from(rows)
    program.run(boundary, noise)


def choose_layout(program: Program, example: Callable[[int], Tensor]) -> tuple[Program, str]:
    """The program with images in the order in memory that is faster, and a word on it."""
    if not program.has_images:
        return program, ""
    inputs = example(_ROWS)
    try:
        other = program.with_channels_last()
        usual_s, other_s = seconds(
            functools.partial(program.open, inputs), functools.partial(other.open, inputs)
        )
        if other_s < 0.9 * usual_s:
            return other, "channels last"
    except Exception as error:
        log.warning("images cannot lie with their channels last: %s", error)
    return program, ""


@dataclass(frozen=True, slots=True)
class Precision:
    """The program to serve, the type it computes in, and why.

    Args:
        program: in that type.
        name: of the type.
        reason: why.
        prefix: in bfloat16 whether what comes before the first site is, too.
    """

    program: Program
    name: str
    reason: str
    prefix: bool = False


def choose_precision(
    program: Program,
    wanted: str,
    example: Callable[[int], Tensor],
    to_values: Callable[[Tensor], Tensor],
    passes: int,
    bank: NoiseBank,
) -> Precision:
    """float32, or bfloat16 where it is faster and its error drowns in the Monte Carlo error.

    Args:
        program: in float32.
        wanted: `auto`, `float32` or `bfloat16`; the last is taken without a check of its error.
        example: makes inputs [B, D...] for a B.
        to_values: raw outputs [T, B, ...] → the values whose mean is reported, [T, B, C].
        passes: the model's T.
        bank: for the noise.
    """
    if wanted == "float32":
        return Precision(program, "float32", "")
    if wanted == "auto" and (program.weights < _SMALL or not _has_fast_bfloat16()):
        return Precision(program, "float32", "")
    inputs = example(_ROWS)
    # Standard errors are told apart with a few rows and passes; the answer's T scales them.
    few = min(passes, 20)
    noise = Noise([bank], range(few), len(inputs))

    def run(candidate: Program) -> Tensor:
        return candidate.run(candidate.open(inputs), noise)

    try:
        lower = [program.in_precision(torch.bfloat16, prefix=prefix) for prefix in (True, False)]
        if wanted == "bfloat16":
            if not run(lower[0]).isfinite().all():
                raise NotExpressible("it overflows")
            asked = "bfloat16, as CANDOR_PRECISION says"
            return Precision(lower[0], "bfloat16", asked, prefix=True)
        exact = to_values(run(program).double())
        standard_error = exact.std(dim=0) / passes**0.5
        for candidate in lower:
            plain_s, lower_s = seconds(
                functools.partial(run, program), functools.partial(run, candidate)
            )
            if lower_s > _CLEARLY * plain_s:
                continue
            error = to_values(run(candidate).double()).mean(dim=0) - exact.mean(dim=0)
            share = float(error.square().mean().sqrt() / standard_error.square().mean().sqrt())
            if share < _ALLOWED_ERROR:
                return Precision(
                    candidate,
                    "bfloat16",
                    f"bfloat16, whose error is {share:.1%} of the Monte Carlo standard error",
                    prefix=candidate is lower[0],
                )
            refusal = (
                f"float32, since bfloat16's error would be {share:.0%} of the Monte Carlo standard "
                f"error; more than {_ALLOWED_ERROR:.0%} is not accepted"
            )
            if candidate is lower[-1]:
                return Precision(program, "float32", refusal)
    except Exception as error:
        log.warning("bfloat16 cannot be used: %s", error)
        return Precision(program, "float32", f"float32, since bfloat16 failed: {error}")
    return Precision(program, "float32", "")


@dataclass(frozen=True, slots=True)
class Form:
    """What was chosen for one program, to be had for another of the same architecture.

    Args:
        channels_last: how images lie in memory.
        precision: that it computes in.
        lowered: whether that is another than the network was saved in.
        prefix: see `Precision`.
        thinned_from: see `Program.thin_from`.
    """

    channels_last: bool
    precision: str
    lowered: bool
    prefix: bool
    thinned_from: int | None

    def of(self, program: Program) -> Program:
        """Another program in this form."""
        if self.channels_last:
            program = program.with_channels_last()
        if self.lowered:
            program = program.in_precision(torch.bfloat16, prefix=self.prefix)
        program.thin_from(self.thinned_from)
        return program


@dataclass(frozen=True, slots=True)
class Tuned:
    """All that was measured of one network, to be had by another of the same architecture.

    Whoever takes it over computes as the other does, to the last bit on a processor like its own:
    what is measured differs from load to load, and other chunks round otherwise.

    Args:
        form: of its program; None where it has none.
        words: on what was chosen.
        chunk: rows × passes that run fastest together.
        own_chunk: of each thread, where long runs are cut into chunks that run side by side.
        threads: of PyTorch, where it was measured.
    """

    form: Form | None
    words: tuple[str, ...]
    chunk: int | None
    own_chunk: int | None
    threads: int

    def written(self) -> dict[str, Any]:
        """In a form that JSON holds."""
        return asdict(self)

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Self:
        """What `written` gave."""
        form = written["form"]
        words = tuple(written["words"])
        return cls(**{**written, "form": None if form is None else Form(**form), "words": words})


class Choices(Protocol):
    """What was chosen for versions, for processes that are to compute alike."""

    def known(self, key: str) -> Tuned | None:
        """What another has measured; None where it is this one's to measure and to say.

        Waits while another measures.
        """
        ...

    def measured(self, key: str, tuned: Tuned) -> None:
        """Say what was measured."""
        ...

    def given_up(self, key: str) -> None:
        """Say that it was not measured after all."""
        ...


def choose_form(
    program: Program,
    wanted: str,
    example: Callable[[int], Tensor],
    to_values: Callable[[Tensor], Tensor],
    passes: int,
    bank: NoiseBank,
    own_precision: str,
) -> tuple[Program, Form, list[str]]:
    """The program as it is fastest here, its form, and words on what was chosen.

    Arguments as of `choose_precision`, and the type that the network was saved in.
    """
    with torch.inference_mode():
        program, layout = choose_layout(program, example)
        precise = Precision(program, own_precision, "")
        if own_precision == "float32":
            precise = choose_precision(program, wanted, example, to_values, passes, bank)
        thinned_from = tune_thinning(precise.program, example, passes, bank)
    words = [word for word in (layout, precise.reason) if word]
    if thinned_from is not None:
        words.append(f"thinned from {thinned_from} rows on")
    lowered = precise.name != own_precision
    form = Form(bool(layout), precise.name, lowered, precise.prefix, thinned_from)
    return precise.program, form, words


def _has_fast_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)

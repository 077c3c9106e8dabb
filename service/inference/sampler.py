"""A verified network, ready to sample: passes and rows in chunks that fit a memory budget."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn

from service.errors import NoStochasticSite
from service.inference import tuning
from service.inference.boundary import Boundary, join
from service.inference.memory import is_out_of_memory, peak_bytes
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program
from service.inference.recorded import Recorded, record
from service.inference.sightings import switched
from service.inference.sites import Dropping, inspect, output_tensor
from service.inference.strategies import (
    Choice,
    Plain,
    Strategy,
    Way,
    choose_plain,
    choose_program,
)
from service.inference.workers import Workers, workers
from service.types import Masks

log = logging.getLogger(__name__)

_SAMPLE_BYTES = 96
"""Of one float64 number of the outputs with the temporaries of the statistics around it."""

_WORKSPACE = 2
"""Kernels allocate scratch memory that no tensor shows; seen to stay below the tensors' own."""

_KNOWN_SHAPES = 1024

_ROUNDS = 2
"""Chunks that each thread gets at least where several run at a time."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some passes of some rows of a batch.

    Args:
        rows: positions in the batch.
        passes: numbers of the passes.
        outputs: raw outputs of the network, [len(passes), len(rows), ...].
    """

    rows: Sequence[int]
    passes: range
    outputs: Tensor


@dataclass(frozen=True, slots=True)
class _Cost:
    """Bytes that rows of one shape need.

    Args:
        opening: of one row while what comes before the first site runs.
        boundary: that one row keeps of it.
        row_pass: of one pass of one row, while it runs and while its outputs are reduced.
    """

    opening: int
    boundary: int
    row_pass: int


@dataclass(frozen=True, slots=True)
class Chunking:
    """How work is cut into chunks.

    Args:
        row_passes: rows × passes of a chunk.
        threads: that run a chunk each; None where all cores work on one chunk at a time.
    """

    row_passes: int
    threads: Workers | None


class Sampler:
    """Runs one network deterministically or with what drops out switched on: a `Posterior`.

    Not thread-safe: it sets the network's training flags while it runs and puts them back.

    Args:
        network: on its device.
        dropping: what drops out in it.
        plain: the way that takes any input.
        program: the better way, for inputs that it takes.
        strategy: what is shown of the choice.
        device: where the network is.
        recorded: the program as a GPU replays it.
        memory_bytes: budget of the activations and outputs of one chunk.
        bank: of the noise of the model's own seed.
        precision: that passes are computed in.
        form: of the program.
        words: on what was chosen for it.
    """

    members = 1

    def __init__(
        self,
        network: nn.Module,
        dropping: Dropping,
        plain: Plain,
        program: Program | None,
        strategy: Choice,
        device: torch.device,
        *,
        recorded: Recorded | None = None,
        memory_bytes: int,
        bank: NoiseBank,
        precision: str,
        form: tuning.Form | None = None,
        words: Sequence[str] = (),
    ) -> None:
        self._network = network
        self.dropping = dropping
        self._strategy = strategy
        self.device = device
        self.precision = precision
        self.form = form
        self._words = tuple(words)
        self.memory_bytes = memory_bytes
        self._plain = plain
        self._program = program
        self._recorded = recorded
        self._fast: Way | None = recorded or program
        self._bank = bank
        self._alone: int | None = None
        self._several: tuple[int, Workers] | None = None
        self._most: int | None = None
        self._costs: dict[tuple[int, ...], _Cost] = {}

    @property
    def strategy(self) -> Choice:
        """How passes are run, and why no better way; what became impossible since is added."""
        if self._recorded is None or not self._recorded.refusal:
            return self._strategy
        reasons = filter(None, (self._strategy.reason, self._recorded.refusal))
        return Choice(self._strategy.name, "; ".join(reasons))

    def deterministic(self, inputs: Tensor) -> Tensor:
        """Dropout off: exactly `network.eval()(inputs)`. Inputs [B, D...] → outputs [B, ...]."""
        inputs = inputs.to(self.device)
        fitting = self._within_budget(inputs)
        with torch.inference_mode(), switched(self._network, ()):
            outputs = [output_tensor(self._network(chunk)) for chunk in inputs.split(fitting)]
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def deterministic_members(self, inputs: Tensor) -> Tensor:
        """Outputs [1, B, ...] of `deterministic`."""
        return self.deterministic(inputs)[None]

    def open(
        self, inputs: Tensor, masks: Masks, seeds: Sequence[int], rows: Sequence[int]
    ) -> Batch:
        """Rows that are ready to run any passes.

        Args:
            inputs: [B, D...].
            masks: of all rows.
            seeds: [B], of the request that each row belongs to.
            rows: [B], number of each row within its own request: with independent masks it, and
                not the place in this batch, decides what drops.
        """
        banks = {seed: self._bank_of(seed) for seed in dict.fromkeys(seeds)}
        return Batch(self, on_device(inputs, self.device), masks, list(seeds), list(rows), banks)

    def way_for(self, inputs: Tensor) -> Way:
        """What runs inputs of this shape."""
        if self._program is not None and self._fast is not None and self._program.takes(inputs):
            return self._fast
        return self._plain

    def chunking(self, inputs: Tensor, row_passes: int = 1) -> Chunking:
        """How so many rows × passes, of rows like these, are cut."""
        fitting = self.fitting(inputs)
        if self._several is not None and self.way_for(inputs) is self._program:
            chunk, threads = self._several
            if row_passes >= _ROUNDS * len(threads) * chunk:
                return Chunking(max(1, min(chunk, fitting // len(threads))), threads)
        return Chunking(fitting if self._alone is None else min(fitting, self._alone), None)

    def fitting(self, inputs: Tensor) -> int:
        """Rows × passes, of rows like these, that fit the memory."""
        within = self._within_budget(inputs)
        return within if self._most is None else min(within, self._most)

    def _within_budget(self, inputs: Tensor) -> int:
        return max(1, self.memory_bytes // max(1, self.cost(inputs).row_pass))

    def rows_at_once(self, inputs: Tensor) -> tuple[int, int]:
        """How many rows like these are opened at once, and how many may stay open."""
        cost = self.cost(inputs)
        opened = max(1, self.memory_bytes // max(1, cost.opening))
        kept = max(1, self.memory_bytes // max(1, cost.boundary))
        return min(opened, kept), kept

    @property
    def tuned_as(self) -> tuning.Tuned:
        """All that was measured of it, or taken over."""
        return tuning.Tuned(
            self.form,
            self._words,
            self._alone,
            None if self._several is None else self._several[0],
            torch.get_num_threads(),
        )

    def tuned_like(self, tuned: tuning.Tuned) -> Sampler:
        """Itself, with chunks as they were measured to run fastest for another of its kind."""
        self._alone = tuned.chunk
        if tuned.own_chunk is not None:
            self._several = tuned.own_chunk, workers(tuned.threads)
        return self

    def tuned(self, example: Callable[[int], Tensor], passes: int) -> Sampler:
        """Itself, with the size of chunk that runs so many passes fastest on this machine."""
        inputs = example(1)
        limit = self._within_budget(inputs)
        bank = NoiseBank(self._bank.seed, self.memory_bytes)
        way = self.way_for(inputs)
        with torch.inference_mode():
            self._alone = tuning.time_chunks(way, example, limit, passes, bank).chunk
            if way is self._program:
                several = tuning.choose_workers(
                    self._program, example, limit, self._alone, passes, bank
                )
                if several is not None:
                    self._several = several
                    word = f"long runs {len(several[1])} chunks at a time"
                    self._words = (*self._words, word)
                    reason = f"{self._strategy.reason}; {word}"
                    self._strategy = Choice(self._strategy.name, reason)
        return self

    def shrink(self, row_passes: int) -> None:
        """Remember that so many passes × rows are the most that fit after all."""
        log.warning("out of memory: from now on %d rows x passes make a chunk", row_passes)
        self._most = max(1, row_passes)

    def cost(self, inputs: Tensor) -> _Cost:
        """What a row of this shape needs, measured on the first such row that comes."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._costs:
            if len(self._costs) >= _KNOWN_SHAPES:
                self._costs.clear()
            # A view would count the storage of the whole batch.
            self._costs[shape] = self._measure(inputs[:1].clone())
        return self._costs[shape]

    def _measure(self, row: Tensor) -> _Cost:
        way = self.way_for(row)
        noise = Noise([NoiseBank(0, 0, lasting=False)], range(1), 1)
        opened: list[Boundary] = []
        outputs: list[Tensor] = []
        with torch.inference_mode():
            opening = peak_bytes(lambda: opened.append(way.open(row)))
            running = peak_bytes(lambda: outputs.append(way.run(opened[0], noise)))
        return _Cost(
            opening=_WORKSPACE * opening,
            boundary=opened[0].bytes,
            row_pass=max(_WORKSPACE * running, outputs[0].numel() * _SAMPLE_BYTES),
        )

    def _bank_of(self, seed: int) -> NoiseBank:
        if seed == self._bank.seed:
            return self._bank
        return NoiseBank(seed, self.memory_bytes // 4, lasting=False)


class Batch:
    """Rows of one or several requests, ready to run any passes of them.

    Made by `Sampler.open`; see there.
    """

    def __init__(
        self,
        sampler: Sampler,
        inputs: Tensor,
        masks: Masks,
        seeds: Sequence[int],
        rows: Sequence[int],
        banks: dict[int, NoiseBank],
        opened: Boundary | None = None,
    ) -> None:
        self._sampler = sampler
        self._inputs = inputs
        self._masks = masks
        self._seeds = seeds
        self._rows = rows
        self._banks = banks
        self._way = sampler.way_for(inputs)
        self._opened = opened

    def __len__(self) -> int:
        return len(self._seeds)

    def run(self, passes: range, *, interruptible: bool = True) -> Iterator[Chunk]:
        """See `OpenRows.run`."""
        longest_s = _GATHERED_S if interruptible else math.inf
        for groups in self._layouts(len(passes)):
            if len(groups) > 1:
                places = [place for group in groups for place in group]
                boundary = self._boundary(places)
                yield from self._attempt(boundary, places, len(groups), passes, passes.stop)
            else:
                limit = self._sampler.memory_bytes // _SAMPLE_BYTES
                yield from _gathered(self._run_group(groups[0], passes), limit, longest_s)

    def select(self, keep: Sequence[int]) -> Batch:
        """The batch of these rows, in this order."""
        seeds = [self._seeds[place] for place in keep]
        return Batch(
            self._sampler,
            self._inputs[list(keep)],
            self._masks,
            seeds,
            [self._rows[place] for place in keep],
            {seed: self._banks[seed] for seed in dict.fromkeys(seeds)},
            None if self._opened is None else self._opened.select(keep),
        )

    def prepare(self) -> None:
        """Compute what comes before the first site, once for all rows, where that can be kept."""
        at_once, kept = self._sampler.rows_at_once(self._inputs)
        if self._opened is None and len(self) <= kept:
            self._opened = self._open(self._inputs, at_once)

    @property
    def fitting(self) -> int:
        """Rows × passes that fit the memory."""
        return self._sampler.fitting(self._inputs)

    def passes_at_once(self, passes: int) -> int:
        """How many of so many passes make a run as fast as it gets, within the memory budget."""
        cut = self._sampler.chunking(self._inputs, len(self) * passes)
        if cut.threads is None:
            return max(1, cut.row_passes // len(self))
        enough = _ROUNDS * len(cut.threads) * cut.row_passes
        return max(1, min(math.ceil(enough / len(self)), self.fitting // len(self)))

    def _layouts(self, passes: int) -> Iterator[list[list[int]]]:
        """Places of rows that run together: of one seed, or of several seeds with equally many.

        Several stand together only where one chunk holds all their passes.
        """
        _, kept = self._sampler.rows_at_once(self._inputs)
        places: dict[int, list[int]] = {}
        for place, seed in enumerate(self._seeds):
            places.setdefault(seed, []).append(place)
        by_size: dict[int, list[list[int]]] = {}
        for own in places.values():
            for start in range(0, len(own), kept):
                some = own[start : start + kept]
                by_size.setdefault(len(some), []).append(some)
        fitting = self._sampler.chunking(self._inputs).row_passes
        for rows, groups in by_size.items():
            together = max(1, min(kept // rows, fitting // (rows * passes)))
            if not self._way.groups_together:
                together = 1
            for start in range(0, len(groups), together):
                yield groups[start : start + together]

    def _boundary(self, places: Sequence[int]) -> Boundary:
        """What is known of these rows; all of it stays where it fits the budget."""
        self.prepare()
        if self._opened is not None:
            return self._opened.select(places)
        at_once, _ = self._sampler.rows_at_once(self._inputs)
        return self._open(self._inputs[list(places)], at_once)

    def _open(self, inputs: Tensor, at_once: int) -> Boundary:
        with torch.inference_mode():
            return join([self._way.open(part) for part in inputs.split(at_once)])

    def _run_group(self, places: Sequence[int], passes: range) -> Iterator[Chunk]:
        """Rows of one seed, pass by pass so that what a pass draws serves all of them."""
        boundary = self._boundary(places)

        def attempt(piece: tuple[range, range]) -> Iterator[Chunk]:
            some, numbers = piece
            own = [places[index] for index in some]
            return self._attempt(boundary.select(some), own, 1, numbers, passes.stop)

        pieces = self._pieces(len(places), passes)
        threads = self._sampler.chunking(self._inputs, len(places) * len(passes)).threads
        if threads is None:
            for piece in pieces:
                yield from attempt(piece)
        else:
            for chunks in threads.in_order(lambda piece: list(attempt(piece)), pieces):
                yield from chunks

    def _pieces(self, rows: int, passes: range) -> Iterator[tuple[range, range]]:
        """Which rows and passes make a chunk each."""
        first = passes.start
        while first < passes.stop:
            # Asked anew each time: what did not fit has made it smaller.
            fitting = self._sampler.chunking(self._inputs, rows * len(passes)).row_passes
            numbers = _alike(range(first, passes.stop), max(1, fitting // rows))
            for start in range(0, rows, step := len(_alike(range(rows), fitting))):
                yield range(start, min(start + step, rows)), numbers
            first = numbers.stop

    def _attempt(
        self,
        boundary: Boundary,
        places: Sequence[int],
        groups: int,
        passes: range,
        until: int,
    ) -> Iterator[Chunk]:
        """Run a chunk; where it does not fit the memory after all, its halves."""
        rows = len(places) // groups
        independent = self._masks is Masks.INDEPENDENT
        noise = Noise(
            [self._banks[self._seeds[places[group * rows]]] for group in range(groups)],
            passes,
            rows,
            [self._rows[place] for place in places] if independent else None,
            until,
        )
        try:
            with torch.inference_mode():
                outputs = self._way.run(boundary, noise)
        except Exception as error:
            if not is_out_of_memory(error) or len(places) * len(passes) == 1:
                raise
            self._sampler.shrink(len(places) * len(passes) // 2)
        else:
            yield Chunk(places, passes, outputs)
            return
        if len(passes) > 1:
            middle = passes.start + len(passes) // 2
            for half in (range(passes.start, middle), range(middle, passes.stop)):
                yield from self._attempt(boundary, places, groups, half, until)
            return
        middle = len(places) // 2 if groups == 1 else rows
        for some in (range(middle), range(middle, len(places))):
            own = [places[index] for index in some]
            of_half = 1 if groups == 1 else len(own) // rows
            yield from self._attempt(boundary.select(some), own, of_half, passes, until)


def _alike(whole: range, most: int) -> range:
    """The first part of the whole, cut into as few as may be, none longer than `most`, all alike.

    Sizes that are nearly one size are also what kernels are prepared for.
    """
    parts = ceil(len(whole) / most)
    return whole[: ceil(len(whole) / parts)]


def on_device(inputs: Tensor, device: torch.device) -> Tensor:
    """Inputs where they are to be computed with."""
    if device.type == "cuda":
        # From pinned memory the copy overlaps what the device is doing.
        inputs = inputs.pin_memory() if inputs.device.type == "cpu" else inputs
    return inputs.to(device, non_blocking=True)


_GATHERED_S = 0.05


def _gathered(chunks: Iterator[Chunk], limit_bytes: int, longest_s: float) -> Iterator[Chunk]:
    """Successive passes of the same rows as one chunk, so that reducing it costs little beside it.

    But not for longer than that: whoever takes the chunks may want to stop.
    """
    waiting: list[Chunk] = []
    size, since = 0, time.monotonic()
    for chunk in chunks:
        if waiting and waiting[0].rows != chunk.rows:
            yield _together(waiting)
            waiting, size = [], 0
        waiting.append(chunk)
        size += chunk.outputs.nbytes
        if size >= limit_bytes or time.monotonic() - since >= longest_s:
            yield _together(waiting)
            waiting, size, since = [], 0, time.monotonic()
    if waiting:
        yield _together(waiting)


def _together(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    passes = range(chunks[0].passes.start, chunks[-1].passes.stop)
    return Chunk(chunks[0].rows, passes, torch.cat([chunk.outputs for chunk in chunks]))


def build_sampler(
    network: nn.Module,
    example: Callable[[int], Tensor],
    *,
    device: torch.device,
    memory_bytes: int,
    noise_bytes: int = 128 * 2**20,
    seed: int = 0,
    passes: int = 50,
    precision: str = "auto",
    to_values: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    stochastic: Sequence[str] = (),
    deterministic: bool = False,
    off: str = "",
    variable: Collection[int] = (),
    like: tuning.Tuned | None = None,
) -> Sampler:
    """Find what drops out in a network, verify it and choose how to sample it.

    Args:
        network: on `device`.
        example: makes inputs [B, D...] on `device` for a B.
        device: where the network is.
        memory_bytes: budget of the activations and outputs of one chunk.
        noise_bytes: budget of what is kept of the noise of `seed`.
        seed: the model's own.
        passes: the model's T.
        precision: `auto`, `float32` or `bfloat16`.
        to_values: raw outputs [T, B, ...] → the values whose mean is reported.
        stochastic: names of further module classes that drop.
        deterministic: take a network in which nothing drops; all its passes are the same.
        off: why what drops out is to stay off in every pass; empty where it is on.
        variable: dimensions of the inputs, beside the first, that may vary.
        like: what was measured for another network of the same architecture, which is taken over;
            what verifies the network is not.

    Raises:
        NoStochasticSite: nothing drops.
        ModelBroken: the network cannot be run, or answers in a way that cannot be served.
    """
    try:
        dropping = Dropping((), (), (), off) if off else inspect(network, example, stochastic)
    except NoStochasticSite:
        if not deterministic:
            raise
        dropping = Dropping((), (), (), "nothing drops, as model.toml says")
    plain = choose_plain(network, dropping, example)
    program, reason = choose_program(network, dropping, example, variable)
    own_precision = _precision_of(network)
    sentences = [reason]
    words: Sequence[str] = ()
    form: tuning.Form | None = None
    recorded: Recorded | None = None
    if program is None:
        if precision == "bfloat16":
            log.warning("CANDOR_PRECISION=bfloat16 needs a sampling program: %s", reason)
        choice = Choice(plain.name, f"no sampling program: {reason}; {plain.reason}")
    else:
        if like is not None and like.form is not None:
            form, words = like.form, like.words
            with torch.inference_mode():
                program = form.of(program)
        else:
            bank = NoiseBank(seed, noise_bytes)
            program, form, words = tuning.choose_form(
                program, precision, example, to_values, passes, bank, own_precision
            )
        sentences += words
        own_precision = form.precision
        if device.type == "cuda":
            recorded, refusal = record(program, example(4), NoiseBank(seed, noise_bytes))
            sentences += [refusal] if refusal else []
        choice = Choice(Strategy.SAMPLING_PROGRAM, "; ".join(sentences))
    sampler = Sampler(
        network,
        dropping,
        Plain(network, dropping, plain.name),
        program,
        choice,
        device,
        recorded=recorded,
        memory_bytes=memory_bytes,
        bank=NoiseBank(seed, noise_bytes),
        precision=own_precision,
        form=form,
        words=words,
    )
    return sampler.tuned(example, passes) if like is None else sampler.tuned_like(like)


def _precision_of(network: nn.Module) -> str:
    first = next(iter(network.parameters()), torch.empty(0))
    return str(first.dtype).removeprefix("torch.")

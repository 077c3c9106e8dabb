"""A pool on a Ray cluster: whoever is free scores the next part, through Ray Data.

Parts, their numbers and the engine are those of `scoring` and `selection`, so that a table and a
choice are those of one process: to the last bit where that computes with the same choices on such a
processor. What a process does not finish, because it or its machine died, is begun again. The pool
and the models have to lie at the same place on every machine.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray

from service.cluster import SharedChoices, environment
from service.errors import CandorError, EngineFailure, InvalidInput, error_class
from service.files import write_atomically
from service.inference.choosing import Best, Chosen, plan_of
from service.inference.devices import resources
from service.pools import scoring, selection
from service.pools.readers import Pool, open_pool
from service.pools.scoring import Earlier, MadeOf
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.settings import Settings
from service.types import Progress, SamplePlan

_MOST_BLOCKS = 10_000
"""Of the numbers of the parts; with more parts several make a block, which is begun again whole."""


_NEEDED = {"models", "default_model", "device", "precision", "memory_bytes", "noise_bytes"}
"""Settings of a process that computes parts; tokens and passwords are none of its business."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes that compute.

    Args:
        most: of them; None for as many as there are processors for.
        cpus: of each, and its threads.
        gpus: of each; below 1 several share one.
    """

    most: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a process has to know to score parts of a pool.

    Args:
        settings: those that say what is computed and on what, as JSON.
        largest_pixel: of images, see `open_pool`.
        plan: passes, seed and masks.
        made_of: all that the numbers depend on, which each process looks at for itself.
    """

    settings: str
    largest_pixel: float
    plan: SamplePlan
    made_of: MadeOf


def job_of(
    settings: Settings, model: LoadedModel, pool: Pool, plan: SamplePlan, largest_pixel: float
) -> Job:
    """The job of scoring a pool.

    Args:
        settings: with the model repository, as it is found from anywhere.
        model: loaded here.
        pool: of rows that it takes.
        plan: passes, seed and masks.
        largest_pixel: of images, see `open_pool`.
    """
    anywhere = settings.model_copy(update={"models": settings.models.absolute()})
    made_of = scoring.made_of(model, pool, plan)
    return Job(anywhere.model_dump_json(include=_NEEDED), largest_pixel, plan, made_of)


def score(
    model: LoadedModel, pool: Pool, output: Path, job: Job, crew: Crew, progress: Progress
) -> Earlier:
    """See `scoring.score`: the same file, by many.

    A run without Ray goes on from the parts that it finds without a gap, and one on Ray from any.

    Raises:
        InvalidInput: see there; or a process finds another pool or another model.
        EngineFailure: the cluster gave up.
    """
    with scoring.writable(output) as parts:
        known = scoring.begin(parts, job.made_of)
        count = ceil(pool.rows / job.made_of.part_rows)
        alike = not known or scoring.computes_alike(model, pool, job.plan, parts, min(known))
        earlier = done = sum(_rows_of(number, job.made_of) for number in known)
        progress(done, pool.rows)
        missing = [number for number in range(count) if number not in known]
        for number, found in _each_part(_Scorer, job, crew, missing):
            write_atomically(scoring.part_file(parts, number), found)
            done += _rows_of(number, job.made_of)
            progress(done, pool.rows)
        scoring.join(parts, count, output)
    return Earlier(earlier, alike)


def select_from_pool(
    model: LoadedModel,
    pool: Pool,
    strategy: str,
    k: int,
    job: Job,
    crew: Crew,
    progress: Progress,
    exclude: Collection[int] = (),
) -> Chosen:
    """See `selection.select_from_pool`: the same points, by many.

    Each part gives its best points one by one, of which the best of all are taken. A strategy that
    chooses points together does so here, among those.

    Raises:
        InvalidInput: a process finds another pool or another model.
        EngineFailure: the cluster gave up.
    """
    plan = plan_of(strategy, job.plan)
    kept = selection.kept_of(model, pool, strategy, k, plan)
    best = Best(kept)
    done = 0
    progress(done, pool.rows)
    count = ceil(pool.rows / job.made_of.part_rows)
    more = {"strategy": strategy, "kept": kept, "exclude": frozenset(exclude)}
    for number, found in _each_part(_Chooser, job, crew, range(count), more):
        indices, scores = np.frombuffer(found, np.int64).reshape(2, -1)
        best.merge(indices, scores.view(np.float64))
        done += _rows_of(number, job.made_of)
        progress(done, pool.rows)
    return selection.choose_among(model, pool, strategy, k, plan, best)


def _rows_of(number: int, made_of: MadeOf) -> int:
    """Of the part of that number."""
    return min(made_of.part_rows, made_of.rows - number * made_of.part_rows)


def _each_part(
    worker: type[_Worker],
    job: Job,
    crew: Crew,
    numbers: Sequence[int],
    more: Mapping[str, Any] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """What the processes make of each part, once, in whatever order it comes."""
    if not numbers:
        return
    missing = set(numbers)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    items = ray.data.from_items(
        [{"part": number} for number in numbers],
        override_num_blocks=min(len(numbers), _MOST_BLOCKS),
    )
    computed = items.map_batches(
        worker,
        batch_size=1,
        batch_format="numpy",
        fn_constructor_args=(job,),
        fn_constructor_kwargs=dict(more or {}),
        compute=ray.data.ActorPoolStrategy(size=_crew_size(crew, len(numbers))),
        num_cpus=crew.cpus,
        num_gpus=crew.gpus or None,
        runtime_env={"env_vars": environment(crew.cpus, crew.gpus)},
    )
    try:
        for row in computed.iter_rows():
            if row["failed"]:
                raise error_class(row["failed"])(row["found"].decode())
            if (number := int(row["part"])) in missing:
                missing.remove(number)
                yield number, row["found"]
    except ray.exceptions.RayError as error:
        raise EngineFailure(
            f"the cluster gave up: {str(error).strip().splitlines()[-1]}; begun again, it goes on "
            "with what is done"
        ) from error
    if missing:
        raise EngineFailure(f"the cluster lost {len(missing)} parts; begun again, it does them")


def _crew_size(crew: Crew, parts: int) -> int:
    """Processes that there is room for, and work."""
    there = ray.cluster_resources()
    fitting = [
        int(there.get(kind, 0.0) / each)
        for kind, each in (("CPU", crew.cpus), ("GPU", crew.gpus))
        if each
    ]
    if not fitting and crew.most is None:
        raise InvalidInput(
            "a process that is to have neither a processor nor a GPU fits any number of times; say "
            "how many (--ray-replicas), or give each a processor (--ray-cpus)",
            field="ray_cpus",
        )
    if fitting and not min(fitting):
        raise InvalidInput(
            f"the cluster has {there.get('CPU', 0):g} processors and {there.get('GPU', 0):g} GPUs, "
            f"and one process is to have {crew.cpus:g} and {crew.gpus:g}",
            field="ray",
        )
    return max(1, min([parts, *fitting, *([] if crew.most is None else [crew.most])]))


class _Worker(ABC):
    """A process that computes parts of a pool, in an actor of Ray Data.

    Args:
        job: what is computed.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._opened: tuple[LoadedModel, Pool] | None = None

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> pa.Table:
        """One part: its number, and what was found or, in words, what failed."""
        [number] = batch["part"].tolist()
        failed, found = "", b""
        try:
            if self._opened is None:
                self._opened = self._open()
            model, pool = self._opened
            first = number * self.job.made_of.part_rows
            rows = next(pool.parts(first, self.job.made_of.part_rows))
            found = self.of_part(model, rows, first)
        except CandorError as error:
            # It is the same for whoever tries again.
            failed, found = error.slug(), error.message.encode()
        columns = {
            "part": pa.array([number]),
            "failed": pa.array([failed]),
            "found": pa.array([found], pa.large_binary()),
        }
        return pa.table(columns)

    @abstractmethod
    def of_part(self, model: LoadedModel, rows: NDArray[Any], first: int) -> bytes:
        """What is found of a part."""

    def _open(self) -> tuple[LoadedModel, Pool]:
        made_of = self.job.made_of
        settings = Settings.model_validate_json(self.job.settings)
        choices = SharedChoices()
        registry = Registry(settings.models, resources(settings, choices), settings.default_model)
        registry.scan(only=made_of.model)
        registry.load_all()
        model = registry.load_unchosen(made_of.model, made_of.version)
        pool = open_pool(Path(made_of.pool), model.manifest.input, self.job.largest_pixel)
        here = asdict(scoring.made_of(model, pool, self.job.plan))
        differing = {
            name: (value, here[name])
            for name, value in asdict(made_of).items()
            if here[name] != value
        }
        if differing:
            said = ", ".join(
                f"{name} {there} and {own}" for name, (there, own) in differing.items()
            )
            raise InvalidInput(
                f"a process on {_machine()} finds another pool or model than the one that began: "
                f"{said}; both have to be the same everywhere, and so has CANDOR_PRECISION",
                field="pool",
            )
        return model, pool


class _Scorer(_Worker):
    """See `scoring`."""

    def of_part(self, model: LoadedModel, rows: NDArray[Any], first: int) -> bytes:
        """The part of the table, as its file has it."""
        table = scoring.table_of(model, rows, first, self.job.plan, lambda _: None)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        content: bytes = sink.getvalue().to_pybytes()
        return content


class _Chooser(_Worker):
    """See `selection`.

    Args:
        job: what is computed.
        strategy: of the choice.
        kept: points of each part that may be among the best of all.
        exclude: numbers of rows that are not to be chosen.
    """

    def __init__(self, job: Job, strategy: str, kept: int, exclude: frozenset[int]) -> None:
        super().__init__(job)
        self._strategy, self._kept, self._exclude = strategy, kept, exclude

    def of_part(self, model: LoadedModel, rows: NDArray[Any], first: int) -> bytes:
        """Numbers of its best rows, then their scores."""
        plan = plan_of(self._strategy, self.job.plan)
        found = selection.best_of_part(
            model, rows, first, self._strategy, plan, self._kept, self._exclude
        )
        return np.array(found.indices, np.int64).tobytes() + np.array(found.scores).tobytes()


def _machine() -> str:
    return str(ray.util.get_node_ip_address())

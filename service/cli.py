"""The `candor` command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import orjson
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from service import __version__, cluster, logs
from service.api import bodies
from service.api.announcement import announcement
from service.api.answers import contents, select
from service.api.engine import Computed
from service.api.models import describe_model
from service.api.predict import head, plan_and_fields
from service.api.server import serve as run_server
from service.assessment.calibrate import Wanted, in_words
from service.assessment.calibrate import calibrate as calibration_of
from service.assessment.data import read_inputs, read_labelled
from service.assessment.laplace import add_laplace_version
from service.calibration.artifact import write_calibration
from service.calibration.scores import SCORES
from service.client import Client
from service.configuration import as_toml
from service.errors import CandorError, InvalidInput, ModelBroken
from service.flags import with_settings
from service.inference import choosing
from service.inference.devices import resources
from service.inference.fields import Fields
from service.inference.prediction import Request
from service.inference.tuning import Choices
from service.registry import repository
from service.registry.export import export_archive
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.scheduling.batch import merge
from service.schemas import ModelInfo, PredictRequest, VersionInfo
from service.settings import PREFIX, Settings, load_settings, load_with_origins
from service.tokens import SCOPES, Token, hash_of, make_token
from service.types import DEFAULT_MAX_PASSES, Masks

app = typer.Typer(
    name="candor",
    help="Serves dropout-trained PyTorch models that say how sure they are.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

_ROWS_AT_ONCE = 256
_MUCH_WORSE = 0.1
"""Nats a row."""


_SERVE_EPILOG = (
    "[bold]Example:[/bold] candor serve --models models --port 8000\n\n"
    "Every flag is a variable of the environment, too: --max-work is "
    f"{PREFIX}MAX_WORK; or a key of the file that --config or {PREFIX}CONFIG names: max_work = "
    "1000. A flag wins over a variable, and both over the file. All variables:\n\n"
    + ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
)

ModelsOption = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="The model repository. [default: models]"),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Needed where there are several.")]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--version",
        metavar="NUMBER|LABEL",
        help="Default: the one labelled stable, or the highest that verifies.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help=".npz that holds x [N, D...], or a .npy."),
]
InputsOption = Annotated[
    str | None, typer.Option("--inputs", metavar="JSON", help="The rows themselves: '[[1975.5]]'.")
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Ask a running server instead of loading the model here."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE.npz", help="Write arrays here instead of JSON to stdout."),
]


@app.callback(invoke_without_command=True)
def _candor(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show_version:
        out.print(__version__)
        raise typer.Exit


@app.command(epilog=_SERVE_EPILOG)
@with_settings
def serve(
    *,
    flags: Mapping[str, object],
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print every setting and where it comes from, as a file for --config, and end.",
        ),
    ] = False,
) -> None:
    """Serve the models of a repository over HTTP."""
    with _plainly():
        settings, origins = load_with_origins(flags)
        if print_config:
            print(as_toml(settings, origins), end="")
            return
        logs.set_up(settings.log_level, settings.log_format)
        logs.take_over()
        if settings.ray is not None:
            cluster.require()
            # It imports Ray, which nothing else needs.
            from service.ray_app import serve_on_ray

            serve_on_ray(settings)
            return
        run_server(
            settings, lambda service, address: print(announcement(service, address), flush=True)
        )
        _leave()


def _leave() -> NoReturn:
    """End the process, of which all that has to be closed is closed.

    The interpreter would end its threads wherever they are, which in the midst of PyTorch now and
    then aborts the process.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor token\n\n"
        "candor token anna --scope predict --scope label\n\n"
        f"Scopes: {'; '.join(f'{name}: {covers}' for name, covers in SCOPES.items())}."
    ),
)
def token(
    name: Annotated[
        str, typer.Argument(help="Whose it is; stands in the log, and is no secret.")
    ] = "client",
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may; several times for several.")
    ] = None,
) -> None:
    """Make a random token: print it, and beside it the hash that the server is given."""
    with _plainly():
        made = make_token()
        try:
            known = Token.of({"name": name, "scopes": scope or ["predict"], "hash": hash_of(made)})
        except ValueError as error:
            raise InvalidInput(str(error)) from None
        print(f"token        {made}")
        print(f"for clients  Authorization: Bearer {made}")
        print(f"for servers  {PREFIX}TOKENS={known}")


@app.command(
    "models",
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor models\n\n"
        "candor models --verify models/digits\n\n"
        "candor models --url http://127.0.0.1:8000"
    ),
)
def list_models(
    models: ModelsOption = None,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Check one model folder before it is deployed."),
    ] = None,
    url: UrlOption = None,
) -> None:
    """List models with their state, or check a model folder."""
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        if url is not None:
            with _client(url) as client:
                found = client.models()
        else:
            if verify is not None:
                verify = verify.resolve()
                if not verify.is_dir():
                    raise ModelBroken(f"{verify} is no folder")
            registry = _registry(verify.parent if verify else models)
            registry.scan(only=verify.name if verify else None)
            with err.status("verifying models"):
                registry.load_all()
            found = [describe_model(model) for model in registry.models()]
        _print_models(found, sites=verify is not None)
        # What the version policy passes over was not to serve.
        versions = [v for m in found for v in m.versions if v.state != "unloaded"]
        reasons = [*(m.reason for m in found), *(v.reason for v in versions)]
        if verify is not None and any(reasons):
            raise typer.Exit(1)


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor predict --model co2 --inputs '\\[\\[1975.5], \\[2030.0]]'\n\n"
        "candor predict --model digits --data digits.npz --passes 200 --out doubt.npz"
    )
)
def predict(
    model: ModelOption = None,
    version: VersionOption = None,
    data: DataOption = None,
    inputs: InputsOption = None,
    passes: Annotated[int | None, typer.Option(help="T; default: the model's.")] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Instead of --passes: until the standard error of mean is below it."),
    ] = None,
    max_passes: Annotated[
        int | None,
        typer.Option(help=f"With --tolerance: the most. [default: {DEFAULT_MAX_PASSES}]"),
    ] = None,
    seed: Annotated[str | None, typer.Option(help="An integer, or random.")] = None,
    masks: Annotated[Masks | None, typer.Option(help="One thinned network a pass, or a row.")] = (
        None
    ),
    fields: Annotated[
        str | None, typer.Option("--return", help="Fields wanted, with commas between.")
    ] = None,
    models: ModelsOption = None,
    url: UrlOption = None,
    out_file: OutOption = None,
) -> None:
    """Predict with uncertainty."""
    given = {
        "passes": passes,
        "tolerance": tolerance,
        "max_passes": max_passes,
        "seed": seed,
        "masks": masks,
    }
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        rows = _read_rows(data, inputs)
        request = bodies.check(
            PredictRequest,
            {
                "model": model,
                "version": _version(version),
                **{key: value for key, value in given.items() if value is not None},
                **({"return": fields.split(",")} if fields else {}),
            },
        )
        if url is not None:
            with _client(url) as client:
                answer = client.predict(
                    rows,
                    model=model,
                    version=_version(version),
                    passes=request.passes,
                    tolerance=request.tolerance,
                    max_passes=request.max_passes,
                    seed=request.seed,
                    masks=request.masks,
                    fields=request.return_,
                )
            _write(asdict(answer), out_file)
            return
        loaded = _load(models, model, _version(version))
        plan, wanted = plan_and_fields(loaded.manifest, request)
        batch = torch.from_numpy(bodies.RawInputs(rows).batch(loaded.manifest.input))
        parts = [
            _predict_alone(
                loaded, Request(batch[chunk], plan, wanted, range(chunk.start, chunk.stop))
            )
            for chunk in _chunks(len(batch))
        ]
        found = merge(parts)
        more = head(loaded, plan, Computed(found, plan))
        arrays = out_file is not None
        _write(contents(loaded, select(found, wanted), more, arrays=arrays), out_file)


@app.command(
    "eval",
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor eval --model co2 --inputs '\\[\\[1975.5]]'\n\n"
        "candor eval --model digits --data digits.npz --out answer.npz"
    ),
)
def evaluate(
    model: ModelOption = None,
    version: VersionOption = None,
    data: DataOption = None,
    inputs: InputsOption = None,
    models: ModelsOption = None,
    url: UrlOption = None,
    out_file: OutOption = None,
) -> None:
    """Answer deterministically, with dropout off."""
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        rows = _read_rows(data, inputs)
        if url is not None:
            with _client(url) as client:
                _write(asdict(client.eval(rows, model=model, version=_version(version))), out_file)
            return
        loaded = _load(models, model, _version(version))
        batch = torch.from_numpy(bodies.RawInputs(rows).batch(loaded.manifest.input))
        fields = loaded.evaluate(batch)
        _write(contents(loaded, fields, {}, arrays=out_file is not None), out_file)


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor calibrate digits --data validation.npz --false-positive-rate 0.05 --coverage 0.9"
        "\n\n"
        "candor calibrate digits --data validation.npz --ood letters.npz "
        "--score predictive_entropy+mutual_information"
    )
)
def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its name in the repository.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE.npz",
            help="Held-out rows x [N, D...] with their truth y [N], not seen in training.",
        ),
    ],
    false_positive_rate: Annotated[
        float, typer.Option(help="Share of rows like these that may be flagged as unlike them.")
    ] = 0.05,
    coverage: Annotated[
        float, typer.Option(help="Share of prediction sets or intervals that hold the truth.")
    ] = 0.9,
    score: Annotated[
        str,
        typer.Option(help=f"That flags: {', '.join(SCORES)}, or several with + between."),
    ] = "variance",
    ood: Annotated[
        Path | None,
        typer.Option(
            "--ood",
            metavar="FILE.npz",
            help="Rows that should be flagged, to see how well each score tells them.",
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Of prediction sets: lac or aps.")] = "lac",
    randomised: Annotated[
        bool, typer.Option("--randomised", help="Smaller aps sets, by a draw of each row's own.")
    ] = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Have the coverage in every class.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of how rows are split.")] = 0,
    version: VersionOption = None,
    models: ModelsOption = None,
) -> None:
    """Learn thresholds, prediction sets and a temperature from held-out data."""
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        wanted = Wanted(false_positive_rate, coverage, score, method, randomised, per_class, seed)
        loaded = _load(models, model, _version(version))
        labelled = read_labelled(data, loaded.manifest)
        other = None if ood is None else read_inputs(ood, loaded.manifest)
        with _row_bar() as progress:
            found = calibration_of(loaded, labelled, wanted, other, progress=progress)
        folder = load_settings({"models": models}).models / model / str(loaded.ref.version)
        path = write_calibration(folder, found)
        for line in in_words(found):
            out.print(line, soft_wrap=True, markup=False, highlight=False)
        err.print(
            f"wrote {path}; a running server takes it up after "
            f"curl -X POST http://127.0.0.1:8000/models/{model}/reload",
            soft_wrap=True,
            highlight=False,
        )


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor report digits --data test.npz\n\n"
        "candor report digits --data test.npz --ood other.npz --name upside-down\n\n"
        "candor report digits --data test.npz --version 1 --with 2 --with 3 -o report.html"
    )
)
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="FILE.npz",
            help="Held-out x [N, D...] and y [N], which training never saw.",
        ),
    ],
    ood: Annotated[
        Path | None,
        typer.Option("--ood", metavar="FILE.npz", help="x [N, D...] unlike the training data."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.html",
            help="The page; its numbers go beside it as .json. Default: both go into the version's "
            "folder, where a server lists them.",
        ),
    ] = None,
    called: Annotated[
        str | None,
        typer.Option(
            "--name", help="Under which it stands there; one of that name is replaced. [the time]"
        ),
    ] = None,
    version: VersionOption = None,
    beside: Annotated[
        list[int] | None,
        typer.Option(
            "--with",
            metavar="VERSION",
            help="A further version to compare it with: an ensemble, say. May stand several times.",
        ),
    ] = None,
    passes: Annotated[int | None, typer.Option(help="T; default: the model's.")] = None,
    models: ModelsOption = None,
) -> None:
    """Show on a page whether Monte Carlo dropout earns its price on your data."""
    # Drawing takes half a second to import, which no other command needs.
    from service.assessment import words
    from service.assessment.place import place_of
    from service.assessment.writing import write_report

    with _plainly():
        logs.set_up("error", logs.HUMAN)
        loaded, *others = _load_versions(models, name, [_version(version), *(beside or [])])
        labelled = read_labelled(data, loaded.manifest)
        strangers = None if ood is None else read_inputs(ood, loaded.manifest)
        root = load_settings({"models": models}).models
        place = place_of(root, loaded.ref, output, called, datetime.now(UTC))
        if place.why_not:
            _say(f"{place.why_not}: the report goes to {place.page}, and no server will list it")
        with _row_bar() as progress:
            found = loaded.calibration if passes in (None, loaded.manifest.passes) else None
            fitted = None if found is None else found.temperature
            noise = None if found is None else found.noise
            made = write_report(
                loaded,
                labelled,
                strangers,
                place.page,
                place.numbers,
                passes=passes,
                temperature=None if fitted is None else fitted.value,
                noise_variance=None if noise is None else noise.variance,
                others=others,
                folder_made=place.beside,
                progress=progress,
            )
        for sentence in words.verdict(made):
            out.print(f"- {escape(sentence)}", soft_wrap=True, highlight=False)
        listed = "; a running server lists it at once" if place.beside else ""
        _say(f"wrote {place.page} and {place.numbers}{listed}")


PoolOption = Annotated[
    Path,
    typer.Option(
        "--pool",
        metavar="POOL",
        help="Unlabelled rows: .npy, .npz (x), .parquet, .arrow, .feather or a folder of images.",
    ),
]
PixelOption = Annotated[float, typer.Option(help="What a white pixel of an image is to the model.")]
PassesOption = Annotated[int | None, typer.Option(help="T; default: the model's.")]
SeedOption = Annotated[int | None, typer.Option(help="Of the masks; default: the model's.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Compute on a Ray cluster: HOST:PORT, auto or local. "
        "Needs pip install 'candor\\[ray]'.",
    ),
]
RayMostOption = Annotated[
    int | None,
    typer.Option(
        "--ray-replicas",
        min=1,
        help="With --ray: processes at most. [default: one a processor]",
    ),
]
RayCpusOption = Annotated[
    float, typer.Option("--ray-cpus", min=0, help="With --ray: processors of each, and threads.")
]
RayGpusOption = Annotated[
    float, typer.Option("--ray-gpus", min=0, help="With --ray: GPUs of each; 0.5 for half of one.")
]


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor query --pool pool.parquet --model digits -k 100 --strategy batch_bald\n\n"
        "candor query --pool images/ --model digits -k 20 --exclude labelled.txt\n\n"
        "candor query --pool pool.parquet --model digits -k 100 --ray auto"
    )
)
def query(
    pool: PoolOption,
    k: Annotated[int, typer.Option("-k", min=1, help="Rows wanted.")] = 10,
    strategy: Annotated[
        str,
        typer.Option(
            help="bald, batch_bald, predictive_entropy, …; an unknown one names them all."
        ),
    ] = "bald",
    model: ModelOption = None,
    version: VersionOption = None,
    passes: PassesOption = None,
    seed: SeedOption = None,
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Numbers of rows that are not to be chosen, one a line."),
    ] = None,
    largest_pixel: PixelOption = 1.0,
    ray: RayOption = None,
    ray_replicas: RayMostOption = None,
    ray_cpus: RayCpusOption = 1.0,
    ray_gpus: RayGpusOption = 0.0,
    models: ModelsOption = None,
) -> None:
    """Choose the rows of a pool whose labels would say most; prints their numbers and scores."""
    # Reading tables takes a quarter of a second to import, which no other command needs.
    from service.pools.readers import open_pool
    from service.pools.selection import select_from_pool

    with _plainly(), _cluster(ray, ray_cpus, ray_gpus) as choices:
        logs.set_up("error", logs.HUMAN)
        loaded = _load(models, model, _version(version), choices)
        choosing.check_strategy(strategy, loaded.manifest.task)
        rows = open_pool(pool, loaded.manifest.input, largest_pixel)
        excluded = frozenset() if exclude is None else _row_numbers(exclude)
        choosing.check_left(k, rows.rows, excluded)
        plan = loaded.manifest.plan_for(passes, seed)
        with _row_bar() as progress:
            if ray is None:
                chosen = select_from_pool(loaded, rows, strategy, k, plan, progress, excluded)
            else:
                from service.pools import distributed

                if strategy == choosing.BATCH_BALD:
                    err.print(
                        "batch_bald chooses points together: many processes find the candidates "
                        "of the whole pool, and this one chooses among them"
                    )
                settings = load_settings({"models": models})
                job = distributed.job_of(settings, loaded, rows, plan, largest_pixel)
                crew = distributed.Crew(ray_replicas, ray_cpus, ray_gpus)
                chosen = distributed.select_from_pool(
                    loaded, rows, strategy, k, job, crew, progress, excluded
                )
        for index, score in zip(chosen.indices, chosen.scores, strict=True):
            name = rows.name(index)
            print(index, f"{score:.6g}", *([] if name is None else [name]), sep="\t")


@app.command(
    epilog=(
        "[bold]Examples:[/bold]\n\n"
        "candor score pool.parquet --model digits -o scores.parquet\n\n"
        "candor score pool.parquet --model digits -o scores.parquet --ray auto"
    ),
)
def score(
    pool: Annotated[
        Path,
        typer.Argument(
            metavar="POOL", help=".npy, .npz (x), .parquet, .arrow, .feather or a folder of images."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE.parquet", help="The table to write.")
    ],
    model: ModelOption = None,
    version: VersionOption = None,
    passes: PassesOption = None,
    seed: SeedOption = None,
    largest_pixel: PixelOption = 1.0,
    ray: RayOption = None,
    ray_replicas: RayMostOption = None,
    ray_cpus: RayCpusOption = 1.0,
    ray_gpus: RayGpusOption = 0.0,
    models: ModelsOption = None,
) -> None:
    """Predict every row of a pool of any size; killed and begun again, it goes on."""
    from service.pools.readers import open_pool
    from service.pools.scoring import score as score_pool

    with _plainly(), _cluster(ray, ray_cpus, ray_gpus) as choices:
        logs.set_up("error", logs.HUMAN)
        loaded = _load(models, model, _version(version), choices)
        rows = open_pool(pool, loaded.manifest.input, largest_pixel)
        plan = loaded.manifest.plan_for(passes, seed)
        with _row_bar() as progress:
            if ray is None:
                earlier = score_pool(loaded, rows, output, plan, progress)
            else:
                from service.pools import distributed

                settings = load_settings({"models": models})
                job = distributed.job_of(settings, loaded, rows, plan, largest_pixel)
                crew = distributed.Crew(ray_replicas, ray_cpus, ray_gpus)
                earlier = distributed.score(loaded, rows, output, job, crew, progress)
        went_on = f"; {earlier.rows} of them by an earlier run" if earlier.rows else ""
        err.print(f"wrote {rows.rows} rows to {output}{went_on}", soft_wrap=True, highlight=False)
        if not earlier.alike:
            err.print(
                "[bold yellow]warning:[/bold yellow] the earlier run rounded otherwise: other "
                "chunks were fastest when the model loaded, or it was another machine. Remove "
                f"{escape(str(output))} and run again for a table of one piece; with CANDOR_TUNING "
                "runs on one machine round alike",
                soft_wrap=True,
            )


@app.command(
    epilog="[bold]Example:[/bold] candor export models/digits --out digits.pt2",
)
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model's folder.")],
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE.pt2", help="Where to write the archive.")
    ],
    version: Annotated[
        int | None, typer.Option("--version", help="Default: the highest that there is.")
    ] = None,
    member: Annotated[
        int | None, typer.Option(help="Which one of a version that has several, from 1.")
    ] = None,
) -> None:
    """Make a .pt2 archive of a model: graph and weights in one file, served without its code."""
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        with err.status("exporting"):
            sites = export_archive(folder, version, out_file, member)
        err.print(f"wrote {out_file} with {sites} dropout sites; put it in a version's folder")


@app.command(
    epilog=(
        "[bold]Example:[/bold] candor laplace digits --data train.npz --members 20\n\n"
        "Needs laplace-torch: pip install 'candor\\[laplace]'."
    )
)
def laplace(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the repository.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", help=".npz of the training rows: x [N, D...], y [N]."
        ),
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=".npz of other rows, to choose the prior's precision by."
        ),
    ] = None,
    members: Annotated[int, typer.Option(help="Draws of the posterior, each a member.")] = 20,
    version: Annotated[
        int | None, typer.Option(help="To start from; default: the highest.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    dropout: Annotated[
        bool, typer.Option("--dropout", help="Let what drops out drop in the members, too.")
    ] = False,
    models: ModelsOption = None,
) -> None:
    """Fit a last-layer Laplace posterior and add a version whose members are draws of it."""
    with _plainly():
        logs.set_up("error", logs.HUMAN)
        root = load_settings({"models": models}).models
        folder = repository.inside(root, root / repository.check_name(name))
        with err.status("fitting the posterior"):
            new, fitted = add_laplace_version(
                folder,
                data,
                version=version,
                members=members,
                seed=seed,
                dropout=dropout,
                held_out=held_out,
            )
        err.print(
            f"wrote {folder / str(new)}: {members} draws of {fitted.layer} ({fitted.structure}, "
            f"prior precision {fitted.prior_precision:.3g})"
        )
        rows = "training" if held_out is None else "held-out"
        err.print(
            f"negative log-likelihood of the {rows} rows, nats a row: {fitted.network_nll:.4f} by "
            f"the network, {fitted.draws_nll:.4f} by the draws"
        )
        if held_out is None and fitted.draws_nll > fitted.network_nll + _MUCH_WORSE:
            err.print(
                "[bold yellow]warning:[/bold yellow] the draws predict much worse than the network "
                "did; choose the prior's precision by rows that it was not trained on: --held-out"
            )


def main() -> None:
    """Entry point of the command."""
    app()


@contextmanager
def _plainly() -> Iterator[None]:
    """Errors as a sentence on stderr and exit code 1, not as a traceback."""
    try:
        yield
    except CandorError as error:
        err.print(
            f"[bold red]error:[/bold red] {escape(error.message)}", soft_wrap=True, emoji=False
        )
        raise typer.Exit(1) from None


def _say(sentence: str) -> None:
    """On stderr, as it is."""
    err.print(escape(sentence), soft_wrap=True, highlight=False)


@contextmanager
def _cluster(address: str | None, cpus: float, gpus: float) -> Iterator[Choices | None]:
    """A cluster to compute on, where one is named, and what its processes have measured.

    What is computed here is computed as there, on as many threads.
    """
    if address is None:
        yield None
        return
    with cluster.connected(address, gpus):
        torch.set_num_threads(max(1, int(cpus)))
        yield cluster.SharedChoices()


def _registry(models: Path | None, choices: Choices | None = None) -> Registry:
    settings = load_settings({"models": models})
    return Registry(
        settings.models,
        resources(settings, choices),
        settings.default_model,
    )


def _version(text: str | None) -> int | str | None:
    """A version's number where it is one, otherwise its label."""
    return int(text) if text is not None and text.isdecimal() else text


def _load(
    models: Path | None,
    name: str | None,
    version: int | str | None,
    choices: Choices | None = None,
) -> LoadedModel:
    [found] = _load_versions(models, name, [version], choices)
    return found


def _load_versions(
    models: Path | None,
    name: str | None,
    versions: Sequence[int | str | None],
    choices: Choices | None = None,
) -> list[LoadedModel]:
    """Several versions of one model, each once; numbers also of those that no server would load.

    Raises:
        InvalidInput: a version that stands twice.
    """
    registry = _registry(models, choices)
    registry.scan(only=name)
    with err.status("loading the model"):
        registry.load_all()
    found = [
        registry.load_unchosen(name, version)
        if name is not None and isinstance(version, int)
        else registry.resolve(name, version)
        for version in versions
    ]
    numbers = [each.ref.version for each in found]
    if twice := next((number for number in numbers if numbers.count(number) > 1), None):
        raise InvalidInput(
            f"version {twice} stands twice; --with names versions other than the report's own, "
            "each once",
            field="with",
            received=twice,
        )
    return found


def _predict_alone(loaded: LoadedModel, request: Request) -> Fields:
    [fields] = loaded.predict([request])
    assert fields is not None
    return fields


def _chunks(rows: int) -> Iterator[slice]:
    with _row_bar(hidden=rows <= _ROWS_AT_ONCE) as progress:
        for start in range(0, rows, _ROWS_AT_ONCE):
            chunk = slice(start, min(start + _ROWS_AT_ONCE, rows))
            yield chunk
            progress(chunk.stop, rows)


def _client(url: str) -> Client:
    """Of a running server, with the token that CANDOR_TOKEN or CANDOR_TOKEN_FILE holds."""
    file = os.environ.get(f"{PREFIX}TOKEN_FILE")
    try:
        known = os.environ.get(f"{PREFIX}TOKEN") or (
            Path(file).read_text().strip() if file else None
        )
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{PREFIX}TOKEN_FILE cannot be read: {error}") from None
    return Client(url, token=known)


@contextmanager
def _row_bar(*, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; what it gives is called with the rows done and the rows there are."""
    columns = (TextColumn("{task.completed}/{task.total} rows"), BarColumn())
    # Written to a file, a bar would leave empty lines.
    silent = hidden or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=silent) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, rows: bar.update(task, completed=done, total=rows)


def _read_rows(data: Path | None, inputs: str | None) -> Any:
    if (data is None) == (inputs is None):
        raise InvalidInput("give the rows either with --data FILE or with --inputs JSON")
    if data is None:
        try:
            return orjson.loads(inputs or "")
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"--inputs is not JSON: {error}") from None
    try:
        with data.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            if "x" not in content:
                held = ", ".join(content) or "nothing"
                raise InvalidInput(f"{data} has no array x [N, D...]; it holds {held}")
            rows: NDArray[Any] = content["x"]
            return rows
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{data} cannot be read: {error}") from None


def _row_numbers(path: Path) -> frozenset[int]:
    try:
        return frozenset(int(line) for line in path.read_text().split())
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}; expected numbers of rows, one a line",
            field="exclude",
        ) from None


def _write(answer: Mapping[str, Any], out_file: Path | None) -> None:
    if out_file is None:
        lines = [
            f"  {orjson.dumps(name).decode()}: "
            + orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
            for name, value in answer.items()
        ]
        print("{\n" + ",\n".join(lines) + "\n}")
        return
    arrays = {name: np.asarray(value) for name, value in answer.items() if value is not None}
    np.savez(out_file, allow_pickle=False, **arrays)
    err.print(f"wrote {', '.join(arrays)} to {out_file}")


def _print_models(models: Sequence[ModelInfo], *, sites: bool) -> None:
    columns = ("model", "version", "state", "task", "members", "dropout sites", "sampled by")
    table = Table(*columns, box=None)
    for model in models:
        for version in model.versions or [VersionInfo(version=0, state="failed")]:
            live = [site for site in version.sites if not site.inert]
            table.add_row(
                model.name + (" *" if version.version == model.default_version else ""),
                str(version.version or "-"),
                version.state,
                model.task or "-",
                str(version.members or "-"),
                f"{len(live)} of {len(version.sites)} live" if version.sites else "-",
                version.strategy.name if version.strategy else "-",
            )
    out.print(table)
    for model in models:
        of_versions = [f"version {v.version}: {v.reason}" for v in model.versions if v.reason]
        for reason in filter(None, [model.reason, *model.warnings, *of_versions]):
            out.print(f"\n{model.name}: {escape(reason)}", soft_wrap=True)
        if sites:
            _print_sites(model)


def _print_sites(model: ModelInfo) -> None:
    for version in model.versions:
        if version.sites:
            table = Table("site", "kind", "rate", "mask", "changes the output", box=None)
            for site in version.sites:
                rate = "-" if site.rate is None else f"{site.rate:g}"
                shape = " x ".join("rows" if size == -1 else str(size) for size in site.mask)
                table.add_row(site.path, site.kind, rate, shape, "no" if site.inert else "yes")
            out.print()
            out.print(table)
        for warning in version.warnings:
            out.print(f"warning: {escape(warning)}", soft_wrap=True)

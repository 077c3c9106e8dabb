"""The bodies of requests and answers, as pydantic checks and documents them.

Arrays are not checked here, element by element: see `registry/inputs.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema, model_validator

from service.types import DEFAULT_MAX_PASSES, LABEL_PATTERN, Masks

_INT64 = 2**63
_MOST_FIELDS = 100

Inputs = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": "array",
            "items": {},
            "minItems": 1,
            "description": "[B, D...]: a batch of B rows, each of the model's input shape",
        }
    ),
]
Seed = Annotated[int, Field(ge=-_INT64, le=_INT64 - 1)]

VersionName = Annotated[
    Annotated[int, Field(ge=1, le=_INT64 - 1)] | Annotated[str, Field(pattern=LABEL_PATTERN)],
    Field(union_mode="left_to_right"),
]
"""A version's number or label."""

SampleStatus = Literal["unlabelled", "labelled", "skipped"]
Name = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that any database takes."""
Lease = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
LeaseSeconds = Annotated[float, Field(gt=0, le=86_400)]
ScoreName = Literal["variance", "predictive_entropy", "mutual_information", "variation_ratio"]
"""As of `store.tables.SCORES`."""

FieldName = Literal[
    "mean",
    "std",
    "standard_error",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "variation_ratio",
    "aleatoric_std",
    "epistemic_std",
    "label",
    "variance",
    "calibrated_mean",
    "ood",
    "prediction_set",
    "interval",
    "predictive_entropy_jackknife",
    "mutual_information_jackknife",
    "quantiles",
    "samples",
]


class Closed(BaseModel):
    """Whose unknown fields are errors, of which a few are enough: each is larger than what came."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and len(content) > _MOST_FIELDS:
            return dict(itertools.islice(content.items(), _MOST_FIELDS))
        return content


class EvalRequest(Closed):
    """Body of `POST /eval`."""

    inputs: Inputs = None
    model: str | None = Field(None, description="may be left out where one model is served")
    version: VersionName | None = Field(
        None,
        description="a number, or a label of model.toml such as stable or canary; default: the one "
        "labelled stable, or the highest that is ready",
    )


class PredictRequest(EvalRequest):
    """Body of `POST /predict`."""

    passes: int | None = Field(None, ge=2, description="T; default: the model's")
    tolerance: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="instead of passes: each row is sampled until the largest standard error of "
        "its mean is surely at most this",
    )
    max_passes: int | None = Field(
        None,
        ge=2,
        description=f"with tolerance: the most passes of a row; default: {DEFAULT_MAX_PASSES}",
    )
    seed: Seed | Literal["random"] | None = Field(
        None, description='default: the model\'s, so that a repeat is equal; "random": a fresh draw'
    )
    masks: Literal["shared", "independent"] | None = Field(
        None,
        description="shared: one thinned network a pass, for all rows; independent: one a row",
    )
    return_: Annotated[list[FieldName] | None, FailFast()] = Field(
        None,
        alias="return",
        description="fields wanted; default: all but those for which every pass is kept: samples, "
        "quantiles, predictive_entropy_jackknife and mutual_information_jackknife",
    )


class QueryRequest(EvalRequest):
    """Body of `POST /query`: a pool of N unlabelled rows as `inputs`."""

    k: int = Field(ge=1, description="rows wanted")
    strategy: str = Field(
        "bald",
        description="bald, predictive_entropy, variation_ratio, mean_std, margin, "
        "least_confidence, power_bald, random, or batch_bald, which chooses them together",
    )
    passes: int | None = Field(None, ge=2, description="T; default: the model's")
    seed: Seed | Literal["random"] | None = Field(
        None, description='default: the model\'s, so that a repeat is equal; "random": a fresh draw'
    )
    exclude: Annotated[list[Annotated[int, Field(ge=0)]], FailFast()] = Field(
        [], description="rows that are not to be chosen: those labelled already, say"
    )


class QueryAnswer(BaseModel):
    """Answer of `POST /query`."""

    model: str
    version: int
    strategy: str
    passes: int
    seed: int
    indices: list[int] = Field(description="[k] into `inputs`, the most informative first")
    scores: list[float | None] = Field(
        description="[k]; of batch_bald what each adds to those before it, nats"
    )


class SamplesQuery(Closed):
    """Query of `GET /samples`."""

    model: Name | None = Field(None, description="of which model; default: all")
    status: SampleStatus | None = Field(None, description="default: all")
    order: ScoreName | None = Field(
        None,
        description="most uncertain first, by this score; default: mutual_information, or variance "
        "of a model that predicts no classes",
    )
    limit: int = Field(50, ge=1, le=1000, description="samples of a page")
    after: Name | None = Field(None, description="`next` of the page before")


class ExportQuery(Closed):
    """Query of `GET /samples/export`."""

    format: Literal["jsonl", "npz", "parquet"] = Field(
        "jsonl", description="npz holds x [N, D...] and y [N], as every `--data` expects them"
    )
    model: Name | None = Field(None, description="of which model; may be left out with jsonl")
    status: SampleStatus | Literal["all"] = Field("labelled", description="of which status")


class RemoveQuery(Closed):
    """Query of `DELETE /samples`; at least one field."""

    model: Name | None = Field(None, description="all samples of this model")
    request_id: Name | None = Field(None, description="all rows of this request")


class LeaseRequest(Closed):
    """Body of `POST /samples/lease`."""

    model: Name = Field(description="of which model")
    limit: int = Field(10, ge=1, le=1000, description="samples at most")
    seconds: LeaseSeconds = Field(
        300.0, description="for which nobody else gets them or labels them"
    )
    order: ScoreName | None = Field(None, description="as of GET /samples")


class LabelRequest(Closed):
    """Body of `POST /samples/{id}/label`."""

    label: Annotated[Any, WithJsonSchema({})] = Field(
        description="a class by name or index; of a multilabel task a list of those that hold; of "
        "a regression a number, or a list of one for each output"
    )
    lease: Lease | None = Field(None, description="needed where the sample is leased")


class SkipRequest(Closed):
    """Body of `POST /samples/{id}/skip`; may be empty."""

    lease: Lease | None = Field(None, description="needed where the sample is leased")


class RenewRequest(Closed):
    """Body of `POST /samples/lease/renew`."""

    lease: Lease = Field(description="of POST /samples/lease")
    seconds: LeaseSeconds = Field(300.0, description="for which it holds from now on")


class ReleaseRequest(Closed):
    """Body of `POST /samples/lease/release`."""

    lease: Lease = Field(description="of POST /samples/lease")


class UndoRequest(Closed):
    """Body of `POST /samples/{id}/undo`; may be empty."""

    lease: Lease | None = Field(
        None,
        description="by which the sample was decided, and which then holds it again: a decision of "
        "somebody else's is not undone; default: whoever decided, and then nobody holds it",
    )
    seconds: LeaseSeconds = Field(300.0, description="for which the lease holds it")


class CountsQuery(Closed):
    """Query of `GET /samples/counts`."""

    model: Name | None = Field(None, description="of which model; default: all that have samples")


class SampleInfo(BaseModel):
    """A kept row of a request."""

    id: str
    model: str
    version: int
    time: str = Field(description="when it was answered, ISO 8601")
    request_id: str
    row: int = Field(description="within its request")
    input: Annotated[Any, WithJsonSchema({"description": "[D...]"})]
    scores: dict[str, float]
    label: Annotated[Any, WithJsonSchema({})] = None
    status: SampleStatus
    labelled_time: str | None = Field(None, description="of the label or skip, ISO 8601")


class SamplePage(BaseModel):
    """Answer of `GET /samples`."""

    samples: list[SampleInfo]
    next: str | None = Field(description="`after` of the next page; null at the end")


class LeasedSamples(BaseModel):
    """Answer of `POST /samples/lease`."""

    lease: str = Field(description="to be sent along with a label or a skip")
    until: str = Field(description="when it ends, ISO 8601")
    samples: list[SampleInfo]


class RenewedLease(BaseModel):
    """Answer of `POST /samples/lease/renew`."""

    lease: str
    until: str = Field(description="when it ends, ISO 8601")
    held: list[str] = Field(
        description="ids of what it holds: neither decided nor given to somebody else meanwhile"
    )


class Released(BaseModel):
    """Answer of `POST /samples/lease/release`."""

    released: int


class SampleCounts(BaseModel):
    """How far the labelling of a model's samples is."""

    model: str
    unlabelled: int = Field(description="leased ones among them")
    leased: int = Field(description="somebody's to label now")
    labelled: int
    skipped: int


class SampleProgress(BaseModel):
    """Answer of `GET /samples/counts`."""

    counts: list[SampleCounts] = Field(description="by name of the model")


class Removed(BaseModel):
    """Answer of `DELETE /samples`."""

    deleted: int


class LabelStudioSetup(BaseModel):
    """Body of `POST /label-studio/setup`; Label Studio sends more, which is not needed."""

    labelling: str | None = Field(
        None, alias="schema", description="the project's labelling configuration, XML"
    )


class LabelStudioTasks(BaseModel):
    """Body of `POST /label-studio/predict`; Label Studio sends more, which is not needed."""

    tasks: list[Any] = Field(description="each with the model's input as `data.input`")
    label_config: str | None = Field(None, description="the project's labelling configuration, XML")


_PLACES = "; D... are the places of a dense output (pixels, tokens), none otherwise"
PerRow = Annotated[list[Any], Field(description="[B, D...]" + _PLACES)]
PerOutput = Annotated[list[Any], Field(description="[B, C, D...]" + _PLACES)]
PerPass = Annotated[list[Any], Field(description="[T, B, C, D...]" + _PLACES)]


class EvalAnswer(BaseModel):
    """Answer of `POST /eval`: one deterministic pass."""

    model: str
    version: int
    task: str
    mean: PerOutput
    predictive_entropy: PerRow | None = None
    label: list[Any] | None = None


class Quantiles(BaseModel):
    """Quantiles over passes."""

    levels: list[float]
    values: list[PerOutput]


class OutOfDistribution(BaseModel):
    """Which rows are unlike what the version was calibrated on."""

    score: str
    values: list[float] = Field(description="[B], higher = less like it")
    threshold: float
    flagged: list[bool] = Field(description="[B]: the value is above the threshold")
    false_positive_rate: float = Field(description="share of rows like it that are flagged")


class Degraded(BaseModel):
    """How an answer came about with fewer passes (CANDOR_DEGRADE_AFTER_S)."""

    requested_passes: int
    reason: str


class PredictAnswer(BaseModel):
    """Answer of `POST /predict`; a field that the task does not have is null."""

    model: str
    version: int
    task: str
    passes: int | list[int] = Field(description="T; with tolerance [B], those of each row")
    seed: int
    degraded: Degraded | None = Field(
        None, description="only where there were fewer passes than the model has, and why"
    )
    mean: PerOutput
    std: PerOutput
    standard_error: PerOutput
    predictive_entropy: PerRow | None = None
    expected_entropy: PerRow | None = None
    mutual_information: PerRow | None = None
    variation_ratio: PerRow | None = None
    aleatoric_std: PerOutput | None = None
    epistemic_std: PerOutput | None = None
    label: list[Any] | None = None
    variance: PerRow
    calibration: str | None = Field(
        None,
        description='of a calibrated version: "applied", or why its calibration does not hold for '
        "this request",
    )
    calibrated_mean: PerOutput | None = None
    ood: OutOfDistribution | None = None
    prediction_set: list[list[Any]] | None = Field(
        None, description="[B] lists of labels that hold the true one at the calibrated coverage"
    )
    interval: list[Any] | None = Field(
        None, description="[B, C, 2]: low and high ends that hold the truth at that coverage"
    )
    predictive_entropy_jackknife: PerRow | None = None
    mutual_information_jackknife: PerRow | None = None
    quantiles: Quantiles | None = None
    samples: PerPass | None = None


class SiteInfo(BaseModel):
    """A place in the network that drops something."""

    path: str
    kind: str
    rate: float | None
    inert: bool
    mask: list[int] = Field(description="shape of what it draws; -1 where its rows are")


class StrategyInfo(BaseModel):
    """How passes are run, and why no better way."""

    name: str
    reason: str


class VersionInfo(BaseModel):
    """One version of a model."""

    version: int
    state: Literal["loading", "ready", "failed", "unloaded"]
    reason: str | None = None
    sites: list[SiteInfo] = []
    warnings: list[str] = []
    strategy: StrategyInfo | None = None
    calibration: dict[str, Any] | None = Field(
        None,
        description="what the version learned from held-out data; `references` are the inner ends "
        "of bins of each measure, and how many of those rows fell into each",
    )
    output_shape: list[int] | None = Field(
        None, description="of one row's mean, [C, D...]; −1 is a place that follows the input's"
    )
    device: str | None = None
    precision: str | None = None
    parameters: int | None = Field(None, description="numbers that were trained, of all members")
    members: int | None = Field(
        None, description="sets of weights that are sampled as one posterior; 1 of a single network"
    )
    origin: dict[str, Any] | None = Field(
        None, description="of the members, as whoever made them wrote into members.json"
    )


class InputInfo(BaseModel):
    """What one row of `inputs` has to be; −1 is a dimension that may vary."""

    name: str = "input"
    shape: list[int]
    dtype: str


class ModelInfo(BaseModel):
    """A model; one whose folder is broken has only a name and a reason."""

    name: str
    task: str | None = None
    description: str | None = None
    input: InputInfo | None = None
    features: list[str] | None = Field(
        None, description="names of the numbers of a row, where model.toml has them"
    )
    labels: list[str] | None = None
    passes: int | None = None
    seed: int | None = None
    masks: Masks | None = None
    default_version: int | None = None
    version_policy: str | list[int] | None = Field(
        None, description='which versions serve: "all", "latest n" or those listed'
    )
    version_labels: dict[str, int] = Field({}, description="names that a request may give")
    canary_share: float | None = Field(
        None, description="of the requests that name no version, those that get the canary"
    )
    warnings: list[str] = Field([], description="what its maker should look at")
    reason: str | None = None
    versions: list[VersionInfo] = []


class ModelList(BaseModel):
    """Answer of `GET /models`."""

    models: list[ModelInfo]


class Example(BaseModel):
    """Answer of `GET /models/{name}/example`."""

    model: str
    inputs: list[Any] = Field(description="[B, D...]: rows as POST /predict takes them")


class Vocabulary(BaseModel):
    """Answer of `GET /models/{name}/vocabulary`."""

    model: str
    tokens: list[str] = Field(description="what the numbers 0, 1, … of an input stand for")


class ReportsQuery(Closed):
    """Query of `GET /reports`."""

    model: Name | None = Field(None, description="of which model; default: all")
    version: VersionName | None = Field(
        None, description="of which version of it, by its number or label; default: all"
    )
    limit: int = Field(100, ge=1, le=1000, description="reports of a page")
    after: Name | None = Field(None, description="`next` of the page before")


class ReportRows(BaseModel):
    """Rows that a report was made with."""

    name: str = Field(description="of their file")
    sha256: str
    rows: int


class ReportCoverage(BaseModel):
    """How many targets the central predictive interval of a level holds."""

    level: float
    observed: float


class ReportMethod(BaseModel):
    """What one method of predicting is worth on the report's rows; null is what it has not."""

    name: str = Field(
        description="deterministic, mc_dropout, each of them with _temperature, spread_alone, or "
        "version_2 of a further version"
    )
    title: str
    accuracy: float | None = None
    negative_log_likelihood: float | None = Field(None, description="nats a row: lower is better")
    calibration_error: float | None = Field(
        None, description="expected calibration error over bins of as many rows each"
    )
    brier: float | None = None
    root_mean_squared_error: list[float] | None = Field(None, description="[C], of each output")
    coverage: list[ReportCoverage] | None = None


class ReportScore(BaseModel):
    """How well a score tells rows of another kind."""

    name: str
    title: str
    auroc: float
    interval: list[float] = Field(description="of 95 %: its low and its high end")


class ReportDeferral(BaseModel):
    """What deferring the rows of most doubt avoids."""

    score: str = Field(description="that says which rows these are")
    title: str
    share: float = Field(description="of the rows that is deferred")
    avoided: float = Field(description="share of the errors, or of the squared error, in them")


class ReportInfo(BaseModel):
    """A report of `candor report`; a broken one has little more than its name and the reason."""

    model: str
    version: int
    name: str = Field(
        description="in its address, after /models/{model}/versions/{version}/reports/"
    )
    created: str = Field(
        description="ISO 8601; where the report does not say, when its file was written"
    )
    state: Literal["readable", "broken"]
    reason: str | None = Field(None, description="why it is broken")
    page: bool = Field(description="whether there is a page of it, GET .../page")
    weights: Literal["same", "other", "unknown"] = Field(
        description="whether it was made of the weights and the network that serve now; unknown "
        "where the version does not serve, or the report does not say"
    )
    task: str | None = None
    passes: int | None = None
    seed: int | None = None
    masks: str | None = None
    precision: str | None = None
    data: ReportRows | None = None
    out_of_distribution_data: ReportRows | None = None
    methods: list[ReportMethod] = []
    headline: str | None = Field(None, description="the score that its sentences speak of")
    detection: list[ReportScore] = Field([], description="empty without rows of another kind")
    deferral: ReportDeferral | None = None
    verdict: list[str] = Field([], description="what it found, in sentences")
    candor: str | None = Field(None, description="version of the program that made it")


class ReportList(BaseModel):
    """Answer of `GET /reports`: by model, the highest version and the newest report first."""

    reports: list[ReportInfo]
    next: str | None = Field(description="`after` of the next page; null at the end")
    warnings: list[str] = Field([], description="folders that could not be read, files left out")


class Problem(BaseModel):
    """An error, RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    field: str | None = None
    expected: Any = None
    received: Any = None
    request_id: str | None = None

"""The server's settings: read once from flags, `CANDOR_*` variables and a file, then frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from service.configuration import PREFIX, Given, Secrecy, gather, refusal
from service.tokens import Token, hash_of

__all__ = ["PREFIX", "Settings", "between", "load_settings", "load_with_origins"]


def _listed(value: object) -> object:
    """Of one line, what stands between the commas."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def _tokens(value: object) -> object:
    listed = _listed(value)
    return tuple(Token.of(one) for one in listed) if isinstance(listed, tuple | list) else value


def _hashed(value: object) -> object:
    """The settings hold no token: what is not there cannot be shown by mistake."""
    if not isinstance(value, str):
        return value
    if not value:
        raise ValueError("a token that is not empty; `candor token` makes one")
    return hash_of(value)


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("origins as browsers name them: https://HOST or https://HOST:PORT")
    return value


_ORIGIN = re.compile(r"https?://[^/*\s@]+")
_Hash = Annotated[str | None, BeforeValidator(_hashed), Secrecy.WHOLE]
_Tokens = Annotated[tuple[Token, ...], BeforeValidator(_tokens), Secrecy.GIVEN]
_Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_listed)]


def between(scale: str) -> tuple[int, int]:
    """The least and the most of a number, or of LEAST-MOST."""
    least, _, most = scale.partition("-")
    return int(least), int(most or least)


class Settings(BaseModel):
    """One field a setting; the field `models` is the variable `CANDOR_MODELS`."""

    # Seconds may be infinite, for which JSON has no number.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    models: Path = Field(Path("models"), description="folder of models, one folder each")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that speak HTTP; with more than one, each reads and writes bodies "
        "beside the one process that computes",
    )
    ray: str | None = Field(
        None,
        description="Ray cluster to serve on: HOST:PORT, auto or local; default: none, this "
        "process computes; needs pip install 'candor[ray]'",
    )
    ray_replicas: str = Field(
        "1",
        pattern=r"^[1-9]\d{0,3}(-[1-9]\d{0,3})?$",
        description="processes there that compute: a number, or LEAST-MOST, as many as the "
        "requests that run and wait need",
    )
    ray_doors: str = Field(
        "1",
        pattern=r"^[1-9]\d{0,3}(-[1-9]\d{0,3})?$",
        description="processes there that speak HTTP: a number, or LEAST-MOST",
    )
    ray_waiting: float = Field(
        16.0,
        gt=0,
        description="requests that run and wait for each such process, above which one more starts",
    )
    ray_cpus: float = Field(
        1.0, ge=0, description="processors of a process there that computes, and its threads"
    )
    ray_gpus: float = Field(
        0.0,
        ge=0,
        description="GPUs of a process there that computes; below 1 several share one",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto (the GPU where there is one), cpu, cuda or cuda:N",
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; not needed where one is served"
    )
    watch: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds between looks at the folder of models for what is new, changed or "
        "gone; 0: only on request",
    )
    max_body_bytes: int = Field(64 * 2**20, gt=0, description="largest request body; over it: 413")
    body_bytes: int = Field(
        2**30,
        gt=0,
        description="bytes of request bodies in the memory of a process that speaks HTTP; more are "
        "refused with 429",
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="seconds that the head of a request may take; over it: 408"
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="seconds that a body, or taking an answer, may take, and one more for every "
        "16 KiB; over it: 408, or the connection is closed",
    )
    idle_timeout_s: float = Field(
        75.0, gt=0, description="seconds until a connection without a request is closed"
    )
    max_header_bytes: int = Field(
        64 * 2**10, gt=0, description="largest head of a request; over it: 431"
    )
    max_connections: int = Field(
        4096,
        gt=0,
        description="connections at a time of a process that speaks HTTP; one more takes the place "
        "of one that is idle, or is answered 503",
    )
    max_work: int = Field(
        1_000_000, gt=0, description="largest rows x passes of one request; over it: 413"
    )
    max_answer_bytes: int = Field(
        2**30,
        gt=0,
        description="bytes of the arrays of one answer, and of the passes that are kept for it; "
        "over it: 413",
    )
    batch_work: int = Field(
        100_000, gt=0, description="rows x passes that are taken together into one batch"
    )
    batch_seconds: float = Field(
        0.02,
        gt=0,
        description="seconds that a batch should take at most, as far as requests can be parted; "
        "up to four times as long while much more waits, all of one model",
    )
    queue_requests: int = Field(
        1024, gt=0, description="requests that may wait; more are refused with 429"
    )
    queue_bytes: int = Field(
        512 * 2**20, gt=0, description="input bytes that may wait; more are refused with 429"
    )
    queue_work: int = Field(
        10_000_000, gt=0, description="rows x passes that may wait; more are refused with 429"
    )
    queue_timeout_s: float = Field(
        30.0,
        gt=0,
        description="seconds a request may wait for the engine, then it is answered 503",
    )
    degrade_after_s: float | None = Field(
        None,
        gt=0,
        description="expected wait from which on requests that leave the passes to the model get "
        "fewer, which their answers say; default: never",
    )
    degrade_min_passes: int = Field(
        10, ge=2, description="passes that such a request gets at least"
    )
    engine_hang_s: float = Field(
        120.0,
        gt=0,
        description="seconds in one chunk of passes from which on the engine counts as hung: "
        "/livez and all requests get 503",
    )
    memory_bytes: int = Field(
        128 * 2**20, gt=0, description="memory budget of a batch's activations, in bytes"
    )
    noise_bytes: int = Field(
        128 * 2**20,
        ge=0,
        description="memory for what a model keeps of the noise of its own seed, in bytes",
    )
    precision: str = Field(
        "auto",
        pattern=r"^(auto|float32|bfloat16)$",
        description="of sampling: auto (bfloat16 where it is faster and its error drowns in the "
        "Monte Carlo error), float32 or bfloat16",
    )
    tuning: Path | None = Field(
        None,
        description="folder that keeps what is measured when a model loads (precision, chunks), so "
        "that later loads on such a machine answer alike to the last bit; default: each load "
        "measures",
    )
    drift_rows: int = Field(
        1000, gt=0, description="last rows of a calibrated model in which drift is looked for"
    )
    request_timeout_s: float = Field(
        30.0, gt=0, description="seconds until a request is answered 504"
    )
    drain_timeout_s: float = Field(
        30.0, gt=0, description="seconds that accepted requests get to finish after SIGTERM"
    )
    drain_linger_s: float = Field(
        1.0,
        ge=0,
        description="least seconds to answer 503 after SIGTERM, so load balancers can notice",
    )
    database_url: Annotated[str, Secrecy.PASSWORD] = Field(
        "sqlite:///candor.sqlite",
        description="of the sample store: sqlite:///FILE, or postgresql://USER@HOST/DATABASE with "
        "pip install 'candor[postgresql]'",
    )
    keep_samples: str = Field(
        "off",
        description="which rows of answered predictions are kept for labelling, inputs and all: "
        "off, uncertain (flagged as out of distribution or, where the version is not calibrated, "
        "above the quantile), random:SHARE or all; or one for each model, others off: "
        "digits=uncertain,co2=random:0.01",
    )
    keep_score: str = Field(
        "variance",
        pattern=r"^(variance|predictive_entropy|mutual_information|variation_ratio)$",
        description="by which rows are uncertain: variance, predictive_entropy, "
        "mutual_information or variation_ratio; variance where the task has it not",
    )
    keep_quantile: float = Field(
        0.95, gt=0, lt=1, description="of a model's last 1,000 rows; above it one is uncertain"
    )
    keep_limit: int = Field(
        100_000,
        gt=0,
        description="samples of a model that wait for a label; beyond, the least uncertain leave, "
        "or the oldest where samples are kept at random",
    )
    keep_days: float | None = Field(
        None,
        gt=0,
        description="days after which a sample without a label leaves, skipped or not; default: "
        "never",
    )
    keep_queue_bytes: int = Field(
        64 * 2**20,
        gt=0,
        description="memory for rows that wait to be written to the sample store; more are dropped",
    )
    token: _Hash = Field(
        None,
        description="what whoever predicts or labels sends as Authorization: Bearer TOKEN; the "
        "token itself or its hash, see candor token; health needs none",
    )
    admin_token: _Hash = Field(
        None, description="as CANDOR_TOKEN, for everything: alone it changes models and data"
    )
    tokens: _Tokens = Field(
        (),
        description="further tokens, NAME:SCOPES:HASH with commas between, as candor token prints "
        "them; scopes, with + between: predict, label, metrics, admin",
    )
    allow_anonymous: bool = Field(
        False,
        description="listen beyond loopback without any token, for where something else checks who "
        "asks",
    )
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the server's certificate and chain: HTTPS instead of HTTP",
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's key, where it is not in the same file"
    )
    tls_key_password_file: Path | None = Field(
        None, description="file that holds the password of an encrypted key"
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of who signs clients' certificates: without one none gets in"
    )
    cors_origins: _Origins = Field(
        (),
        description="pages of other sites whose scripts may ask, https://HOST with commas between",
    )
    log_level: str = Field(
        "info",
        pattern=r"^(debug|info|warning|error)$",
        description="debug, info, warning or error",
    )
    log_format: str = Field(
        "auto",
        pattern=r"^(auto|human|json)$",
        description="of the log: human, json (an object a line), or auto (human on a terminal)",
    )
    tracing: bool = Field(
        False,
        description="send traces by OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT says; "
        "needs pip install 'candor[otel]'",
    )

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        needless = [
            name
            for name in ("tls_key", "tls_key_password_file", "tls_client_ca")
            if getattr(self, name) is not None
        ]
        if self.tls_certificate is None and needless:
            raise ValueError(
                f"CANDOR_{needless[0].upper()} is given without CANDOR_TLS_CERTIFICATE; give both "
                "or neither"
            )
        return self

    @model_validator(mode="after")
    def _scaling_fits(self) -> Self:
        for name in ("ray_replicas", "ray_doors"):
            least, most = between(getattr(self, name))
            if least > most:
                raise ValueError(f"CANDOR_{name.upper()} is {least}-{most}; expected LEAST-MOST")
        if self.ray_gpus > 1 and not self.ray_gpus.is_integer():
            raise ValueError(
                f"CANDOR_RAY_GPUS is {self.ray_gpus:g}; expected a share of one, or whole ones"
            )
        return self

    @model_validator(mode="after")
    def _names_of_tokens_differ(self) -> Self:
        names = [token.name for token in self.tokens]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"CANDOR_TOKENS names two tokens {twice}; give each a name of its own")
        return self


def load_settings(
    overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings; `overrides` (flags) win over the environment, None means not given.

    Raises:
        InvalidInput: a variable that is no setting, or a value that does not fit.
    """
    return load_with_origins(overrides, environment)[0]


def load_with_origins(
    overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, Given]]:
    """The settings, and where those that were given came from; else as `load_settings`."""
    variables = os.environ if environment is None else environment
    fields = Settings.model_fields
    given = gather(fields, overrides or {}, variables)
    try:
        values = {name: each.value for name, each in given.items()}
        return Settings.model_validate(values), given
    except ValidationError as error:
        raise refusal(fields, given, error) from None

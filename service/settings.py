"""The server's settings, read once from `CANDOR_*` variables and flags, frozen afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import InvalidInput

PREFIX = "CANDOR_"

# Kubernetes puts variables of this form into every container beside a service named "candor".
_KUBERNETES_LINK = re.compile(r"CANDOR_(SERVICE_(HOST|PORT)\w*|PORT(_\d+_\w+)?)")


class Settings(BaseModel):
    """One field a setting; the field `models` is the variable `CANDOR_MODELS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Path = Field(Path("models"), description="folder of models, one folder each")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto (the GPU where there is one), cpu, cuda or cuda:N",
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; not needed where one is served"
    )
    max_body_bytes: int = Field(64 * 2**20, gt=0, description="largest request body; over it: 413")
    max_work: int = Field(
        1_000_000, gt=0, description="largest rows x passes of one request; over it: 413"
    )
    batch_work: int = Field(
        100_000, gt=0, description="rows x passes that are taken together into one batch"
    )
    batch_seconds: float = Field(
        0.02,
        gt=0,
        description="seconds that a batch should take at most, as far as requests can be parted",
    )
    queue_requests: int = Field(
        1024, gt=0, description="requests that may wait; more are refused with 429"
    )
    queue_bytes: int = Field(
        512 * 2**20, gt=0, description="input bytes that may wait; more are refused with 429"
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
    database_url: str = Field(
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


def load_settings(
    overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings; `overrides` (flags) win over the environment, None means not given.

    Raises:
        InvalidInput: a variable that is no setting, or a value that does not fit.
    """
    environment = os.environ if environment is None else environment
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    values: dict[str, object] = {}
    for variable, value in environment.items():
        if not variable.upper().startswith(PREFIX):
            continue
        field = variable[len(PREFIX) :].lower()
        if field in Settings.model_fields and not _is_kubernetes_port(variable, value):
            values[field] = value
        elif not _KUBERNETES_LINK.fullmatch(variable):
            known = ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
            raise InvalidInput(
                f"{variable} is not a setting of Candor; the settings are {known}",
                field=variable,
            )
    try:
        return Settings.model_validate({**values, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = PREFIX + str(first["loc"][0]).upper()
        raise InvalidInput(
            f"{field}: {first['msg']}; received {first['input']!r}",
            field=field,
            received=first["input"],
        ) from error


def _is_kubernetes_port(variable: str, value: str) -> bool:
    return variable == "CANDOR_PORT" and value.startswith("tcp://")

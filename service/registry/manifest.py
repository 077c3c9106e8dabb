"""`model.toml`: what a model is, checked in full before anything of it is run."""

from __future__ import annotations

import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from service.errors import InvalidInput, ModelBroken
from service.registry.policy import Serving
from service.types import DEFAULT_MAX_PASSES, Masks, SamplePlan, Task

FILE = "model.toml"
SEED_RANGE = 2**63

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

# JSON numbers above 2^53 lose digits in many clients, and a drawn seed is echoed to be sent again.
_RANDOM_SEED_BITS = 53

_Dimension = Annotated[int, Field(ge=-1)]


class InputSpec(BaseModel):
    """Shape and type of one input row; −1 stands for a dimension that may vary.

    `features` are the names of a row's numbers, for people who look at one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    shape: tuple[_Dimension, ...] = Field(strict=False)
    dtype: str = "float32"
    features: tuple[str, ...] | None = Field(None, strict=False)

    @field_validator("shape")
    @classmethod
    def _no_empty_dimension(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if 0 in shape:
            raise ValueError("a dimension cannot be 0; write -1 for one that may vary")
        return shape

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, dtype: str) -> str:
        if dtype not in DTYPES:
            raise ValueError(f"known are {', '.join(DTYPES)}")
        return dtype

    @field_validator("features")
    @classmethod
    def _one_a_number(
        cls, features: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        shape = info.data.get("shape")
        if features is not None and shape is not None and shape != (len(features),):
            raise ValueError(f"{len(features)} names are of rows [{len(features)}], not {[*shape]}")
        return features


class Manifest(BaseModel):
    """The content of a `model.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: Task = Field(strict=False)
    input: InputSpec
    network: str = Field("network.py:build", pattern=r"^[^:\s]+\.py:[A-Za-z_]\w*$")
    labels: tuple[str, ...] | None = Field(None, strict=False)
    passes: int = Field(50, ge=2)
    seed: int = Field(0, ge=-SEED_RANGE, lt=SEED_RANGE)
    masks: Masks = Field(Masks.SHARED, strict=False)
    stochastic: tuple[str, ...] = Field((), strict=False)
    deterministic: bool = False
    description: str = ""
    serving: Serving = Serving()

    def plan_for(
        self,
        passes: int | None = None,
        seed: int | Literal["random"] | None = None,
        masks: str | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
    ) -> SamplePlan:
        """The plan of a request: what it says, and the model's own for what it does not.

        Raises:
            InvalidInput: `passes` and `tolerance`, or `max_passes` without `tolerance`.
        """
        if passes is not None and tolerance is not None:
            raise InvalidInput(
                "`passes` and `tolerance` exclude each other: a number of passes, or as many as "
                "the tolerance needs and `max_passes` allows",
                field="tolerance",
                expected="one of passes, tolerance",
                received=tolerance,
            )
        if max_passes is not None and tolerance is None:
            raise InvalidInput(
                "`max_passes` bounds the passes that a `tolerance` needs, and none is given; for a "
                "fixed number send `passes`",
                field="max_passes",
                expected="tolerance beside it",
                received=max_passes,
            )
        if tolerance is not None:
            passes = DEFAULT_MAX_PASSES if max_passes is None else max_passes
        drawn = secrets.randbits(_RANDOM_SEED_BITS) if seed == "random" else seed
        return SamplePlan(
            passes=self.passes if passes is None else passes,
            seed=self.seed if drawn is None else drawn,
            masks=self.masks if masks is None else Masks(masks),
            tolerance=tolerance,
        )


def read_manifest(folder: Path) -> Manifest:
    """Read `folder/model.toml`.

    Raises:
        ModelBroken: it is missing, is not TOML, or holds something it should not.
    """
    path = folder / FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelBroken(f"{path} is missing; a model folder needs one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelBroken(f"{path} cannot be read: {error}") from error
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_in_words(problem) for problem in error.errors())
        raise ModelBroken(f"{path}: {problems}") from error


def _in_words(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        tables: dict[str, type[BaseModel]] = {"input": InputSpec, "serving": Serving}
        model = tables.get(str(problem["loc"][0]), Manifest) if "." in key else Manifest
        known = ", ".join(model.model_fields)
        return f"`{key}` is not a key that is known here; known are {known}"
    if problem["type"] == "missing":
        return f"`{key}` is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"`{key}`: {message}; received {problem['input']!r}"

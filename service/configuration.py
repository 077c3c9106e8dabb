"""Where the value of a setting comes from: a flag, the environment, a file, or its default.

The first of them that gives a value wins. Whatever is wrong is named as the user wrote it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from service.errors import InvalidInput

PREFIX = "CANDOR_"
CONFIG = "config"
"""The flag --config and the variable CANDOR_CONFIG name the file."""

_FROM_FILE = "_file"
"""CANDOR_TOKEN_FILE holds the path of a file that holds the value, as Docker and Kubernetes hand
secrets over."""

# Kubernetes puts variables of this form into every container beside a service named "candor".
_KUBERNETES_LINK = re.compile(r"CANDOR_(SERVICE_(HOST|PORT)\w*|PORT(_\d+_\w+)?)")
_PASSWORDS = (re.compile(r"(://[^:/@]*:).*(@)"), re.compile(r"(password=)[^&]*()", re.IGNORECASE))

Kind = Literal["default", "file", "environment", "flag"]


class Secrecy(Enum):
    """Of a setting; stands in its annotation. Such a value may also come from a file of its own."""

    WHOLE = "the value"
    PASSWORD = "the password in the value, an address"
    GIVEN = "what was given, though not the value that was made of it"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given: by what kind of source, and what that calls it."""

    value: object
    kind: Kind
    name: str


def flag(name: str) -> str:
    """Of the setting of that name: max_work → --max-work."""
    return "--" + name.replace("_", "-")


def secrecy(field: FieldInfo) -> Secrecy | None:
    """What of a setting nobody is shown."""
    return next((each for each in field.metadata if isinstance(each, Secrecy)), None)


def file_names(fields: Mapping[str, FieldInfo]) -> list[str]:
    """`token_file` for `token`: of settings that may come from a file of their own."""
    return [name + _FROM_FILE for name, field in fields.items() if secrecy(field)]


def gather(
    fields: Mapping[str, FieldInfo], flags: Mapping[str, object], environment: Mapping[str, str]
) -> dict[str, Given]:
    """The values that are given, by the names of the fields.

    Args:
        fields: of the settings.
        flags: by name; None means not given.
        environment: variables, of which those that start with CANDOR_ count.

    Raises:
        InvalidInput: a variable or a key that is no setting, or a file that cannot be read.
    """
    given_flags = {
        name: Given(value, "flag", flag(name)) for name, value in flags.items() if value is not None
    }
    known = {*fields, *file_names(fields)}
    for name, given in given_flags.items():
        if name not in known | {CONFIG}:
            raise _unknown(given.name, [flag(each) for each in sorted(known)])
    variables = {
        variable[len(PREFIX) :].lower(): Given(value, "environment", variable)
        for variable, value in environment.items()
        if variable.upper().startswith(PREFIX) and not _is_of_kubernetes(fields, variable, value)
    }
    for name, given in variables.items():
        if name not in known | {CONFIG}:
            raise _unknown(given.name, [PREFIX + each.upper() for each in sorted(known)])
    file = given_flags.pop(CONFIG, None) or variables.pop(CONFIG, None)
    variables.pop(CONFIG, None)
    keys = {} if file is None else _read(file, known)
    layers = [_open(fields, layer) for layer in (keys, variables, given_flags)]
    return {**layers[0], **layers[1], **layers[2]}


def refusal(
    fields: Mapping[str, FieldInfo], given: Mapping[str, Given], error: ValidationError
) -> InvalidInput:
    """What pydantic found first, in the words of whoever gave the value."""
    first = error.errors()[0]
    said = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if not first["loc"]:
        return InvalidInput(said)
    name = str(first["loc"][0])
    field = fields[name]
    value = first["input"]
    what = PREFIX + name.upper() if name not in given else given[name].name
    if first["type"] == "value_error":
        return InvalidInput(f"{what}: {said}", field=what)
    expected = str(field.description) if first["type"] == "string_pattern_mismatch" else said
    received = None if secrecy(field) else value
    shown = f"is {value!r}" if secrecy(field) is None else "does not fit"
    return InvalidInput(
        f"{what} {shown}; expected {expected}", field=what, expected=expected, received=received
    )


def as_toml(settings: BaseModel, given: Mapping[str, Given]) -> str:
    """Every setting with where it came from, in the form of the file; secrets left out."""
    fields = type(settings).model_fields
    lines: list[str] = []
    tables: list[str] = []
    for name, field in fields.items():
        value = getattr(settings, name)
        source = given.get(name)
        origin = "default" if source is None else f"{source.kind}: {source.name}"
        shown = _shown(value, field)
        if shown != value:
            lines.append(f"# {name} = {_toml(shown)}  # {origin}; secret, give it again")
        elif value is None:
            lines.append(f"# {name} is not set  # {origin}")
        elif isinstance(value, tuple) and any(is_dataclass(each) for each in value):
            for each in value:
                tables.append(f"\n[[{name}]]  # {origin}")
                tables += [f"{key} = {_toml(one)}" for key, one in asdict(each).items()]
        else:
            lines.append(f"{name} = {_toml(value)}  # {origin}")
    return "\n".join([*lines, *tables]) + "\n"


def _is_of_kubernetes(fields: Mapping[str, FieldInfo], variable: str, value: str) -> bool:
    if variable[len(PREFIX) :].lower() in fields:
        return variable == "CANDOR_PORT" and value.startswith("tcp://")
    return _KUBERNETES_LINK.fullmatch(variable) is not None


def _unknown(what: str, known: list[str]) -> InvalidInput:
    nearest = get_close_matches(what.rpartition(" ")[2], known, n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(known)}"
    return InvalidInput(
        f"{what} is not a setting of Candor; {remedy}",
        field=what,
        expected=known,
    )


def _read(file: Given, known: Iterable[str]) -> dict[str, Given]:
    path = Path(str(file.value))
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{file.name} names {path}, which cannot be read: {error}; expected TOML with the "
            "names of settings as its keys, as `candor serve --print-config` prints it",
            field=file.name,
            received=str(path),
        ) from None
    for key in content:
        if key not in known:
            raise _unknown(f"{path}: {key}", sorted(known))
    return {key: Given(value, "file", f"{path}: {key}") for key, value in content.items()}


def _open(fields: Mapping[str, FieldInfo], layer: Mapping[str, Given]) -> dict[str, Given]:
    """Values in place of the files that hold them."""
    opened = {name: given for name, given in layer.items() if name in fields}
    for name, given in layer.items():
        if name in fields:
            continue
        plain = name.removesuffix(_FROM_FILE)
        if plain in opened:
            raise InvalidInput(
                f"{given.name} and {opened[plain].name} are both given; give one of them",
                field=given.name,
            )
        try:
            content = Path(str(given.value)).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{given.name} names a file that cannot be read: {error}", field=given.name
            ) from None
        opened[plain] = Given(content, given.kind, given.name)
    return opened


def _shown(value: object, field: FieldInfo) -> object:
    """Without what nobody is shown."""
    if value is None or secrecy(field) in (None, Secrecy.GIVEN):
        return value
    if secrecy(field) is Secrecy.WHOLE:
        return "..."
    text = str(value)
    for pattern in _PASSWORDS:
        text = pattern.sub(r"\1...\2", text)
    return text


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(_toml(one) for one in value)}]"
    # JSON's strings are TOML's but for one character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")

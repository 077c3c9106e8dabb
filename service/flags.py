"""The flags of `candor serve`: one for each setting, made from its field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from service.settings import Settings

_METAVARS = {int: "INTEGER", float: "NUMBER"}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each field of `Settings`.

    Values come as they were typed, for `Settings` to read them: one place says what fits.

    Args:
        command: takes a dictionary of the flags as `flags`, None where one was not given, besides
            options of its own.
    """

    def taking_flags(**given: Any) -> None:
        command(flags={name: given.pop(name) for name in Settings.model_fields}, **given)

    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [parameter for parameter in own if parameter.name != "flags"]
    parameters += [_parameter(name, field) for name, field in Settings.model_fields.items()]
    taking_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    taking_flags.__name__ = command.__name__
    taking_flags.__doc__ = command.__doc__
    return taking_flags


def flag(name: str) -> str:
    """Of the setting of that name: max_work → --max-work."""
    return "--" + name.replace("_", "-")


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    assert field.description is not None, f"the setting {name} has no description"
    help_text = escape(f"{field.description} [default: {default_of(field)}]")
    if _plain_type(field) is bool:
        option = typer.Option(f"{flag(name)}/--no-{name.replace('_', '-')}", help=help_text)
        annotation: Any = Annotated[bool | None, option]
    else:
        metavar = _METAVARS.get(_plain_type(field), "TEXT")
        option = typer.Option(flag(name), metavar=metavar, help=help_text)
        annotation = Annotated[str | None, option]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=annotation)


def default_of(field: FieldInfo) -> str:
    """The default as a person reads it."""
    return "none" if field.default is None else str(field.default)


def _plain_type(field: FieldInfo) -> Any:
    """Without the None of a setting that need not be given."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation
    [kind, *_] = [each for each in get_args(field.annotation) if each is not NoneType]
    return kind

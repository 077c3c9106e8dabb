"""The flags of `candor serve`: one for each setting, made from its field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from service.configuration import CONFIG, PREFIX, Secrecy, flag, secrecy
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
        flags = {name: given.pop(name) for name in made}
        command(flags=flags, **given)

    made = _parameters()
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*(each for each in own if each.name != "flags"), *made.values()]
    taking_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    taking_flags.__annotations__ = {each.name: each.annotation for each in parameters}
    taking_flags.__name__ = command.__name__
    taking_flags.__doc__ = command.__doc__
    return taking_flags


def default_of(field: FieldInfo) -> str:
    """The default as it would be written; empty where there is none."""
    if field.default is None or field.default == ():
        return ""
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def _parameters() -> dict[str, inspect.Parameter]:
    file = typer.Option(flag(CONFIG), metavar="FILE", help="settings in TOML, by their names")
    found = {CONFIG: _optional(CONFIG, str, file)}
    for name, field in Settings.model_fields.items():
        # Who looks at the machine's processes reads their flags.
        if secrecy(field) is not Secrecy.WHOLE:
            found[name] = _parameter(name, field)
        if secrecy(field):
            other = f"{name}_file"
            help_text = f"file that holds {PREFIX}{name.upper()}: {field.description}"
            option = typer.Option(flag(other), metavar="FILE", help=escape(help_text))
            found[other] = _optional(other, str, option)
    return found


def _optional(name: str, kind: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    assert field.description is not None, f"the setting {name} has no description"
    help_text = escape(f"{field.description} [default: {default_of(field) or 'none'}]")
    kind = _plain_type(field)
    if kind is bool:
        names = f"{flag(name)}/{flag('no_' + name)}"
        return _optional(name, bool, typer.Option(names, help=help_text))
    option = typer.Option(flag(name), metavar=_METAVARS.get(kind, "TEXT"), help=help_text)
    return _optional(name, str, option)


def _plain_type(field: FieldInfo) -> Any:
    """Without the None of a setting that need not be given."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation
    [kind, *_] = [each for each in get_args(field.annotation) if each is not NoneType]
    return kind

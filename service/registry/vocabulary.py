"""`vocabulary.txt`: the words behind the numbers of a model that reads text, for people to read."""

from __future__ import annotations

from pathlib import Path

from service.errors import ModelBroken
from service.registry import repository

FILE = "vocabulary.txt"
_MISSING = (
    "has no vocabulary; put the tokens that its numbers stand for, a line each, into {path} to "
    "give it one"
)


def tokens_of(root: Path, name: str) -> list[str]:
    """The tokens of a model, each at the place of its number: a line each, from 0 on.

    Args:
        root: the model repository.
        name: of a model in it.

    Raises:
        ModelNotFound: the model has no vocabulary.
        ModelBroken: the file cannot be read as UTF-8, is empty, or lies outside the repository.
    """
    path = root / name / FILE
    text = repository.read_own_file(root, name, FILE, _MISSING)
    # Not `splitlines`: a token may hold a character that some take for the end of a line.
    tokens = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if tokens == [""]:
        raise ModelBroken(f"{path} is empty; it should hold a token a line")
    return tokens

"""The words behind a model's numbers, which its folder may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import ModelBroken, ModelNotFound
from service.registry.vocabulary import tokens_of


def folder(root: Path, content: bytes | None = None) -> Path:
    (root / "models" / "m").mkdir(parents=True)
    if content is not None:
        (root / "models" / "m" / "vocabulary.txt").write_bytes(content)
    return root / "models"


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (b"[PAD]\ngood\nbad\n", ["[PAD]", "good", "bad"]),
        (b"a\n \n\nb", ["a", " ", "", "b"]),
        ("é\n\u2028\n".encode(), ["é", "\u2028"]),
        (b"a\r\nb\rc\r\nd", ["a", "b\rc", "d"]),
    ],
)
def test_a_line_is_a_token(tmp_path: Path, content: bytes, tokens: list[str]) -> None:
    assert tokens_of(folder(tmp_path, content), "m") == tokens


def test_a_model_may_have_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="a line each, into"):
        tokens_of(folder(tmp_path), "m")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_what_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelBroken, match=r"vocabulary\.txt"):
        tokens_of(folder(tmp_path, content), "m")


def test_a_link_out_of_the_repository_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    root = folder(tmp_path)
    (root / "m" / "vocabulary.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ModelBroken, match="leads out of"):
        tokens_of(root, "m")

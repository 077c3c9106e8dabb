"""Nothing outside the repository is read, whatever a name says or a link points to."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.errors import ModelBroken, ModelNotFound
from service.registry import repository


@pytest.mark.parametrize("name", ["digits", "model..1", "a-b_c.d", "_x", "7", "x" * 128])
def test_names_that_may_be(name: str) -> None:
    assert repository.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../b", "/etc", "a/", " a", "a ", "a\n", "-a", ".a", "ä", "x" * 129],
)
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(ModelNotFound, match="cannot be the name"):
        repository.check_name(name)


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "in").mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "inner").symlink_to(root / "in")
    assert repository.inside(root, root / "in") == (root / "in").resolve()
    assert repository.inside(root, root / "inner") == (root / "in").resolve()
    for path in (root / "link", root / ".." / "x", root / "link" / "root" / ".."):
        with pytest.raises(ModelBroken, match="leads out of"):
            repository.inside(root, path)
    (root / "in" / "deep").symlink_to("/etc/passwd")
    with pytest.raises(ModelBroken, match="leads out of"):
        repository.refuse_links_out(root, root / "in")


def test_a_report_that_leads_out_breaks_no_model(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "digits"
    (folder / "1" / "reports").mkdir(parents=True)
    (folder / "1" / "reports" / "one.json").symlink_to("/etc/passwd")
    repository.refuse_links_out(tmp_path / "root", folder)
    (folder / "reports").symlink_to("/etc")
    with pytest.raises(ModelBroken, match="leads out of"):
        repository.refuse_links_out(tmp_path / "root", folder)


def test_folders_are_models_and_the_rest_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b", "a", ".git", "__pycache__", "with space"):
        (tmp_path / name).mkdir()
    (tmp_path / "README.md").touch()
    with caplog.at_level(logging.WARNING):
        assert repository.model_names(tmp_path) == ["a", "b"]
    assert "with space" in caplog.text


def test_versions_are_positive_numbers_in_order(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "0", "01", "x", "-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "2").touch()
    assert repository.versions(tmp_path) == [1, 9, 10]
    with pytest.raises(ModelBroken, match=r"has no version: put the weights in .*/1/weights"):
        repository.versions(tmp_path / "x")

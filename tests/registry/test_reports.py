"""Reports are found beside their versions; what is none is told of and hides no other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.errors import ReportBroken, ReportNotFound
from service.registry import reports
from service.types import ModelRef
from tests.reports import numbers, write_report

REF = ModelRef("digits", 1)


def names(root: Path) -> list[str]:
    return [each.name for each in reports.reports_of(root, REF)[0]]


def test_a_version_without_a_folder_has_none(tmp_path: Path) -> None:
    assert reports.reports_of(tmp_path, REF) == ([], [])
    (tmp_path / "digits" / "1").mkdir(parents=True)
    (tmp_path / "digits" / "1" / "reports").touch()
    assert reports.reports_of(tmp_path, REF) == ([], [])


def test_the_newest_is_first_by_what_they_say_or_else_by_their_files(tmp_path: Path) -> None:
    write_report(tmp_path, REF, "silent", page="<p>")
    write_report(tmp_path, REF, "noon", created="2026-11-27T12:00:00Z")
    write_report(tmp_path, REF, "before", created="2026-11-27T12:30:00+02:00")
    write_report(tmp_path, REF, "plain", created="2026-11-27T11:00:00")
    found, warnings = reports.reports_of(tmp_path, REF)
    assert [each.name for each in found] == ["noon", "plain", "before", "silent"]
    assert [each.has_page for each in found] == [False, False, False, True]
    assert found[3].created == datetime.fromtimestamp(1_700_003_600, UTC)
    assert not warnings


def _leads_out(path: Path) -> None:
    outside = path.parents[4] / "outside.json"
    outside.write_text(json.dumps(numbers(REF)))
    path.symlink_to(outside)


@pytest.mark.parametrize(
    ("lay", "reason"),
    [
        (lambda path: path.write_text("{"), "bad.json is not JSON"),
        (lambda path: path.write_text("[]"), "is no report: the file"),
        (lambda path: path.write_bytes(b"\xff"), "is not JSON"),
        (lambda path: path.write_text("[" * 5000), "is not JSON"),
        (lambda path: path.write_text('{"model": "digits"}'), "is no report: version"),
        (
            lambda path: path.write_text(json.dumps(numbers(REF, passes="many"))),
            "is no report: passes: .*`candor report digits`",
        ),
        (
            lambda path: path.write_text(json.dumps(numbers(REF, verdict=["x" * 10_000]))),
            "is no report: verdict.0",
        ),
        (
            lambda path: path.write_text(json.dumps(numbers(ModelRef("wine", 2)))),
            "is of wine, version 2, and not of digits, version 1",
        ),
        (lambda path: path.write_text("x" * 30_000), "is larger than 20,000 bytes"),
        (lambda path: path.mkdir(), "is no plain file"),
        (lambda path: os.mkfifo(path), "is no plain file"),
        (lambda path: path.symlink_to("nowhere.json"), "cannot be read: No such file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: .*symbolic links"),
        (_leads_out, "leads out of the repository"),
        (lambda path: path.with_suffix(".html").touch(), "no digits/1/reports/bad.json"),
    ],
)
def test_a_broken_one_says_why_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lay: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.setattr(reports, "MOST_BYTES", 20_000)
    root = tmp_path / "models"
    good = write_report(root, REF, "good")
    lay(good.with_name("bad.json"))
    found = {each.name: each for each in reports.reports_of(root, REF)[0]}
    assert found["good"].numbers is not None
    assert found["bad"].numbers is None
    with pytest.raises(ReportBroken, match=reason):
        raise ReportBroken(found["bad"].reason)
    # A message tells nobody where the server keeps its files.
    assert str(tmp_path) not in found["bad"].reason


def test_what_was_mended_is_whole_and_what_changed_is_read_again(tmp_path: Path) -> None:
    path = write_report(tmp_path, REF, "one", passes=20)
    [first] = reports.reports_of(tmp_path, REF)[0]
    for passes in (300, 4000):
        path.write_text("{")
        assert reports.reports_of(tmp_path, REF)[0][0].numbers is None
        path.write_text(json.dumps(numbers(REF, passes=passes)))
        [now] = reports.reports_of(tmp_path, REF)[0]
        assert now.numbers is not None
        assert now.numbers.passes == passes
    assert first.numbers is not None
    assert first.numbers.passes == 20


def test_files_that_are_no_reports_are_passed_over(tmp_path: Path) -> None:
    folder = write_report(tmp_path, REF, "one").parent
    for name in (".one.json.x1", ".hidden.json", "notes.txt", "weights.safetensors"):
        (folder / name).touch()
    assert reports.reports_of(tmp_path, REF)[1] == []
    for name in ("two words.json", "ä.json", "<b>.json", "-x.html"):
        (folder / name).touch()
    assert names(tmp_path) == ["one"]
    [warning] = reports.reports_of(tmp_path, REF)[1]
    assert warning.startswith("4 of digits/1/reports left out")
    assert "'two words', …" in warning


def test_only_so_many_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MOST_REPORTS", 2)
    for name in ("a", "b", "c"):
        write_report(tmp_path, REF, name)
    assert names(tmp_path) == ["c", "b"]
    assert reports.reports_of(tmp_path, REF)[1] == [
        "digits/1/reports holds 3 reports; the 2 newest are listed"
    ]


def test_a_folder_that_leads_out_is_said_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_report(tmp_path, REF, "elsewhere")
    (root / "digits" / "1").mkdir(parents=True)
    (root / "digits" / "1" / "reports").symlink_to(tmp_path / "digits" / "1" / "reports")
    found, [warning] = reports.reports_of(root, REF)
    assert not found
    assert "leads out of the repository" in warning
    with pytest.raises(ReportBroken, match="leads out"):
        reports.read_numbers(root, REF, "elsewhere")
    link = root / "digits" / "1" / "reports"
    link.unlink()
    link.symlink_to(link)
    found, [warning] = reports.reports_of(root, REF)
    assert not found
    assert "lead in a circle" in warning


def test_one_is_read_as_it_is(tmp_path: Path) -> None:
    path = write_report(tmp_path, REF, "v1.2_a-b", page="<p>ä</p>")
    assert reports.read_numbers(tmp_path, REF, "v1.2_a-b") == path.read_bytes()
    assert reports.read_page(tmp_path, REF, "v1.2_a-b") == "<p>ä</p>".encode()
    path.write_text("{}")
    with pytest.raises(ReportBroken, match="is no report"):
        reports.read_numbers(tmp_path, REF, "v1.2_a-b")
    path.with_suffix(".html").unlink()
    with pytest.raises(ReportNotFound, match=r"has no page of a report 'v1\.2_a-b'"):
        reports.read_page(tmp_path, REF, "v1.2_a-b")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../one", "../../../secret", "/etc/passwd", "one\n", "a/b", "x" * 129]
)
def test_a_name_reaches_nothing_beside_the_reports(tmp_path: Path, name: str) -> None:
    write_report(tmp_path, REF, "one", page="<p>")
    (tmp_path / "secret.json").write_text(json.dumps(numbers(REF)))
    (tmp_path / "secret.html").touch()
    for read in (reports.read_numbers, reports.read_page):
        with pytest.raises(ReportNotFound):
            read(tmp_path, REF, name)

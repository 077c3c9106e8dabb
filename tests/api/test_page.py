"""What the page's files are, and how they are served."""

from __future__ import annotations

import re
from posixpath import dirname, join, normpath

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import page

MOST_BYTES = 500_000


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page.router)
    return TestClient(app)


def test_it_is_small() -> None:
    assert sum(len(file.content) for file in page.FILES.values()) < MOST_BYTES


def test_what_a_file_loads_is_there_and_nothing_comes_from_elsewhere() -> None:
    for name, file in page.FILES.items():
        text = file.content.decode()
        imported = re.findall(r'(?:^import .* from |import\()"([^"]+)"', text, re.MULTILINE)
        named = re.findall(r'(?:src|href)="(page/[^"]+)"', text)
        if name.endswith(".js"):
            for other in imported:
                assert normpath(join(dirname(name), other)) in page.FILES, (name, other)
        for other in named:
            assert other.removeprefix("page/") in page.FILES, (name, other)
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), name


def test_no_file_makes_markup_or_code_of_text() -> None:
    for name, file in page.FILES.items():
        if not name.startswith("vendor/"):
            found = re.search(
                rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|"
                rb"<style|\bstyle=\"",
                file.content,
            )
            assert found is None, (name, found)


def test_files_are_kept_by_browsers_until_they_change(client: TestClient) -> None:
    first = client.get("/page/shell.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    again = client.get("/page/shell.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/").text.startswith("<!doctype html>")


@pytest.mark.parametrize(
    "path",
    ["/page/nothing.js", "/page/try/nothing.js", "/page/..%2fpage.py", "/page/%2e%2e/page.py"],
)
def test_other_paths_name_nothing(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404

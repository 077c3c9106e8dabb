"""The image: small rights, nothing that it does not need, and it serves. `make container-test`."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.deploy.image import NAME, Image, Running, mounted, serving
from tests.deploy.manifests import ROOT

pytestmark = pytest.mark.skipif(not NAME, reason="make container-test builds the image")

README = (ROOT / "README.md").read_text()
COMPILERS = re.compile(
    r"(.*-)?(cc|c\+\+|gcc|g\+\+|clang|tcc|cpp|as|ld|make|cmake|rustc|nvcc)(-?[\d.]+)?"
)
CACHES = ("root/.cache", "root/.local", "src")
PACKAGES = (".whl", ".deb")
OPEN = {"CANDOR_ALLOW_ANONYMOUS": "true"}
NO_CAPABILITY = "0000000000000000"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with mounted(NAME) as found:
        yield found


@pytest.fixture(scope="module")
def server(image: Image) -> Iterator[Running]:
    with serving(image, **OPEN, CANDOR_KEEP_SAMPLES="co2=all") as found:
        yield found


def files(image: Image) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in the image, but for what the mount shows of other file systems."""
    for folder, below, names in os.walk(image.root):
        for name in (*below, *names):
            path = Path(folder, name)
            yield path, path.lstat()


def test_it_holds_no_compiler(image: Image) -> None:
    places = image.environment["PATH"].split(":")
    names = {path.name for place in places for path in (image.root / place[1:]).glob("*")}
    assert "python3" in names
    assert {name for name in names if COMPILERS.fullmatch(name)} == set()


def test_it_holds_no_cache_and_nothing_that_installs_into_what_serves(image: Image) -> None:
    assert [name for name in CACHES if (image.root / name).exists()] == []
    # Python itself has the wheel of pip below /usr.
    places = [image.root / name for name in ("opt", "models", "root", "var", "tmp", "srv")]
    left = [path for path, _ in files(image) if path.name.endswith(PACKAGES)]
    assert [path for path in left if any(path.is_relative_to(one) for one in places)] == []
    for folder in ("tmp", "var/lib/apt/lists", "mnt"):
        assert list((image.root / folder).glob("*")) == [], folder
    [packages] = (image.root / "opt/candor/lib").glob("python3*/site-packages")
    assert (packages / "service").is_dir()
    assert list(packages.glob("pip*")) == []


def test_who_runs_it_owns_nothing_but_the_folder_of_samples(image: Image) -> None:
    user, group = image.user
    assert user >= 1000
    assert group >= 1000
    users = (image.root / "etc/passwd").read_text()
    [line] = re.findall(rf"^\w+:x:{user}:.*$", users, re.MULTILINE)
    assert line.endswith("/nologin")
    owned = [path for path, its in files(image) if its.st_uid == user or its.st_gid == group]
    assert owned == [image.root / image.volume.removeprefix("/")]


def test_nobody_but_root_may_change_what_it_runs(image: Image) -> None:
    changeable = [
        path
        for path, status in files(image)
        if path.is_relative_to(image.root / "opt") or path.is_relative_to(image.root / "models")
        if status.st_uid != 0 or (not path.is_symlink() and status.st_mode & stat.S_IWOTH)
    ]
    assert changeable == []


def test_no_secret_is_built_in(image: Image) -> None:
    assert [name for name in image.environment if "TOKEN" in name or "PASSWORD" in name] == []


def test_its_size_is_the_one_that_is_stated(image: Image) -> None:
    sizes_bytes = {
        (status.st_dev, status.st_ino): status.st_size
        for _, status in files(image)
        if stat.S_ISREG(status.st_mode)
    }
    size_bytes = sum(sizes_bytes.values())
    print(f"the image holds {size_bytes / 1e9:.2f} GB")
    [stated] = re.findall(r"image takes ([\d.]+) GB", README)
    # Bases differ, and so do the releases of what is installed.
    assert size_bytes / 1e9 == pytest.approx(float(stated), rel=0.15)


def test_without_a_token_it_ends_and_says_so(image: Image) -> None:
    done = image.run(*image.config["Cmd"])
    assert done.returncode != 0
    assert "CANDOR_TOKEN" in done.stdout + done.stderr


def test_it_answers_what_the_readme_shows(server: Running) -> None:
    [line] = re.findall(r"-d '(\{\"model\": \"co2\".*\"return\".*\})'", README)
    [shown] = re.findall(r'^\{"model":"co2".*"std".*\}$', README, re.MULTILINE)
    answer = httpx.post(f"{server.url}/predict", json=json.loads(line), timeout=60.0).json()
    expected = json.loads(shown)
    assert answer.keys() == expected.keys()
    # Other processors round other bits.
    np.testing.assert_allclose(answer["mean"], expected["mean"], rtol=1e-4)
    np.testing.assert_allclose(answer["std"], expected["std"], rtol=1e-3)


def test_it_has_no_right_that_it_could_lose(server: Running, image: Image) -> None:
    lines = Path(f"/proc/{server.number}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert status["Uid"].split() == [str(image.user[0])] * 4
    assert status["Gid"].split() == [str(image.user[1])] * 4
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert status[f"Cap{kind}"].strip() == NO_CAPABILITY
    assert status["NoNewPrivs"].strip() == "1"
    for place in ("new", "models/new", "opt/candor/new"):
        with pytest.raises(OSError, match="Read-only") as caught:
            Path(f"/proc/{server.number}/root/{place}").write_text("")
        assert caught.value.errno == errno.EROFS


def test_samples_are_kept_in_the_volume(server: Running, image: Image) -> None:
    body = {"model": "co2", "inputs": [[1999.25]]}
    assert httpx.post(f"{server.url}/predict", json=body, timeout=60.0).status_code == 200
    # It is kept behind the answer.
    until_s = time.monotonic() + 60.0
    while not httpx.get(f"{server.url}/samples", timeout=60.0).json()["samples"]:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert Path(f"/proc/{server.number}/root{image.volume}/samples.sqlite").stat().st_size > 0


def test_the_driver_of_postgresql_is_there(image: Image) -> None:
    done = image.run("python3", "-c", "import psycopg; print(psycopg.pq.__impl__)")
    assert done.stdout.strip() == "binary", done.stderr


def test_the_health_check_says_whether_it_serves(server: Running, image: Image) -> None:
    [kind, *words] = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    port = server.url.rpartition(":")[2]
    done = image.run(*words, CANDOR_PORT=port)
    assert done.returncode == 0, done.stderr
    assert image.run(*words, CANDOR_PORT="1").returncode != 0


def test_the_signal_that_stops_it_ends_it_cleanly(image: Image) -> None:
    with serving(image, **OPEN) as running:
        os.kill(running.number, signal.Signals[image.config["StopSignal"]])
        assert running.outer.wait(60) == 0

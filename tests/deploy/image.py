"""The image that `.ci/container` built, its files, and a process in it as compose would start it.

There is no container engine: what docker-compose.yml asks for is done with namespaces of its own, a
root file system that is mounted read-only, and `setpriv`, so it takes root.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

NAME = os.environ.get("IMAGE", "")
_START_S = 120.0
_INSIDE = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t tmpfs -o "uid=$OWNER,gid=$GROUP,mode=755" tmpfs "$ROOT$VOLUME"
exec /usr/sbin/chroot "$ROOT" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image: its files below `root`, and its configuration as Docker has it."""

    root: Path
    config: dict[str, Any]

    @property
    def user(self) -> tuple[int, int]:
        """Numbers of user and group."""
        user, group = self.config["User"].split(":")
        return int(user), int(group)

    @property
    def environment(self) -> dict[str, str]:
        """What it sets."""
        return dict(each.split("=", 1) for each in self.config["Env"])

    @property
    def volume(self) -> str:
        """The folder of kept samples."""
        return str(Path(self.environment["CANDOR_DATABASE_URL"].removeprefix("sqlite:///")).parent)

    def command(self, words: Sequence[str], **variables: str) -> list[str]:
        """What starts words of the image as compose would."""
        user, group = (str(number) for number in self.user)
        rights = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        given = [f"{name}={value}" for name, value in {**self.environment, **variables}.items()]
        return [
            *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
            *("env", f"ROOT={self.root}", f"VOLUME={self.volume}"),
            *(f"OWNER={user}", f"GROUP={group}", "bash", "-c", _INSIDE, "inside"),
            *given,
            *("setpriv", "--reuid", user, "--regid", group, *rights, "--", *words),
        ]

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run words of the image to their end."""
        command = self.command(words, **variables)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True)
class Running:
    """A server in the image: its address, what started it, and its own number on this machine."""

    url: str
    outer: subprocess.Popen[str]
    number: int


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """The image of that name; what is written below its root goes with the mount."""
    container = _buildah("from", name)
    try:
        config = json.loads(_buildah("inspect", "--type", "image", name))["Docker"]["config"]
        yield Image(Path(_buildah("mount", container)), config)
    finally:
        _buildah("rm", container)


@contextmanager
def serving(image: Image, **variables: str) -> Iterator[Running]:
    """The image's own command on a free port, once it is ready; ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = image.command(image.config["Cmd"], CANDOR_PORT=str(port), **variables)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        [number] = _children(process.pid)
        yield Running(url, process, number)
    finally:
        _end(process)


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=10.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"it did not start: {_end(process)}")


def _end(process: subprocess.Popen[str]) -> str:
    """Kill it, and what it started; what that printed."""
    # `unshare` would have its child die with it, which is forgotten when that changes its user.
    for number in _children(process.pid):
        os.kill(number, signal.SIGKILL)
    process.kill()
    return process.communicate()[0]


def _children(number: int) -> list[int]:
    try:
        found = Path(f"/proc/{number}/task/{number}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in found.split()]


def _buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

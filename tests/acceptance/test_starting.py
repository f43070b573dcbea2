"""The ways to start a server, and what a wrong start says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.servers import SECRET_KEY
from support.waiting import eventually

BINARIES = Path(sys.executable).parent
WAYS = {
    "uvicorn": [
        str(BINARIES / "uvicorn"),
        "botfarm_server.app:create_app",
        "--factory",
        "--host={host}",
        "--port={port}",
    ],
    "module": [
        sys.executable,
        *("-m", "botfarm_server", "serve", "--host={host}", "--port={port}"),
    ],
    "command": [str(BINARIES / "botfarm"), "serve", "--host={host}", "--port={port}"],
}
every_way = pytest.mark.parametrize("way", WAYS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def started(
    way: str, folder: Path, host: str = "127.0.0.1", **settings: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    environment: Mapping[str, str] = {
        **os.environ,
        "BOTFARM_SECRET_KEYS": SECRET_KEY,
        "BOTFARM_LOG_FORMAT": "json",
        **settings,
    }
    process = subprocess.Popen(
        [part.format(host=host, port=port) for part in WAYS[way]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


@every_way
def test_each_way_serves_and_ends_on_sigterm(way: str, tmp_path: Path) -> None:
    with started(way, tmp_path) as (process, port):
        assert eventually(lambda: answers(port))
        modes = {it.stat().st_mode & 0o777 for it in tmp_path.glob("botfarm.sqlite3*")}
        assert modes == {0o600}
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=15)
    assert "Traceback" not in printed
    assert "passwords will not be handed out" not in printed


@every_way
def test_a_wrong_setting_stops_the_start_with_one_line(
    way: str, tmp_path: Path
) -> None:
    with started(way, tmp_path, BOTFARM_ENVS=",") as (process, _):
        printed, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    [line] = printed.splitlines()
    assert line == (
        "botfarm: BOTFARM_ENVS is wrong: at least one name is needed. "
        "Example: BOTFARM_ENVS=prod,preprod,stage"
    )


def test_without_a_key_the_start_says_so_in_one_line(tmp_path: Path) -> None:
    with started("command", tmp_path, BOTFARM_SECRET_KEYS="") as (process, port):
        assert eventually(lambda: answers(port))
        process.terminate()
        printed, _ = process.communicate(timeout=15)
    assert printed.count("passwords will not be handed out") == 1


@pytest.mark.parametrize("way", ["module", "command"])
def test_beyond_loopback_a_token_is_needed(way: str, tmp_path: Path) -> None:
    with started(way, tmp_path, host="0.0.0.0") as (process, _):
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "BOTFARM_BOOTSTRAP_TOKEN" in printed
    assert "Traceback" not in printed


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [str(BINARIES / "botfarm"), "serve", f"--port={port}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr

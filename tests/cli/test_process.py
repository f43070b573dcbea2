"""The command line as a process: versions, prompts, interrupts, and what it imports."""

from __future__ import annotations

import base64
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

import psutil
import pytest
from support.waiting import eventually

from botfarm_server.cli import db

from .conftest import Botfarm, Farm

PATIENCE = 60.0
"""Seconds for what takes less than one, on a machine that has nothing else to do."""
COMMAND = [sys.executable, "-m", "botfarm_server"]


def test_version_and_help_need_no_server(environment: None, process: Botfarm) -> None:
    ran = process("--version")
    assert (ran.exit_code, ran.out) == (0, f"botfarm {version('pytest-botfarm')}\n")
    assert "users" in process("--help").out


def test_a_command_that_does_not_exist_is_wrong_use(
    environment: None, botfarm: Botfarm
) -> None:
    assert botfarm("fly").exit_code == 2
    assert botfarm("users", "fly").exit_code == 2


def test_generate_key_prints_a_new_key_each_time(
    environment: None, botfarm: Botfarm
) -> None:
    keys = {botfarm("secrets", "generate-key").out.strip() for _ in range(2)}
    assert len(keys) == 2
    assert all(len(base64.b64decode(key, validate=True)) == 32 for key in keys)


def test_a_command_imports_nothing_of_the_server(environment: None) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "botfarm_server", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert "botfarm_server.cli.users" in loaded
    assert not {"sqlalchemy", "fastapi", "uvicorn", "alembic", "bcrypt"} & loaded


def test_the_password_is_asked_for_twice_and_not_echoed(farm: Farm) -> None:
    screen, exit_code = type_into("s3cret", "s3cret")
    assert exit_code == 0, screen
    assert "Added alice to stage/regular." in screen
    assert "s3cret" not in screen
    assert [user["login"] for user in farm.users()] == ["alice"]


def test_two_different_passwords_add_nothing(farm: Farm) -> None:
    screen, exit_code = type_into("s3cret", "s3cert")
    assert exit_code == 2
    assert "The two passwords differ; nothing was added." in screen
    assert farm.users() == []


@pytest.mark.parametrize(
    ("typed", "ends_with"), [("\x03", 130), ("\x04", 2)], ids=["ctrl-c", "ctrl-d"]
)
def test_leaving_the_prompt_ends_the_command(
    typed: str, ends_with: int, farm: Farm
) -> None:
    screen, exit_code = type_into(typed, end="")
    assert exit_code == ends_with
    assert "Traceback" not in screen
    assert farm.users() == []


def type_into(*lines: str, end: str = "\n") -> tuple[str, int]:
    """Add alice at a terminal, and answer each prompt; the screen and the exit code."""
    master, slave = pty.openpty()
    add = ["users", "add", "alice", "--env", "stage", "--domain", "regular"]
    # `script` and its like are not everywhere: the process makes the terminal its
    # session's own, which is where getpass asks and where Ctrl-C is felt.
    become_foreground = (
        "import os, sys; os.setsid(); os.close(os.open(os.ttyname(0), os.O_RDWR)); "
        "os.execv(sys.executable, sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", become_foreground, *COMMAND, *add],
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    screen = ""
    waiting = list(lines)
    while True:
        assert select.select([master], [], [], PATIENCE)[0], screen
        try:
            read = os.read(master, 4096).decode()
        except OSError:  # the other end is closed
            break
        screen += read
        if waiting and screen.endswith(": "):
            os.write(master, (waiting.pop(0) + end).encode())
    os.close(master)
    return screen, process.wait(PATIENCE)


def test_ctrl_c_while_the_server_is_asked_is_quiet(environment: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND, "users", "list", "--url", url],
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(65_536)
            # Between its last look for signals and its wait it would notice none.
            client = psutil.Process(process.pid)
            assert eventually(lambda: client.status() == psutil.STATUS_SLEEPING)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=PATIENCE)
    assert (process.returncode, told) == (130, "")


def test_a_reader_that_leaves_early_is_no_error(farm: Farm) -> None:
    for number in range(3):
        farm.add_user(f"user{number}", labels={"long": "x" * 250})
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [*COMMAND, "users", "list", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert ran.returncode == 1
    assert ran.stderr == ""


def test_an_error_that_nobody_foresaw_is_a_sentence(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(db, "note", fail)
    ran = botfarm("db", "upgrade")
    assert ran.exit_code == 1
    assert "an error that should not happen (RuntimeError)" in ran.err
    assert "s3cret" not in ran.err
    monkeypatch.setenv("BOTFARM_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="s3cret"):
        botfarm("db", "upgrade")


def test_serve_beyond_loopback_without_a_token_is_wrong_use(
    environment: None, botfarm: Botfarm
) -> None:
    ran = botfarm("serve", "--host", "0.0.0.0")
    assert ran.exit_code == 2
    assert "there is no token" in ran.err
    assert botfarm("serve", "--port", "99999").exit_code == 2


def test_serve_with_a_wrong_setting_is_wrong_use(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTFARM_BCRYPT_COST", "99")
    ran = botfarm("serve")
    assert ran.exit_code == 2
    assert "BOTFARM_BCRYPT_COST is wrong" in ran.err

"""The server as a test run's own process: `python -m botfarm_server.embedded`.

It leases the accounts of one pool file, over a SQLite file whose place depends on the
pool file alone, so that two runs at once share the locks. It prints one line of JSON,
`{"url": …, "presence": …}` once it serves or `{"error": …}`; `presence` is the
directory where callers of this machine show that they live (see presence.py). It ends
when its standard input does: however its parent dies, it does not stay behind. The
token that callers need is the first line of that input: neither arguments nor
environment are as private.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import secrets
import signal
import stat
import sys
import threading
import time
from pathlib import Path

from botfarm_server.api.schemas.users import MAXIMUM_IMPORT_ROWS
from botfarm_server.api.state import AppState
from botfarm_server.api.users import draft_of
from botfarm_server.app import create_app
from botfarm_server.domain.access import POOL_FILE
from botfarm_server.domain.errors import BotfarmError, InvalidRequestError
from botfarm_server.logging import configure_logging
from botfarm_server.poolfile import PoolFile, PoolFileError, read_pool_file
from botfarm_server.presence import PresenceWatch
from botfarm_server.serving import Server
from botfarm_server.settings import (
    SECRET_KEY_BYTES,
    Settings,
    SettingsError,
    fixed_settings,
)
from botfarm_server.store.lease_files import DIRECTORY

BCRYPT_COST = 4
"""The least: the sealing key lies beside the database, so a slow hash guards nothing,
and a first start with forty accounts should not take ten seconds."""

READY_TIMEOUT = 30.0
"""Seconds within which the database has to be usable; migrating it takes one or two."""

END_TIMEOUT = 10.0
"""Seconds after the end of standard input until the process ends by force."""

LOOP_INTERVAL = 0.5

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m botfarm_server.embedded")
    parser.add_argument("--pool", type=Path, required=True)
    pool_path = parser.parse_args(arguments).pool
    os.umask(0o077)
    configure_logging("WARNING", "json")
    try:
        token = _read_token()
        pool = read_pool_file(pool_path, os.environ)
        directory = state_directory(pool_path)
        settings = _settings(pool, directory, token)
        presence = directory / DIRECTORY
        presence.mkdir(mode=0o700, exist_ok=True)
    except (PoolFileError, SettingsError) as error:
        _say({"error": str(error)})
        return 1
    except OSError as error:
        _say({"error": f"{error.filename}: {error.strerror}"})
        return 1
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    return _serve(settings, pool, presence)


def _serve(settings: Settings, pool: PoolFile, presence: Path) -> int:
    app = create_app(settings)
    state: AppState = app.state.botfarm
    watch = PresenceWatch(presence, state.leases)
    starting: list[asyncio.Task[bool]] = []
    watching: list[asyncio.Task[None]] = []

    async def start(url: str) -> bool:
        error = await _fill(state, pool)
        if error:
            _say({"error": error})
            server.should_exit = True
            return False
        await watch.look()  # before anybody asks for what a dead run has left
        _say({"url": url, "presence": str(presence)})
        for name, loop in (("presence", watch.run), ("stints", watch.run_stints)):
            watching.append(asyncio.create_task(loop(), name=f"botfarm {name}"))
        return True

    def on_listening(url: str) -> None:
        starting.append(asyncio.create_task(start(url)))

    server = Server(
        app,
        host="127.0.0.1",
        port=0,
        request_timeout=settings.request_timeout,
        on_listening=on_listening,
    )
    server.run()
    return 0 if starting and starting[0].done() and starting[0].result() else 1


async def _fill(state: AppState, pool: PoolFile) -> str | None:
    """Make the farm hold what the file lists; what is wrong, if something is."""
    give_up = time.monotonic() + READY_TIMEOUT
    while (refusal := await state.readiness.check()) is not None:
        if refusal.code == "schema_mismatch" and state.readiness.refusal is refusal:
            return f"{refusal.detail} Or delete the embedded farm's files."
        if time.monotonic() > give_up:
            return refusal.detail
        await asyncio.sleep(0.01)
    drafts = [draft_of(user) for user in pool.users]
    for start in range(0, len(drafts), MAXIMUM_IMPORT_ROWS):
        batch = drafts[start : start + MAXIMUM_IMPORT_ROWS]
        try:
            await state.imports.import_all(batch, by=POOL_FILE)
        except InvalidRequestError as error:
            return "\n".join(
                pool.located(error.errors, range(start, start + len(batch)))
            )
        except BotfarmError as error:
            return f"{pool.path}: {error.detail}"
    await state.users.retain_only([draft.key for draft in drafts])
    return None


def _settings(pool: PoolFile, directory: Path, token: str) -> Settings:
    values: dict[str, object] = {
        "database_url": f"sqlite:///{directory / 'farm.sqlite3'}",
        "secret_keys": _secret_key(directory / "secret.key"),
        "bootstrap_token": token,
        "bcrypt_cost": BCRYPT_COST,
        "loop_interval": LOOP_INTERVAL,
    }
    if pool.envs is not None:
        values["envs"] = tuple(pool.envs)
    if pool.domains is not None:
        values["domains"] = tuple(pool.domains)
    return fixed_settings(values)


def state_directory(pool_path: Path) -> Path:
    """A directory of this pool file's own, readable by its owner alone.

    Raises:
        SettingsError: another user could put files there.

    """
    given = os.environ.get("BOTFARM_STATE_DIR")
    state_home = os.environ.get("XDG_STATE_HOME")
    base = (
        Path(given)
        if given
        else (Path(state_home) if state_home else Path.home() / ".local/state")
        / "botfarm"
    )
    name = hashlib.sha256(str(pool_path.resolve()).encode()).hexdigest()[:16]
    directory = base / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(base, directory)
    directory.chmod(0o700)
    return directory


def _check_private(base: Path, directory: Path) -> None:
    advice = "or name another place with BOTFARM_STATE_DIR."
    own = directory.lstat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.getuid():
        msg = f"{directory} is not a directory of your own. Remove it, {advice}"
        raise SettingsError(msg)
    above = base.stat()
    if above.st_uid not in {0, os.getuid()}:
        raise SettingsError(f"{base} belongs to another user. Change that, {advice}")
    # In a directory like /tmp nobody removes or renames what is not their own.
    is_sticky = bool(above.st_mode & stat.S_ISVTX)
    for path, mode in (
        (base, 0 if is_sticky else above.st_mode),
        (directory, own.st_mode),
    ):
        if mode & WRITABLE_BY_OTHERS:
            msg = (
                f"Other users may write into {path}. Say `chmod go-w {path}`, {advice}"
            )
            raise SettingsError(msg)


def _secret_key(path: Path) -> str:
    """The key in the file; one is made when there is none."""
    if not path.exists():
        drawn = base64.b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode()
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(drawn)
        try:
            # Another run may have been first: its key is kept.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def _read_token() -> str:
    line = b""
    # No more than the line: what comes after it, the end, is waited for elsewhere.
    while not line.endswith(b"\n") and (read := os.read(0, 1)):
        line += read
    return line.decode().strip()


def _say(line: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(END_TIMEOUT)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

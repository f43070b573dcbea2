"""A server of the run's own, in a process of its own.

The process serves the accounts of a pool file until its standard input ends. Only
this process has the other end of that pipe, so the server ends with it whatever way
it ends, SIGKILL included. A session of its own keeps Ctrl-C from it, which would
otherwise end the server before the leases are given back.

A server that ends before the run does is started again, by whoever next asks where it
is. Its SQLite file has outlived it, so the leases go on.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import IO

from .client.clock import clock
from .client.errors import BotfarmError, public
from .client.forking import on_fork

START_TIME = 60.0
"""Seconds. A pool of many accounts has as many passwords to hash."""
STOP_TIME = 5.0
RESTARTS, RESTARTS_WITHIN = 3, 60.0
"""How often it is started again within so many seconds, and no more: what ends it may
be what the run does to it."""
LAUNCH = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); import runpy; "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
"""`python -m MODULE`, but without the current directory on the path, where modules of
the suite would stand in for modules of the server. PYTHONSAFEPATH does the same, though
not on Python 3.10."""
LOG_TAIL = 2_000
"""Bytes of the server's log that an error shows."""
EXTRA = (
    "aiosqlite",
    "alembic",
    "bcrypt",
    "cryptography",
    "fastapi",
    "pydantic_settings",
    "sqlalchemy",
    "structlog",
    "uvicorn",
)
"""What `pytest-botfarm[server]` brings and the embedded server needs."""


@public
class EmbeddedServerError(BotfarmError):
    """The server of the run's own cannot be started, or has ended."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and what it lets one in by."""

    url: str
    token: str | None = field(repr=False)
    presence: str | None = None
    """The directory where a process shows that it lives, if server and process are on
    one machine."""


class EmbeddedServer:
    """Starts at the first call of `endpoint`; threads may call it at once."""

    def __init__(self, pool: Path) -> None:
        self.pool = pool
        self.was_started = False
        self.restarts = 0
        self._changing = Lock()
        # Not from `secrets`: a suite may have a module of that name.
        self._token = os.urandom(32).hex()
        self._environment: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._endpoint: Endpoint | None = None
        self._ends: deque[float] = deque(maxlen=RESTARTS)
        self._problem: str | None = None
        on_fork(self)

    def endpoint(self) -> Endpoint:
        """Where the server is. Raises EmbeddedServerError, with all it has to say."""
        with self._changing:
            if self._process is not None and self._process.poll() is not None:
                self._note_end(self._process)
            if self._problem is not None:
                raise EmbeddedServerError(self._problem)
            if self._endpoint is None:
                try:
                    self._endpoint = self._start()
                except EmbeddedServerError as error:
                    self._problem = str(error)  # no test need try again
                    raise
                self.restarts += self.was_started
                self.was_started = True
            return self._endpoint

    def stop(self) -> None:
        """End the server, by force if it does not end by itself."""
        with self._changing:
            process, self._process = self._process, None
            self._endpoint = None
            self._problem = "the run is over"
            if process is not None:
                _end(process)
            if self._log is not None:
                self._log.close()

    def after_fork_in_child(self) -> None:
        # A child that outlives the run must not keep the pipe open, nor end, wait for
        # or collect a process that is not its own.
        self._changing = Lock()
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.returncode = 0
            self._process = None

    def _note_end(self, process: subprocess.Popen[bytes]) -> None:
        """Have it started again, unless that was done too often."""
        _end(process)
        self._process = self._endpoint = None
        now = clock()
        if len(self._ends) == RESTARTS and now - self._ends[0] < RESTARTS_WITHIN:
            self._problem = (
                f"the server of this run has ended {RESTARTS + 1} times within "
                f"{RESTARTS_WITHIN:.0f} s, and is not started again"
                + self._last_words()
            )
        self._ends.append(now)

    def _start(self) -> Endpoint:
        if self._log is None:
            self._prepare()
        process = self._process = self._launch()
        try:
            answer = _first_line(process)
        except BaseException:  # Ctrl-C: whoever asks next starts another
            self._process = None
            _end(process)
            raise
        if "url" not in answer:
            self._process = None
            _end(process)
            problem = answer.get("error") or "it ended at once" + self._last_words()
            raise EmbeddedServerError(
                f"the server for the pool file {self.pool} did not start: {problem}"
            )
        return Endpoint(answer["url"], self._token, answer["presence"])

    def _prepare(self) -> None:
        _require_extra()
        if not self.pool.is_file():
            raise EmbeddedServerError(f"there is no pool file {self.pool}")
        # Kept for the next start: a test may change HOME, where the database is.
        self._environment = dict(os.environ)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # until the run's end

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", LAUNCH, "botfarm_server.embedded"]
        try:
            process = subprocess.Popen(  # noqa: S603  # only what stands here
                [*command, "--pool", str(self.pool)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EmbeddedServerError(
                f"the server of this run cannot be started: {error}"
            ) from None
        if process.stdin is not None:
            # Neither an argument nor a variable, which others may see. Not through
            # the buffer, which would be written once more when it is closed.
            with suppress(BrokenPipeError):  # it has ended, and told why
                os.write(process.stdin.fileno(), f"{self._token}\n".encode())
        return process

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        # Not by seek and read: the offset is shared with the process that writes.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_TAIL, max(0, size - LOG_TAIL))
        text = tail.decode(errors="replace").strip()
        return f"; its log ends:\n{text}" if text else ""


def _require_extra() -> None:
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise EmbeddedServerError(
            "a pool file needs the server, and the server needs "
            f"{', '.join(missing)}: pip install 'pytest-botfarm[server]' "
            "(or name a server with --botfarm-url)"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Closing its standard input asks it to end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(STOP_TIME)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """What the process says when it is ready; empty if it ends and never says it."""
    if process.stdout is None:
        return {}
    line, ends = b"", clock() + START_TIME
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(ends - clock()):
                return {"error": f"it was not ready within {START_TIME:.0f} s"}
            part = os.read(process.stdout.fileno(), 4096)
            if not part:
                return {}
            line += part
    try:
        answer: dict[str, str] = json.loads(line)
    except ValueError:
        return {"error": f"it said {line!r}"}
    return answer

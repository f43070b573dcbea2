"""Real server processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from typing_extensions import Self

MEASURING = {"COVERAGE_PROCESS_CONFIG"}
"""What has coverage measure a process. What a server does is measured within the
processes of tests, and a measured one takes twice as long for it."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0
SECRET_KEY = "c2VjcmV0LWtleS1mb3ItdGVzdHMtMzItYnl0ZXMtLS0="
TOKEN = "token-of-the-tests-0123456789"


class ServerProcess:
    """`botfarm serve` on a free port; its log is read and kept."""

    def __init__(
        self,
        database_url: str,
        environment: Mapping[str, str] | None = None,
        *,
        program: Sequence[str] = ("-m", "botfarm_server"),
    ) -> None:
        """`program` is what Python runs, if it is to do something before or besides."""
        self._program = program
        self._database_url = database_url
        self._environment = environment or {}
        self.log: list[str] = []
        self._listening = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        inherited = {k: v for k, v in os.environ.items() if k not in MEASURING}
        self.process = subprocess.Popen(
            [sys.executable, *self._program, "serve", "--port", "0"],
            env={
                **inherited,
                "DATABASE_URL": self._database_url,
                "BOTFARM_SECRET_KEYS": SECRET_KEY,
                "BOTFARM_BCRYPT_COST": "4",
                "BOTFARM_LOG_FORMAT": "json",
                **self._environment,
            },
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(START_TIMEOUT) or not self.url:
            self.process.kill()
            raise AssertionError("\n".join(["the server did not start", *self.log]))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            if '"listening"' in line:
                self.url = json.loads(line)["url"]
                self._listening.set()
        self._listening.set()

    def wait_until_ready(self) -> ServerProcess:
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(
            base_url=self.url, transport=transport, timeout=START_TIMEOUT
        ) as client:
            for _ in range(int(START_TIMEOUT / 0.05)):
                if client.get("/ready").status_code == 200:
                    return self
                threading.Event().wait(0.05)
        raise AssertionError("\n".join(["the server is not ready", *self.log]))

    def stop(self) -> int:
        """Send SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_TIMEOUT)
        self._reader.join(STOP_TIMEOUT)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.stop()

"""Servers and clients of a run, as processes that may be killed at any instant."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from .failpoints import Control
from .proxy import Proxy

HERE = Path(__file__).resolve().parent
START_LIMIT = 60.0
ENVIRONMENT = {
    "BOTFARM_SECRET_KEYS": "c2VjcmV0LWtleS1mb3ItdGVzdHMtMzItYnl0ZXMtLS0=",
    "BOTFARM_BCRYPT_COST": "4",
    "BOTFARM_LOG_FORMAT": "json",
    "BOTFARM_LOG_LEVEL": "WARNING",
}
NOISE = ('"logger": "sqlalchemy.pool', "GeneratorExit")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Process:
    """A program of this folder, started as often as it is killed."""

    def __init__(self, program: str, name: str, folder: Path) -> None:
        self.name = name
        self.starts = 0
        self.busy = asyncio.Lock()
        """Held while somebody does something to it."""
        self._program = program
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def launch(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self.starts += 1
        self._close()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / self._program), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **variables},
            )

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_alive():
            self._process.send_signal(number)

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError:
            pass  # it has died meanwhile

    async def ended(self, limit: float) -> bool:
        """Whether it ends within so many seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limit
        while self.is_alive():
            if loop.time() > until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.ended(START_LIMIT)
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class Server(Process):
    """One server process, on a port of its own."""

    def __init__(
        self,
        name: str,
        folder: Path,
        variables: Mapping[str, str],
        options: Sequence[str] = (),
        link: Proxy | None = None,
    ) -> None:
        super().__init__("server.py", name, folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.control = Control(folder / "control" / name)
        self.link = link
        """The proxy to its database."""
        self._folder = folder
        self._variables = {**ENVIRONMENT, **variables}
        self._options = options

    def start(self) -> None:
        self.launch(
            [
                f"--port={self.port}",
                f"--control={self.control.folder}",
                f"--history={self._folder}",
                f"--name={self.name}",
                f"--seed={self.starts}",
                *self._options,
            ],
            self._variables,
        )

    async def ready(self) -> None:
        """Wait until it serves, or fails to start."""
        loop = asyncio.get_running_loop()
        until = loop.time() + START_LIMIT
        async with httpx.AsyncClient(base_url=self.url, timeout=5.0) as client:
            while self.is_alive() and loop.time() < until:
                try:
                    if (await client.get("/ready")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} does not serve:\n{self.log.read_text()}")

    def figures(self) -> dict[str, int]:
        """Connections to the database, file descriptors, and bytes of memory.

        Raises:
            psutil.Error: it has ended meanwhile.

        """
        process = psutil.Process(self.pid)
        port = self.link.port if self.link else -1
        with process.oneshot():
            return {
                "pid": self.pid,
                "connections": len(
                    [
                        it
                        for it in process.net_connections("tcp4")
                        if it.status == "ESTABLISHED" and it.raddr[1:] == (port,)
                    ]
                ),
                "descriptors": process.num_fds(),
                "memory": process.memory_info().rss,
            }

    def complaints(self) -> list[str]:
        """Lines of its log that tell of a failure nobody expects."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [
            f"{self.name}: {line[:2000]}"
            for line in lines
            if ("Traceback" in line or '"level": "error"' in line)
            and not any(noise in line for noise in NOISE)
        ]


class Client(Process):
    """One client process. Each time it is started it has another name."""

    def __init__(self, number: int, folder: Path, options: Sequence[str]) -> None:
        super().__init__("client.py", f"client-{number}", folder)
        self._number = number
        self._folder = folder
        self._options = options

    def incarnation(self) -> str:
        return f"{self.name}.{self.starts}"

    def start(self, seed: int) -> None:
        self.launch(
            [
                f"--name={self.name}.{self.starts + 1}",
                f"--history={self._folder}",
                f"--seed={seed * 1_000_003 + self._number * 1_009 + self.starts}",
                *self._options,
            ],
            {},
        )

"""A resource that is used under leases, and that knows which fences it has seen.

Each use says who uses which user under which fence. A use whose fence is older than
one that came before is refused: its client has lost the user, by a pause for example,
and cannot know. The witness is not behind the nemesis' proxies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from .history import History


class Witness:
    """The server's side, in the process that runs the torture."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._newest: dict[str, int] = {}
        self._leases: set[str] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def leases(self) -> int:
        """How many leases were used so far."""
        return len(self._leases)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def judge(self, user: str, fence: int, lease: str) -> bool:
        """Whether a use is accepted; it is seen in any case."""
        accepted = fence >= self._newest.get(user, 0)
        if accepted:
            self._newest[user] = fence
        self._leases.add(lease)
        self._history.write(
            "seen", user=user, fence=fence, lease=lease, accepted=accepted
        )
        return accepted

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while line := await reader.readline():
                use = json.loads(line)
                accepted = self.judge(use["user"], use["fence"], use["lease"])
                writer.write(b"1\n" if accepted else b"0\n")
        except OSError:
            pass  # the client was killed
        finally:
            writer.close()


class Stand:
    """The client's side: one connection, one use at a time."""

    def __init__(self, port: int, history: History) -> None:
        self._port = port
        self._history = history
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._uses = 0

    async def use(
        self, user: str, fence: int, lease: str, allowed: Callable[[float], bool]
    ) -> bool:
        """Use a user, if that is allowed at the instant of the stamp.

        The stamp comes first and the question after it: however long the process is
        stopped in between, no use has a stamp at which it was not allowed.
        """
        async with self._turn:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            stamp = self._history.now()
            if not allowed(stamp):
                return False
            self._uses += 1
            number = self._uses
            self._history.write(
                "use", n=number, user=user, fence=fence, lease=lease, stamp=stamp
            )
            use = {"user": user, "fence": fence, "lease": lease}
            writer.write(json.dumps(use).encode() + b"\n")
            accepted = await reader.readline() == b"1\n"
            self._history.write("used", n=number, accepted=accepted)
            return accepted

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()

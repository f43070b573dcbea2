"""A lean HTTP/1.1 client: the load must cost less than what it is laid on."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

LEASES = "/api/v1/leases/"


class Connection:
    """One connection, which stays open; calls on it come one after the other."""

    def __init__(
        self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._host, self._reader, self._writer = host, reader, writer

    @classmethod
    async def to(cls, url: str) -> Self:
        address = urlsplit(url)
        streams = await asyncio.open_connection(address.hostname, address.port)
        return cls(address.netloc, *streams)

    async def call(self, method: str, path: str, body: str = "") -> tuple[int, bytes]:
        self.send(method, path, body)
        return await self.answer()

    def send(self, method: str, path: str, body: str = "") -> None:
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    async def answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        _, found, after = head.partition(b"content-length:")
        length = int(after.partition(b"\r\n")[0]) if found else 0
        return status, await self._reader.readexactly(length) if length else b""

    def close(self) -> None:
        self._writer.close()


class Client:
    """Leases over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @classmethod
    async def of(cls, url: str) -> Self:
        return cls(await Connection.to(url))

    async def acquire(self, asked: str) -> str:
        """The id of a new lease. Raises SystemExit if it is not granted at once."""
        lease_id = str(uuid.uuid4())
        answer = await self.connection.call("PUT", LEASES + lease_id, asked)
        expect(200, answer)
        return lease_id

    async def release(self, lease_id: str) -> None:
        expect(204, await self.connection.call("DELETE", LEASES + lease_id))

    async def state(self, lease_id: str) -> str | None:
        status, body = await self.connection.call("GET", LEASES + lease_id)
        return json.loads(body)["state"] if status == 200 else None


def asking(domain: str = "regular", *, wait: float = 0.0, **want: Any) -> str:
    wants = [{"env": "stage", "domain": domain, **want}]
    return json.dumps({"wants": wants, "wait": wait, "ttl": 60})


ASKED = asking()
"""One user of the pool that every benchmark has."""


def expect(status: int, answer: tuple[int, bytes]) -> bytes:
    if answer[0] != status:
        raise SystemExit(f"expected {status}, got {answer[0]}: {answer[1].decode()}")
    return answer[1]

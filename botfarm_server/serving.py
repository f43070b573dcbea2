"""Running the app under uvicorn, as the command line and the embedded mode do."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

GRACE = 8
"""Seconds that calls under way have after SIGTERM; the process ends within 10."""
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than the pause between two
heartbeats, so that no request meets a connection that is just being closed."""


class Server(uvicorn.Server):
    """uvicorn that says on which address it listens, once it does."""

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str,
        port: int,
        on_listening: Callable[[str], None] | None = None,
    ) -> None:
        self._on_listening = on_listening
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._on_listening is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self._on_listening(f"http://{shown}:{port}")

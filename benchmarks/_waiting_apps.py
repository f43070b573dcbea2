"""Applications whose one call waits and does nothing else, served as Botfarm is.

What a waiting call costs before Botfarm does anything: `python _waiting_apps.py NAME`
prints its address.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

PATH = "/{number}"


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await asyncio.Event().wait()


async def _wait(request: Request) -> Response:
    await request.body()
    await asyncio.Event().wait()
    return Response()


_fastapi = FastAPI()


@_fastapi.put(PATH)
async def _wait_with_body(number: str, body: dict[str, Any]) -> None:
    await asyncio.Event().wait()


APPLICATIONS: dict[str, Any] = {
    "uvicorn": _bare,
    "Starlette": Starlette(routes=[Route(PATH, _wait, methods=["PUT"])]),
    "FastAPI": _fastapi,
}


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        APPLICATIONS[sys.argv[1]], lifespan="off", log_level="error"
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()

"""The app in this process, spoken to over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from support.servers import SECRET_KEY

from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

Start = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def running(
    app: FastAPI, *, host: str = "127.0.0.1", until_ready: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url=f"http://{host}:8000"
        ) as client,
    ):
        if until_ready:
            with anyio.fail_after(30):
                while (await client.get("/ready")).status_code != 200:
                    await anyio.sleep(0.01)
        yield client


@pytest.fixture
def start(database_url: str) -> Start:
    """Start the app with settings of the test's own."""

    def started(
        *, host: str = "127.0.0.1", **given: Any
    ) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        values = {
            "database_url": database_url,
            "secret_keys": SECRET_KEY,
            "bcrypt_cost": 4,
            **given,
        }
        settings = fixed_settings(values)
        return running(create_app(settings), host=host)

    return started


@pytest.fixture
async def client(start: Start) -> AsyncIterator[httpx.AsyncClient]:
    async with start() as running_client:
        yield running_client


ALICE = {
    "login": "alice",
    "password": "correct horse",
    "project_id": "6f3c8f5e-0000-4000-8000-000000000001",
    "env": "stage",
    "domain": "regular",
}

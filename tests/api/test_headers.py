"""The headers of answers are those that the OpenAPI document tells of."""

from __future__ import annotations

import re
import uuid
from itertools import product
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from botfarm_server.api.headers import HEADERS, NEXT_CURSOR_HEADER
from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

from .conftest import ALICE, running

pytestmark = pytest.mark.anyio

TOKEN = "a-long-enough-token"
OF_EVERY_HTTP_ANSWER = {"connection", "content-length", "content-type"}
POOL = {"env": "stage", "domain": "regular"}


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """One of the databases: none of this depends on which."""
    path = tmp_path / "farm.sqlite3"
    path.write_bytes(migrated_sqlite.read_bytes())
    return f"sqlite:///{path}"


class Reader:
    """Reads answers beside the document, and knows which headers it has seen."""

    def __init__(self, app: FastAPI) -> None:
        self._operations = {
            (method.upper(), re.compile(re.sub(r"\{\w+\}", "[^/]+", path))): operation
            for path, methods in app.openapi()["paths"].items()
            for method, operation in methods.items()
        }
        self.seen: set[tuple[int, str]] = set()

    async def read(self, answer: httpx.Response) -> None:
        request, status = answer.request, answer.status_code
        operation = next(
            operation
            for (method, path), operation in self._operations.items()
            if method == request.method and path.fullmatch(request.url.path)
        )
        told = operation["responses"][str(status)]["headers"]
        sent = {name for name in told if name in answer.headers}
        unknown = answer.headers.keys() - {name.lower() for name in told}
        assert unknown <= OF_EVERY_HTTP_ANSWER, request
        assert sent >= {name for name in told if HEADERS[name].get("required")}, request
        self.seen |= {(status, name) for name in sent}


async def test_each_answer_has_the_headers_that_the_document_tells_of(
    database_url: str,
) -> None:
    """None that it leaves out, and all that it promises."""
    values = {"database_url": database_url, "bootstrap_token": TOKEN, "bcrypt_cost": 4}
    app = create_app(fixed_settings({**values, "max_body_bytes": 65_536}))
    reader = Reader(app)
    transport, hooks = httpx.ASGITransport(app), {"response": [reader.read]}
    base_url = "http://127.0.0.1:8000"
    async with httpx.AsyncClient(
        transport=transport, base_url=base_url, event_hooks=hooks
    ) as client:
        assert (await client.get("/ready")).status_code == 503
    async with running(app) as client:
        client.event_hooks = hooks
        client.base_url = httpx.URL(f"{base_url}/api/v1/")
        client.headers["Authorization"] = "Bearer wrong"
        wrong = [(await client.get("users")).status_code for _ in range(31)]
        assert wrong == [*([401] * 30), 429]
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        long = {"login": "a" * 66_000}
        for body, status in ((ALICE, 201), (ALICE, 400), ({}, 422), (long, 413)):
            assert (await client.post("users", json=body)).status_code == status
        assert (await client.post("users", content=b"x")).status_code == 415
        lease, other = (f"leases/{uuid.uuid4()}" for _ in range(2))
        for path, status in ((lease, 200), (other, 202)):
            asked = await client.put(path, json={"wants": [POOL]})
            assert asked.status_code == status
        for path, limit in product(("users", "leases", "audit"), (1, 100)):
            page = await client.get(path, params={"limit": limit})
            assert (NEXT_CURSOR_HEADER in page.headers) == (limit == 1)
        assert (await client.get(f"leases/{uuid.uuid4()}")).status_code == 404
        assert (await client.get(f"{base_url}/metrics")).is_success
        assert (await client.delete(lease)).status_code == 204
    assert {name for _, name in reader.seen} == HEADERS.keys()
    assert reader.seen >= {(503, "Retry-After"), (429, "Retry-After")}

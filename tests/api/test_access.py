"""Who may call, and what strangers are told."""

from __future__ import annotations

import anyio
import httpx
import pytest

from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

from .conftest import Start, running

pytestmark = pytest.mark.anyio

TOKEN = "a-long-enough-token"


async def test_the_token_opens_and_health_needs_none(start: Start) -> None:
    async with start(bootstrap_token=TOKEN) as client:
        for wrong in ("", "Bearer wrong", "Basic eDp5", f"Bearer {TOKEN}s"):
            refused = await client.get(
                "/api/v1/users/", headers={"Authorization": wrong}
            )
            assert (refused.status_code, refused.json()["error"]) == (
                401,
                "unauthorized",
            )
            assert TOKEN not in refused.text
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/api/v1/users/", headers=header)).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 200


async def test_without_a_token_only_loopback_is_served(start: Start) -> None:
    async with start(host="192.0.2.1") as client:
        answer = await client.get("/api/v1/users/")
        assert answer.status_code == 403
        assert "BOTFARM_BOOTSTRAP_TOKEN" in answer.json()["detail"]
    async with start(host="192.0.2.1", insecure_no_auth=True) as client:
        assert (await client.get("/api/v1/users/")).status_code == 200


async def test_configured_origins_may_call_and_no_others(start: Start) -> None:
    origin = "https://farm.example.com"
    async with start(cors_origins=origin) as client:
        answer = await client.get("/api/v1/users/", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        answer = await client.get(
            "/api/v1/users/", headers={"Origin": "https://evil.example.com"}
        )
        assert "Access-Control-Allow-Origin" not in answer.headers
    async with start() as client:
        answer = await client.get("/api/v1/users/", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/api/v1/users/not-a-uuid", 422, "invalid_request"),
    ],
)
async def test_errors_have_one_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.json()["detail"]
    assert answer.headers["Botfarm-Protocol"] == "1"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b"null"])
async def test_a_broken_body_is_422(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(
        "/api/v1/users/", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.json()["error"] == "invalid_request"


async def test_a_failure_of_the_server_tells_an_incident_alone(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("PLANTED-SECRET")

    monkeypatch.setattr("botfarm_server.store.users.find", fail)
    answer = await client.get("/api/v1/users/")
    assert answer.status_code == 500
    assert answer.json()["error"] == "internal_error"
    assert answer.json()["incident"] in answer.json()["detail"]
    assert "PLANTED-SECRET" not in answer.text


async def test_nothing_is_served_before_the_database_is_migrated(
    tmp_path: object,
) -> None:
    settings = fixed_settings(
        {"database_url": f"sqlite:///{tmp_path}/farm.db", "migrate_at_start": False}
    )
    async with running(create_app(settings), until_ready=False) as client:
        while "without a schema" not in (ready := await client.get("/ready")).text:
            await anyio.sleep(0.01)
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        answer = await client.get("/api/v1/users/")
        assert (answer.status_code, answer.json()["error"]) == (503, "schema_mismatch")
        assert "botfarm db upgrade" in answer.json()["detail"]
        assert answer.headers["Retry-After"] == "1"

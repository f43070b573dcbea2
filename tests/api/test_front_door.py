"""What stands before every call: hosts, headers, pages, wrong tokens."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from botfarm_server.domain.tokens import new_token

from .conftest import ALICE, Start

pytestmark = pytest.mark.anyio

TOKEN = "a-long-enough-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def database_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """One of the databases: none of this depends on which."""
    path = tmp_path / "farm.sqlite3"
    path.write_bytes(migrated_sqlite.read_bytes())
    return f"sqlite:///{path}"


async def test_health_says_that_a_server_is_open_and_nothing_else(start: Start) -> None:
    async with start(insecure_no_auth=True) as client:
        assert (await client.get("/health")).json() == {
            "status": "healthy",
            "warning": "This server asks nobody for a token (--insecure-no-auth).",
        }
        body = {"name": "first", "role": "read"}
        made = (await client.post("/api/v1/tokens", json=body)).json()["token"]
        headers = {"Authorization": f"Bearer {made}"}
        assert (await client.get("/api/v1/users", headers=headers)).status_code == 200
        assert (await client.get("/health")).json() == {"status": "healthy"}
    async with start() as client:
        assert (await client.get("/health")).json() == {"status": "healthy"}


async def test_wrong_tokens_are_told_and_come_to_an_end_and_the_right_one_passes(
    start: Start,
) -> None:
    async with start(bootstrap_token=TOKEN) as client:

        async def told(token: str) -> tuple[int, str | None]:
            headers = {"Authorization": f"Bearer {token}"}
            answer = await client.get("/api/v1/users", headers=headers)
            return answer.status_code, answer.json()["error"] if answer.is_error else ""

        cut, unknown = new_token("lease")[:-1], new_token("admin")
        with capture_logs() as log:
            assert await told(cut) == (401, "token_mistyped")
            assert await told(unknown) == (401, "unauthorized")
            for _ in range(28):
                assert await told("guess") == (401, "unauthorized")
            for wrong in ("guess", unknown, cut):
                assert await told(wrong) == (429, "too_many_wrong_tokens")
            for _ in range(40):
                assert (await client.get("/api/v1/users")).status_code == 401
            assert await told(TOKEN) == (200, "")
        refusals = [it for it in log if it["event"] == "token refused"]
        assert [it["why"] for it in refusals[:2]] == ["token_mistyped", "unauthorized"]
        assert {it["address"] for it in refusals} == {"127.0.0.1"}
        assert (len(refusals), len(log)) == (30, 31)
        assert all(secret not in str(log) for secret in (cut, unknown, "guess", TOKEN))


async def test_no_answer_is_kept_or_taken_for_another_kind(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that fails."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("botfarm_server.store.tokens.find", fail)
    await client.post("/api/v1/users/", json=ALICE)
    want = {"wants": [{"env": "stage", "domain": "regular"}]}
    lease = "/api/v1/leases/6f3c8f5e-0000-4000-8000-000000000009"
    held = await client.put(lease, json=want)
    assert held.json()["users"][0]["password"] == ALICE["password"]
    for path in ("/health", "/docs", "/nothing", "/api/v1/users", "/api/v1/tokens"):
        for answer in (held, await client.get(path)):
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["Cache-Control"] == "no-store", path


async def test_pages_and_metrics_are_for_tokens_for_all_or_nobody_as_it_is_said(
    start: Start,
) -> None:
    """And pages for this machine, whose browser sends no token by itself."""

    async def statuses(client: httpx.AsyncClient, **headers: str) -> list[int]:
        paths = ("/docs", "/openapi.json", "/metrics")
        return [(await client.get(it, headers=headers)).status_code for it in paths]

    async with start(bootstrap_token=TOKEN) as client:
        assert await statuses(client) == [200, 200, 401]
        assert await statuses(client, Host="farm.example.com") == [401, 401, 401]
    async with start(bootstrap_token=TOKEN, host="192.0.2.1") as client:
        assert await statuses(client) == [401, 401, 401]
        assert await statuses(client, **BEARER) == [200, 200, 200]
        assert (await client.get("/ready")).status_code == 200
    for readers, told in (("public", [200, 200, 200]), ("off", [404, 404, 404])):
        given = {"bootstrap_token": TOKEN, "pages": readers, "metrics": readers}
        async with start(host="192.0.2.1", **given) as client:
            assert await statuses(client) == told
            assert await statuses(client, **BEARER) == told
            assert (await client.get("/board")).status_code == 200


async def test_the_board_is_there_unless_a_setting_says_otherwise_and_tells_nothing(
    start: Start,
) -> None:
    """What it shows it asks for with a token; it loads nothing from elsewhere."""
    async with start(bootstrap_token=TOKEN) as client:
        page = await client.get("/board/")
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert not [it for it in ("unsafe", "://", "*") if it in policy]
        assert "://" not in page.text
    async with start(bootstrap_token=TOKEN, board="off") as client:
        assert (await client.get("/board")).status_code == 404


async def test_the_documentation_runs_its_own_scripts_alone(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    sources = re.search("script-src ([^;]+)", policy)
    assert sources is not None
    *hashes, cdn = sources[1].split()
    scripts = re.findall("<script[^>]*>", page.text)
    from_elsewhere = [it for it in scripts if "src=" in it]
    assert len(scripts) - len(from_elsewhere) == len(hashes) > 0
    assert all(it.startswith("'sha256-") for it in hashes)
    assert all(cdn in it for it in from_elsewhere)
    assert "frame-ancestors 'none'" in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "/openapi.json" in page.text


async def test_a_page_whose_name_leads_to_this_machine_reads_nothing(
    client: httpx.AsyncClient,
) -> None:
    """A server without a token answers calls to its own names alone."""
    for name in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
        answer = await client.get("/api/v1/users/", headers={"Host": name})
        assert answer.status_code == 200, name
    for name in ("evil.example.com", "127.0.0.1.evil.example.com", "a@127.0.0.1", "["):
        answer = await client.get("/api/v1/users/", headers={"Host": name})
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden"), name


async def test_what_a_proxy_of_this_machine_passes_on_is_no_call_from_it(
    client: httpx.AsyncClient,
) -> None:
    """Also where the proxy gives the server's own name, and says where it is from."""
    for name in ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host"):
        for told in ("203.0.113.7", "127.0.0.1", ""):
            answer = await client.get("/api/v1/users/", headers={name: told})
            refusal = (answer.status_code, answer.json()["error"])
            assert refusal == (403, "forbidden"), (name, told)


async def test_other_host_names_than_the_servers_are_refused(start: Start) -> None:
    hosts = "farm.example.com,*.farm.example.com,2001:db8::1"
    async with start(allowed_hosts=hosts, bootstrap_token=TOKEN) as client:

        async def status(host: str, path: str = "/api/v1/users") -> int:
            headers = {**BEARER, "Host": host}
            return (await client.get(path, headers=headers)).status_code

        allowed = ("FARM.example.com:443", "a.farm.example.com", "[2001:db8::1]:80")
        assert [await status(host) for host in allowed] == [200, 200, 200]
        refused = ("example.com", "evilfarm.example.com", "", "farm.example.com@x")
        assert [await status(host) for host in refused] == [400, 400, 400, 400]
        for path in ("/health", "/metrics"):
            assert await status("10.1.2.3", path) == 200
        answer = await client.get("/api/v1/users", headers={"Host": "x"})
        assert answer.json()["error"] == "host_not_allowed"
        assert answer.headers["Botfarm-Protocol"] == "1"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_docs_loads_from_elsewhere_what_is_known_to_the_byte_alone(
    client: httpx.AsyncClient,
) -> None:
    """Each script and style has an exact version and a hash, and no other may run."""
    page = await client.get("/docs")
    tags = re.findall(r"<(?:script|link)\b[^>]*//[^>]*>", page.text)
    loaded = [tag for tag in tags if "icon" not in tag]
    assert len(loaded) == 2
    policy = page.headers["content-security-policy"].replace(";", "").split()
    for tag in loaded:
        assert re.search(r'\bintegrity="sha384-[A-Za-z0-9+/]{64}"', tag), tag
        assert 'crossorigin="anonymous"' in tag
        [url] = re.findall(r'(?:src|href)="([^"]+)"', tag)
        assert re.search(r"@\d+\.\d+\.\d+/", url)
        assert url in policy
    assert sum(it.startswith("https://cdn.") for it in policy) == len(loaded)

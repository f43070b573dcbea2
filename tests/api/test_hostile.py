"""What is hostile or broken is refused in words: never a failure, never a hang."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, cast

import anyio
import httpx
import pytest
from support.servers import TOKEN, ServerProcess

from botfarm_server.api import bodies
from botfarm_server.api.bodies import MOST_BODIES, MOST_NAMES, ORDINARY
from botfarm_server.api.document import DocumentedApp
from botfarm_server.api.errors import MOST_FLAWS
from botfarm_server.api.schemas.fields import MAXIMUM_FENCE, MAXIMUM_LABELS, MAXIMUM_TTL
from botfarm_server.api.schemas.kept_states import MAXIMUM_STATE_BYTES
from botfarm_server.api.schemas.leases import MAXIMUM_WAIT
from botfarm_server.api.schemas.users import MAXIMUM_SECRET_LENGTH
from botfarm_server.api.schemas.wants import MAXIMUM_COUNT, MAXIMUM_WANTS
from botfarm_server.api.state import AppState
from botfarm_server.app import create_app
from botfarm_server.connections import MAXIMUM_HEAD
from botfarm_server.domain.tokens import digest_of
from botfarm_server.services import lanes
from botfarm_server.settings import fixed_settings

from .conftest import ALICE, Start, running

USERS, LEASE = "/api/v1/users", f"/api/v1/leases/{uuid.UUID(int=1)}"
AUDIT = "/api/v1/audit"
STATE = f"{LEASE}/users/{uuid.UUID(int=2)}/state"
WANT = {"env": "stage", "domain": "regular"}
JSON = {"Content-Type": "application/json"}
INVALID = (422, "invalid_request")
MAXIMUM_BODY = 65_536
Call = tuple[str, str, Any]
Answer = tuple[int, str | None]


def user(**changes: Any) -> Call:
    return "POST", USERS, {**ALICE, **changes}


def lease(**changes: Any) -> Call:
    return "PUT", LEASE, {"wants": [WANT], **changes}


def want(**changes: Any) -> Call:
    return lease(wants=[{**WANT, **changes}])


def listing(query: str) -> Call:
    return "GET", f"{USERS}?{query}", None


def cursor(text: str) -> Call:
    return listing(f"cursor={base64.urlsafe_b64encode(text.encode()).decode()}")


LOGINS = {
    "a login with NUL": "ali\x00ce",
    "a login with half a surrogate pair": "ali\ud800ce",
    "a login with a control character": "ali\x1bce",
    "a login with a line break": "ali\nce",
    "a login that turns the order of letters": "ali\u202ece",
    "a login with an invisible character": "ali\u200bce",
    "a login with a variation selector": "alice\ufe0f",
    "a login with a space at its end": "alice ",
    "a login that is not normalised": "rene\u0301",
    "a login in wide letters": "\uff41lice",
    "a login with a Cyrillic letter among Latin ones": "\u0430lice",
    "a login with a Greek letter among Latin ones": "alic\u03b5",
    "a login that is too long": "a" * 256,
    "a login that is empty": "",
}
ODD = {
    "NUL": "%00",
    "a control character": "ali%1Bce",
    "an invisible character": "ali%E2%80%8Bce",
    "too long a text": "a" * 256,
    "nothing": "",
}
"""Texts of a query."""
REAL_NAMES = ["Renée", "иван@example.com", "Ωμέγα-1", "山田太郎", "محمد", "o'neill+1"]
CALLS: dict[str, Call] = {
    "a holder that moves the cursor": lease(holder={"host": "\x1b[2J"}),
    "a holder with a long name": lease(holder={"test_id": "a" * 2_001}),
    "an unknown field of a holder": lease(holder={"hots": "here"}),
    "an unknown field of a want": want(coun=1),
    "no want": lease(wants=[]),
    "too many wants": lease(wants=[WANT] * (MAXIMUM_WANTS + 1)),
    "too many users": want(count=MAXIMUM_COUNT + 1),
    "a huge count": want(count=10**30),
    "a fraction of a user": want(count=1.5),
    "too many users over all wants": lease(wants=[{**WANT, "count": 99}] * 2),
    "too many labels": want(
        labels={str(number): "x" for number in range(MAXIMUM_LABELS + 1)}
    ),
    "a long label": want(labels={"role": "a" * 256}),
    "a label without a name": want(labels={"": "admin"}),
    "a label with a control character": want(labels={"role": "\x07"}),
    "a label that is no text": want(labels={"role": ["admin"]}),
    "too long a wait": lease(wait=MAXIMUM_WAIT + 1),
    "a wait of no number": lease(wait=float("nan")),
    "an endless wait": lease(wait=float("inf")),
    "too long a TTL": lease(ttl=MAXIMUM_TTL + 1),
    "too short a TTL": lease(ttl=1),
    "too many users to prefer": lease(prefer=[str(uuid.UUID(int=1))] * 101),
    "a fence beyond the column": (
        "DELETE",
        LEASE,
        {"fence": MAXIMUM_FENCE + 1},
    ),
    "a long secret": user(secrets={"key": "x" * (MAXIMUM_SECRET_LENGTH + 1)}),
    "secrets that are large together": user(
        secrets={str(number): "\U0001f600" * 8_193 for number in range(2)}
    ),
    "too many secrets": user(secrets={str(number): "x" for number in range(21)}),
    "a large state": (
        "PUT",
        STATE,
        {"fence": 1, "state": "x" * (MAXIMUM_STATE_BYTES + 1)},
    ),
    **{
        f"{what} as {name} in the audit log": ("GET", f"{AUDIT}?{name}={text}", None)
        for name in ("who", "subject")
        for what, text in ODD.items()
    },
    "a time before all times": (
        "GET",
        f"{AUDIT}?since=0001-01-01T00:00:00%2B01:00",
        None,
    ),
    "a time after all times": ("GET", f"{AUDIT}?until=9999-12-31T23:59:59-01:00", None),
    "a page that is too large": listing("limit=1001"),
    "thousands of unknown names": (
        "POST",
        "/api/v1/leases/renew",
        {"leases": [dict.fromkeys("abcde", 0)] * (MOST_NAMES // 5)},
    ),
    "too many labels in a query": listing("&".join(["label=a=b"] * 21)),
    "NUL in a query": listing("login=%00"),
    "a cursor that is nested deeply": cursor("[" * 1_400),
    "a cursor with NUL": cursor(json.dumps(["stage", "\x00"])),
    "a cursor with half a surrogate pair": cursor(json.dumps(["stage", "\ud800"])),
    "a cursor of other letters": listing("cursor=%C3%A9"),
    "a path with NUL": ("GET", f"{USERS}/%00", None),
    "an id that is none": ("GET", f"{USERS}/{'9' * 5_000}", None),
    "JSON that is nested deeply": ("POST", USERS, b"[" * 60_000),
    "a number of many digits": ("POST", USERS, b"9" * 60_000),
    "bytes that are no text": ("POST", USERS, b'{"login": "\xff"}'),
    "half a JSON text": ("POST", USERS, b'{"login": '),
    "another type than an object": ("POST", USERS, b"[]"),
    **{name: user(login=login) for name, login in LOGINS.items()},
}
"""Each is refused as `422 invalid_request`."""


async def answer_to(
    client: httpx.AsyncClient, call: Call, headers: dict[str, str] = JSON
) -> Answer:
    method, path, body = call
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    answer = await client.request(method, path, content=body, headers=headers)
    return answer.status_code, answer.json()["error"] if answer.is_error else None


@pytest.mark.anyio
async def test_hostile_input_is_refused_in_words(start: Start) -> None:
    async with start(max_body_bytes=10 * MAXIMUM_BODY) as client:
        told = {name: await answer_to(client, call) for name, call in CALLS.items()}
        assert told == dict.fromkeys(CALLS, INVALID)
        unknown = {f"{number:05}": 0 for number in range(400)}
        told_of_many = await client.put(LEASE, json=lease(**unknown)[2])
        flaws = told_of_many.json()["errors"]
        assert flaws[-1] == {"field": "body", "message": "has 300 more flaws"}
        assert len(flaws) == MOST_FLAWS + 1
        made = [await answer_to(client, user(login=name)) for name in REAL_NAMES]
        assert made == [(201, None)] * len(REAL_NAMES)
        # A second one of each looks the same to both databases, too.
        again = [await answer_to(client, user(login=name)) for name in REAL_NAMES]
        assert again == [(400, "duplicate_user")] * len(REAL_NAMES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server, which waits for what comes slowly as long as a test may."""
    folder = tmp_path_factory.mktemp("farm")
    settings = {
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        # No shorter: on a busy machine what is sent at once comes late, too.
        "BOTFARM_REQUEST_TIMEOUT": "5",
        "BOTFARM_MAX_BODY_BYTES": str(MAXIMUM_BODY),
    }
    with ServerProcess(f"sqlite:///{folder}/farm.sqlite3", settings) as server:
        yield server.wait_until_ready()
    assert not [line for line in server.log if "Traceback" in line]


def exchange(server: ServerProcess, *sent: bytes) -> bytes:
    """What the server answers to these bytes, until it closes the connection."""
    with connect(server) as connection:
        with suppress(ConnectionError):  # it has said what it had to say
            for part in sent:
                connection.sendall(part)
        return received_all(connection)


def head(*headers: str) -> bytes:
    lines = [f"POST {USERS} HTTP/1.1", "Host: farm", f"Authorization: Bearer {TOKEN}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


AS_JSON = "Content-Type: application/json"
LAST = "Connection: close"
HEALTH = b"GET /health HTTP/1.1\r\nHost: farm\r\n\r\n"
LAST_HEALTH = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
AT_LENGTH = head().replace(f"POST {USERS}".encode(), b"GET /openapi.json")
"""What is answered at length."""
LAST_AT_LENGTH = AT_LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
TRANSPORT: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "a body that does not come": ((head(AS_JSON, "Content-Length: 9"),), b"408"),
    "a body that stops": ((head(AS_JSON, "Content-Length: 9"), b"{"), b"408"),
    "a body without an end": (
        (head(AS_JSON, "Transfer-Encoding: chunked"), b"1\r\n{\r\n"),
        b"408",
    ),
    "a body that says it is too large": (
        (head(AS_JSON, f"Content-Length: {10**12}"),),
        b"413",
    ),
    "a body that becomes too large": (
        (
            head(AS_JSON, LAST, "Transfer-Encoding: chunked"),
            (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n",
        ),
        b"413",
    ),
    "a body without a type": ((head(LAST, "Content-Length: 2"), b"{}"), b"415"),
    "a form": (
        (
            head(
                "Content-Type: application/x-www-form-urlencoded",
                LAST,
                "Content-Length: 2",
            ),
            b"a=",
        ),
        b"415",
    ),
    "a gzip bomb": (
        (
            head(AS_JSON, LAST, "Content-Encoding: gzip", "Content-Length: 10212"),
            gzip.compress(b" " * 10**7)[:10_212].ljust(10_212),
        ),
        b"415",
    ),
    "two lengths": (
        (head(AS_JSON, "Content-Length: 2", "Content-Length: 3"), b"{}}"),
        b"400",
    ),
    "a length that is none": ((head(AS_JSON, "Content-Length: -1"), b"{}"), b"400"),
    "a length and chunks": (
        (head(AS_JSON, "Content-Length: 2", "Transfer-Encoding: chunked"), b"0\r\n"),
        b"400",
    ),
    # To the byte: what a server has not read when it closes costs it the answer.
    "a head that is too long": (
        (b"GET /health HTTP/1.1\r\nX: ".ljust(MAXIMUM_HEAD + 1, b"x"),),
        b"400",
    ),
    "a head of many lines": ((b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 102,), b"400"),
    "trailers without an end": (
        (
            head(AS_JSON, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n",
            b"a:\r\n".ljust(MAXIMUM_HEAD // 2, b"a") + b"\r\n",
            b"a:\r\n".ljust(MAXIMUM_HEAD // 2, b"a"),
        ),
        b"400",
    ),
    "a head without an end": ((b"GET / HTTP/1.1\r\n", b"X-Filler: "), b""),
    "a head that does not come": ((), b""),
    "another protocol": ((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",), b"400"),
    "garbage after a request": (
        (HEALTH + b"\x00garbage\r\n\r\n",),
        b"400",
    ),
    "a request behind another": ((HEALTH + LAST_HEALTH,), b"200"),
    "requests behind another": ((HEALTH * 2 + LAST_HEALTH,), b"400"),
}
"""What is sent, and the status of the answer, if there is any before the end."""


def test_a_broken_transport_is_answered_and_closed(server: ServerProcess) -> None:
    """So is one whose client does not read in time what it has asked for."""
    with unread(server) as connection:
        with ThreadPoolExecutor(len(TRANSPORT)) as pool:
            sent = [parts for parts, _ in TRANSPORT.values()]
            answers = list(pool.map(lambda parts: exchange(server, *parts), sent))
        # Its time began before that of the head that does not come.
        assert not is_whole(received_all(connection))
    assert answers[list(TRANSPORT).index("a request behind another")].count(b"200") == 2
    told = {}
    for name, answer in zip(TRANSPORT, answers, strict=True):
        told[name] = answer[9:12]
        if told[name] in {b"408", b"413", b"415"}:
            assert b'{"error":"' in answer, name
            assert b"botfarm-protocol: 1" in answer.lower(), name
    assert told == {name: status for name, (_, status) in TRANSPORT.items()}


CROWDED = """
from botfarm_server import connections
from botfarm_server.cli.main import run

connections.MOST_IDLE = 8
connections.MOST_UNREAD = 200_000
run()
"""
"""`botfarm serve` that keeps few connections on which nothing is under way, and little
of what is not read."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    database = f"sqlite:///{tmp_path_factory.mktemp('crowd')}/farm.sqlite3"
    guarded, program = {"BOTFARM_BOOTSTRAP_TOKEN": TOKEN}, ("-c", CROWDED)
    with ServerProcess(database, guarded, program=program) as server:
        yield server.wait_until_ready()


def test_connections_without_a_call_stop_neither_newcomers_nor_waiting_calls(
    crowded: ServerProcess,
) -> None:
    """Whether nothing was sent, a part, or a whole call before: the oldest go."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=crowded.url, headers=bearer, timeout=60) as client:
        client.post(USERS, json=user()[2]).raise_for_status()
        client.put(LEASE, json=lease()[2]).raise_for_status()
        path = f"/api/v1/leases/{uuid.UUID(int=2)}"
        body = json.dumps(lease(wait=60)[2]).encode()
        sent = head(AS_JSON, f"Content-Length: {len(body)}").replace(
            f"POST {USERS}".encode(), f"PUT {path}".encode()
        )
        partial = head(AS_JSON, "Content-Length: 9")
        with ExitStack() as stack:

            def connected(first: bytes) -> socket.socket:
                opened = stack.enter_context(connect(crowded))
                opened.sendall(first)
                return opened

            waiting = connected(sent + body)
            while not client.get("/api/v1/leases?state=waiting").json():
                pass
            idle = [connected(it) for it in (HEALTH, HEALTH + partial)]
            assert all(it.recv(12) == b"HTTP/1.1 200" for it in idle)
            idle += [connected(it) for it in (partial, b"GET", b"")]
            others = [connected(b"") for _ in range(20)]
            # Who comes later is let in later: the others are there by now.
            with connect(crowded) as newcomer:
                newcomer.sendall(HEALTH)
                assert newcomer.recv(12) == b"HTTP/1.1 200"
            rests = [received_all(it) for it in (*idle, *others[:5])]
            assert not [it for it in rests if b"408" in it]
            assert client.delete(LEASE).status_code == 204
            assert waiting.recv(12) == b"HTTP/1.1 200"


def test_what_is_not_read_is_bounded_and_who_reads_nothing_is_idle(
    crowded: ServerProcess,
) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(unread(crowded)) for _ in range(5)]
        assert [is_whole(received_all(it)) for it in slow] == [False] * 4 + [True]
        # Whoever asks for more before having read is not heard.
        greedy = stack.enter_context(unread(crowded, AT_LENGTH))
        greedy.sendall(LAST_HEALTH)
        assert exchange(crowded, LAST_HEALTH)[9:12] == b"200"
        rest = received_all(greedy)
        assert not is_whole(rest)
        assert b"200 OK" not in rest


def unread(server: ServerProcess, asking: bytes = LAST_AT_LENGTH) -> socket.socket:
    """A connection on which a large answer has begun, of which the rest is not read."""
    connection = socket.socket()
    # So that not all of it fits into the buffers of the system.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.settimeout(60)
    connection.connect(address_of(server))
    connection.sendall(asking)
    assert connection.recv(12) == b"HTTP/1.1 200"
    # What can be written is, before another call is answered.
    assert exchange(server, LAST_HEALTH)[9:12] == b"200"
    return connection


def is_whole(answer: bytes) -> bool:
    return answer.endswith(b"}")


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(address_of(server), timeout=60)


def address_of(server: ServerProcess) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def received_all(connection: socket.socket) -> bytes:
    """What came until the server has closed the connection."""
    told = b""
    with suppress(ConnectionError):  # it has said what it had to say
        while received := connection.recv(65_536):
            told += received
    return told


@pytest.mark.anyio
async def test_only_so_much_is_held_of_bodies_and_of_who_may_not_send_them_nothing(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that arrive, one of the caller who sends most of them has to go."""
    monkeypatch.setattr(bodies, "LINGER", 0.0)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        "max_body_bytes": MAXIMUM_BODY,
        "request_timeout": 300,
    }
    go_on = anyio.Event()
    told: dict[str, list[int]] = {"admin": [], "lease": []}

    def known(token: str) -> dict[str, str]:
        return {**JSON, "Authorization": f"Bearer {token}"}

    async def refused(call: Call, headers: dict[str, str]) -> int:
        async def content() -> AsyncIterator[bytes]:
            yield b"no JSON"
            await anyio.sleep_forever()

        method, path, _ = call
        answer = await client.request(method, path, content=content(), headers=headers)
        return answer.status_code

    async def send(call: Call, token: str, whose: list[int], read: anyio.Event) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield b" " * MAXIMUM_BODY
            read.set()
            await go_on.wait()

        method, path, _ = call
        answer = await client.request(
            method, path, content=content(), headers=known(token)
        )
        whose.append(answer.status_code)

    async with running(create_app(fixed_settings(settings))) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = [{"name": role, "role": role} for role in ("lease", "read")]
        made = [await client.post("/api/v1/tokens", json=it) for it in named]
        of_lease, of_read = (it.json()["token"] for it in made)
        importing = ("POST", f"{USERS}/import", None)
        with anyio.fail_after(60):
            assert await refused(user(), known("wrong")) == 401
            assert await refused(lease(), known(of_read)) == 403
            assert await refused(importing, known(of_lease)) == 403
            async with anyio.create_task_group() as calls:
                senders = [("admin", TOKEN, importing)]
                senders += [("lease", of_lease, lease())] * MOST_BODIES
                for who, token, call in senders:
                    read = anyio.Event()
                    calls.start_soon(send, call, token, told[who], read)
                    await read.wait()
                while not told["lease"]:
                    await anyio.sleep(0.01)
                go_on.set()
    # The first of the greedy one has made room; the others are no JSON.
    assert told == {"admin": [422], "lease": [408] + [422] * (MOST_BODIES - 1)}


@pytest.mark.anyio
async def test_a_callers_own_bodies_wait_for_each_other_and_none_of_them_is_ended(
    tmp_path: object,
) -> None:
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        "max_body_bytes": MAXIMUM_BODY,
        "request_timeout": 300,
    }
    go_on = anyio.Event()
    begun, told = list[int](), list[int]()

    async def send(number: int) -> None:
        async def content() -> AsyncIterator[bytes]:
            begun.append(number)
            yield b" " * (MAXIMUM_BODY - 1)
            await go_on.wait()
            yield b" "

        length = {**JSON, "Content-Length": str(MAXIMUM_BODY)}
        answer = await client.post(f"{USERS}/import", content=content(), headers=length)
        told.append(answer.status_code)

    async with running(create_app(fixed_settings(settings))) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        with anyio.fail_after(60):
            async with anyio.create_task_group() as calls:
                for number in range(2 * MOST_BODIES):
                    calls.start_soon(send, number)
                await anyio.wait_all_tasks_blocked()
                assert (len(begun), told) == (MOST_BODIES, [])
                go_on.set()
    assert told == [422] * (2 * MOST_BODIES)


@pytest.mark.anyio
async def test_a_call_that_waits_holds_neither_its_padding_nor_a_place_in_its_lane(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bcrypt_cost": 4,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    async with running(app) as client, anyio.create_task_group() as calls:
        await answer_to(client, user())
        assert await answer_to(client, waiting_call(1)) == (200, None)
        method, path, _ = waiting_call(2)
        padded = json.dumps(lease(wait=60)[2]).encode().ljust(ORDINARY)
        refused = await client.request(
            method, path, content=padded + b" ", headers=JSON
        )
        assert (refused.status_code, refused.json()["error"]) == (413, "body_too_large")
        assert refused.json()["limit"] == ORDINARY
        tracemalloc.start()
        try:
            for number in range(2, 12):
                method, path, _ = waiting_call(number)
                calls.start_soon(answer_to, client, (method, path, padded))
            with anyio.fail_after(60):
                while len(state.asking.news.room.waiting()) < 10:
                    await anyio.sleep(0.01)
            here = tracemalloc.Filter(inclusive=True, filename_pattern=bodies.__file__)
            held = tracemalloc.take_snapshot().filter_traces([here])
            assert sum(it.size for it in held.statistics("filename")) < ORDINARY
        finally:
            tracemalloc.stop()
        calls.cancel_scope.cancel()


@pytest.mark.anyio
async def test_who_sends_much_at_once_waits_for_itself_and_nobody_else(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what keeps or ends its leases does not wait for the rest of it."""
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = {"name": "other", "role": "read"}
        other = (await client.post("/api/v1/tokens", json=named)).json()["token"]
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        told: list[Answer] = []

        async def ask() -> None:
            told.append(await answer_to(client, listing("limit=1")))

        calls.start_soon(ask)
        with anyio.fail_after(60):
            renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
            renewed = ("POST", "/api/v1/leases/renew", renewal)
            assert await answer_to(client, renewed) == (200, None)
            theirs = {**JSON, "Authorization": f"Bearer {other}"}
            seen = await answer_to(client, listing("limit=1"), theirs)
            assert (seen, told) == ((200, None), [])
            under_way.end()
            while not told:
                await anyio.sleep(0.01)
        assert told == [(200, None)]


SPELLINGS = (f"Bearer {TOKEN}", f"bEaReR {TOKEN}", f"Bearer   {TOKEN}  ")


@pytest.mark.anyio
async def test_a_token_has_one_lane_and_one_part_of_the_bodies_however_it_is_spelt(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    entered: list[object] = []
    whose: list[object] = []
    turn, read = state.lanes.turn, state.bodies.read

    def noted_turn(lane: Hashable, **more: Any) -> lanes.Turn:
        entered.append(lane)
        return turn(lane, **more)

    async def noted_read(*given: Any, sender: Hashable, **more: Any) -> Any:
        whose.append(sender)
        return await read(*given, sender=sender, **more)

    monkeypatch.setattr(state.lanes, "turn", noted_turn)
    monkeypatch.setattr(state.bodies, "read", noted_read)
    async with running(app) as client:
        named = {"name": "suite", "role": "admin"}
        made = await client.post(
            "/api/v1/tokens", json=named, headers={"Authorization": SPELLINGS[0]}
        )
        token = made.json()["token"]
        first = {"Authorization": f"Bearer {token}"}
        await answer_to(client, listing("limit=1"), first)  # known from here on
        entered.clear()
        whose.clear()
        for spelling in SPELLINGS:
            spelt = {**JSON, "Authorization": spelling.replace(TOKEN, token)}
            assert (await answer_to(client, user(), spelt))[0] in {201, 400}
    assert entered == [(digest_of(token), False)] * len(SPELLINGS)
    assert whose == [uuid.UUID(made.json()["id"])] * len(SPELLINGS)


@pytest.mark.anyio
async def test_of_those_that_wait_in_line_one_too_many_is_refused_and_who_left_dropped(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(lanes, "MOST_IN_LINE", 2)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    identified: list[object] = []
    identify = state.access.identify

    async def noted(given: str | None, **more: Any) -> Any:
        identified.append(given)
        return await identify(given, **more)

    async def call(client_has_left: bool, told: list[int]) -> None:
        came = {"type": "http.request", "body": b"", "more_body": False}
        messages = [] if client_has_left else [came]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            if not client_has_left:
                await anyio.sleep_forever()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": USERS,
            "headers": headers,
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
        }
        await app(scope, receive, send)

    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers.update(bearer)
        assert await answer_to(client, listing("limit=1")) == (200, None)
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        monkeypatch.setattr(state.access, "identify", noted)
        left: list[int] = []
        stayed: list[int] = []
        calls.start_soon(call, True, left)
        calls.start_soon(call, False, stayed)
        await anyio.wait_all_tasks_blocked()
        refused = await client.get(USERS)
        assert (refused.status_code, refused.json()["error"]) == (
            *(429, "too_many_requests"),
        )
        assert refused.headers["Retry-After"] == "1"
        assert identified == []
        under_way.end()
        with anyio.fail_after(60):
            while not (left and stayed):
                await anyio.sleep(0.01)
        assert (left, stayed, identified) == ([408], [200], [TOKEN])


@pytest.mark.anyio
async def test_strangers_of_an_address_share_a_lane_and_keep_out_no_known_token(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens they make up, and whatever they call with them."""
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    parked, go_on = list[object](), anyio.Event()
    identify = state.access.identify

    async def park(given: str | None, **more: Any) -> Any:
        if given is not None and given.startswith("made-up"):
            parked.append(given)
            await go_on.wait()
        return await identify(given, **more)

    monkeypatch.setattr(state.access, "identify", park)
    renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
    renewing = ("POST", "/api/v1/leases/renew", renewal)

    def known(token: str) -> dict[str, str]:
        return {**JSON, "Authorization": f"Bearer {token}"}

    told: list[Answer] = []

    async def ask(call: Call, token: str) -> None:
        told.append(await answer_to(client, call, known(token)))

    async with running(app) as client, anyio.create_task_group() as calls:
        named = {"name": "suite", "role": "lease"}
        made = await client.post("/api/v1/tokens", json=named, headers=known(TOKEN))
        token, token_id = made.json()["token"], made.json()["id"]
        # New tokens of a whole CI are strangers until their first call.
        assert await answer_to(client, listing("limit=1"), known(token)) == (200, None)
        for number in range(4):
            calls.start_soon(ask, listing("limit=1"), f"made-up-{number}")
            calls.start_soon(ask, renewing, f"made-up-{number}-too")
        await anyio.wait_all_tasks_blocked()
        assert len(parked) == 1
        with anyio.fail_after(60):
            for call in (listing("limit=1"), renewing):
                assert await answer_to(client, call, known(token)) == (200, None)
            path = f"/api/v1/tokens/{token_id}"
            await client.delete(path, headers=known(TOKEN))
            refused = await answer_to(client, listing("limit=1"), known(token))
            assert refused == (401, "token_revoked")
            calls.start_soon(ask, listing("limit=1"), token)
            await anyio.wait_all_tasks_blocked()
            assert told == []
            go_on.set()
            while len(told) < 9:
                await anyio.sleep(0.01)
        assert {status for status, _ in told} == {401}


@pytest.mark.anyio
async def test_pages_and_numbers_wait_in_the_lane_of_who_asks_for_them(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where they are public."""
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        "pages": "public",
        "metrics": "public",
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    told: list[Answer] = []

    async def ask(path: str) -> None:
        answer = await client.get(path)
        told.append((answer.status_code, None))

    async with running(app) as client, anyio.create_task_group() as calls:
        strangers = state.lanes.turn(("127.0.0.1", False))
        await strangers.begin()
        for path in ("/openapi.json", "/docs", "/board", "/metrics"):
            calls.start_soon(ask, path)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        strangers.end()
        with anyio.fail_after(60):
            while len(told) < 4:
                await anyio.sleep(0.01)
        assert told == [(200, None)] * 4
        known = {**JSON, "Authorization": f"Bearer {TOKEN}"}
        assert await answer_to(client, listing("limit=1"), known) == (200, None)
        await strangers.begin()
        with anyio.fail_after(60):
            numbers = await client.get("/metrics", headers=known)
        assert numbers.status_code == 200
        strangers.end()


def test_the_document_is_encoded_once(tmp_path: object) -> None:
    settings = {"database_url": f"sqlite:///{tmp_path}/farm.sqlite3"}
    app = cast("DocumentedApp", create_app(fixed_settings(settings)))
    assert app.encoded_document() is app.encoded_document()
    assert json.loads(app.encoded_document()) == app.openapi()


@pytest.mark.anyio
async def test_a_known_token_is_counted_before_its_turn(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        "max_requests_per_second": 1,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    state.throttle.clock = FakeClock()
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert await answer_to(client, listing("limit=1")) == (200, None)
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        for _ in range(9):
            calls.start_soon(answer_to, client, listing("limit=1"))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60):
            refused = await answer_to(client, listing("limit=1"))
        assert refused == (429, "too_many_requests")
        under_way.end()


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def waiting_call(number: int, **changes: Any) -> Call:
    return "PUT", f"/api/v1/leases/{uuid.UUID(int=number)}", lease(**changes)[2]


@pytest.mark.anyio
async def test_a_token_waits_and_sends_no_more_than_its_part(tmp_path: object) -> None:
    """Others go on meanwhile, and no lease is lost for it."""
    settings = {
        "database_url": f"sqlite:///{tmp_path}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        "bcrypt_cost": 4,
        "max_waiting_per_token": 1,
        "max_requests_per_second": 1,
    }
    app = create_app(fixed_settings(settings))
    state: AppState = app.state.botfarm
    clock = FakeClock()
    state.throttle.clock = clock
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = {"name": "other", "role": "lease"}
        other = (await client.post("/api/v1/tokens", json=named)).json()["token"]
        await answer_to(client, user())
        assert await answer_to(client, waiting_call(1)) == (200, None)
        calls.start_soon(answer_to, client, waiting_call(2, wait=60))
        await state.asking.news.room.until_occupied()
        refused = await client.put(
            f"/api/v1/leases/{uuid.UUID(int=3)}", json={"wants": [WANT], "wait": 60}
        )
        assert (refused.status_code, refused.json()["error"]) == (
            *(429, "too_many_waiting"),
        )
        assert refused.headers["Retry-After"] == "1"
        theirs = {**JSON, "Authorization": f"Bearer {other}"}
        short = waiting_call(4, wait=0.01)
        assert await answer_to(client, short, theirs) == (202, None)
        # Five requests were sent so far, and ten may be in a row.
        told = [await answer_to(client, listing("limit=1")) for _ in range(6)]
        assert told == [(200, None)] * 5 + [(429, "too_many_requests")]
        # What leases depend on has as much again, and then an end, too.
        renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
        renewed = ("POST", "/api/v1/leases/renew", renewal)
        ending = ("DELETE", f"/api/v1/leases/{uuid.UUID(int=1)}", None)
        of_run = ("POST", "/api/v1/leases/release", {"run_id": "over"})
        of_user = ("POST", f"{USERS}/{uuid.UUID(int=2)}/release", None)
        told = [await answer_to(client, it) for it in (renewed, ending, of_run) * 3]
        assert told == [(200, None), (204, None), (200, None)] * 3
        assert await answer_to(client, of_user) == (404, "user_not_found")
        for method, path, body in (renewed, ending, of_run, of_user):
            refused = await client.request(method, path, json=body)
            assert (refused.status_code, refused.json()["error"]) == (
                *(429, "too_many_requests"),
            )
            assert refused.headers["Retry-After"] == "1"
        assert await answer_to(client, listing("limit=1"), theirs) == (200, None)
        clock.now += 1
        assert await answer_to(client, renewed) == (200, None)
        assert await answer_to(client, listing("limit=1")) == (429, "too_many_requests")
        clock.now += 11
        assert await answer_to(client, listing("limit=1")) == (200, None)

"""What is broken is answered or closed, and who sends or reads nothing stops nobody."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from support.servers import TOKEN, ServerProcess

from botfarm_server.connections import MAXIMUM_HEAD
from botfarm_server.domain.tokens import new_token

from .calls import LEASE, MAXIMUM_BODY, USERS, bearing, lease, user


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
UPGRADE = LAST_HEALTH.replace(
    b"Connection: close", b"Connection: close, upgrade\r\nUpgrade: websocket"
)
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
    "a length of thousands of digits": (
        (head(AS_JSON, LAST, f"Content-Length: {'0' * 5000}2"), b"{}"),
        b"422",
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
    "an upgrade": ((UPGRADE,), b"200"),
    "another upgrade": ((UPGRADE,), b"200"),
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
    # Each needs no token, and would else fill the log.
    for once in ("Invalid HTTP request received.", "Unsupported upgrade request."):
        assert len([line for line in server.log if once in line]) == 1


HURRIED = """
from botfarm_server import serving
from botfarm_server.cli.main import run

serving.GRACE = 0
run()
"""
"""`botfarm serve` that does not wait for the calls that are under way at its end."""


def test_a_call_that_is_under_way_when_a_server_has_to_end_is_told_to_ask_again(
    tmp_path: Path,
) -> None:
    database, program = f"sqlite:///{tmp_path}/farm.sqlite3", ("-c", HURRIED)
    guarded = {"BOTFARM_BOOTSTRAP_TOKEN": TOKEN}
    with ServerProcess(database, guarded, program=program) as server:
        server.wait_until_ready()
        with connect(server) as connection:
            expecting = head(AS_JSON, "Content-Length: 9", "Expect: 100-continue")
            connection.sendall(expecting)
            assert b"100 Continue" in connection.recv(100)  # its body is waited for
            server.stop()
            answer = received_all(connection)
    assert (answer[9:12], b'"shutting_down"' in answer) == (b"503", True)
    assert not [line for line in server.log if "Traceback" in line]


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
        method, path, wanted = lease(2, wait=60)
        body = json.dumps(wanted).encode()
        sent = head(AS_JSON, f"Content-Length: {len(body)}").replace(
            f"POST {USERS}".encode(), f"{method} {path}".encode()
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
            others = [connected(it) for it in (b"", partial) * 20]
            # Who comes later is let in later: the others are there by now.
            with connect(crowded) as newcomer:
                newcomer.sendall(HEALTH)
                assert newcomer.recv(12) == b"HTTP/1.1 200"
            rests = [received_all(it) for it in (*idle, *others[:5])]
            assert not [it for it in rests if b"408" in it]
            assert client.delete(LEASE).status_code == 204
            assert waiting.recv(12) == b"HTTP/1.1 200"


FLOODED = """
from botfarm_server import connections
from botfarm_server.cli.main import run
from botfarm_server.services import lanes

connections.MOST_IDLE = 8
lanes.STRANGERS_AT_ONCE = 1
lanes.REST = 3600
run()
"""
"""`botfarm serve` that keeps few strangers, and answers one of them."""


def test_calls_of_strangers_that_wait_are_ended_for_newcomers(tmp_path: Path) -> None:
    """Whatever they call. A right token is none of them, were it sent here or not."""
    database = f"sqlite:///{tmp_path}/farm.sqlite3"
    guarded = {"BOTFARM_BOOTSTRAP_TOKEN": TOKEN}
    with (
        ServerProcess(database, guarded, program=("-c", FLOODED)) as server,
        httpx.Client(base_url=server.url, headers=bearing(TOKEN), timeout=60) as client,
        ExitStack() as stack,
    ):
        while client.get("/ready").status_code != 200:
            pass
        named = {"name": "suite", "role": "lease"}
        made = client.post("/api/v1/tokens", json=named).json()["token"]
        renewing = head().replace(USERS.encode(), b"/api/v1/leases/renew")
        strangers = []
        for _ in range(20):
            wrong = renewing.replace(TOKEN.encode(), new_token("lease").encode())
            strangers.append(stack.enter_context(connect(server)))
            strangers[-1].sendall(wrong)
        ended = [received_all(it) for it in strangers[:12]]
        assert sum(b"401" in it for it in ended) <= 1
        assert client.get(USERS).status_code == 200
        newcomer = httpx.get(f"{server.url}{USERS}", headers=bearing(made), timeout=60)
        assert newcomer.status_code == 200


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

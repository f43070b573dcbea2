"""Waits that the server gave up while it could not be asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from uuid import UUID

import pytest
from support.stage import held, refusal

from pytest_botfarm import AsyncBotfarmClient, BotfarmClient, Want
from pytest_botfarm.embedded import Endpoint
from pytest_botfarm.holding import Holding, Identity
from pytest_botfarm.masking import Masker
from pytest_botfarm.session import LeaseSession
from pytest_botfarm.settings import Settings


class AfterAnOutage(HTTPServer):
    """Has given up the first lease that it is asked for, and grants the next."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.told: list[tuple[str, UUID]] = []


class _Handler(BaseHTTPRequestHandler):
    server: AfterAnOutage

    def do_PUT(self) -> None:
        lease_id = self._told()
        if len(self.server.told) == 1:
            self._answer(410, refusal("lease_ended", state="abandoned", users=[]))
        else:
            self._answer(200, held(lease_id))

    def do_DELETE(self) -> None:
        self._told()
        self._answer(204)

    def _told(self) -> UUID:
        self.rfile.read(int(self.headers["content-length"]))
        lease_id = UUID(self.path.rpartition("/")[2])
        self.server.told.append((self.command, lease_id))
        return lease_id

    def _answer(self, status: int, body: object = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Botfarm-Protocol", "1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[AfterAnOutage]:
    with AfterAnOutage() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def assert_leased_anew(server: AfterAnOutage) -> None:
    (asked, first), (again, second), (given_back, last) = server.told
    assert (asked, again, given_back) == ("PUT", "PUT", "DELETE")
    assert first != second == last


def test_a_block_has_its_account_all_the_same(server: AfterAnOutage) -> None:
    with BotfarmClient(server.url, token="").lease("stage", "regular") as user:
        assert user.login == "alice@example.com"
    assert_leased_anew(server)


def test_so_has_an_asynchronous_block(server: AfterAnOutage) -> None:
    async def lease() -> str:
        client = AsyncBotfarmClient(server.url, token="")
        async with client.lease("stage", "regular") as user:
            return user.login

    assert asyncio.run(lease()) == "alice@example.com"
    assert_leased_anew(server)


@pytest.fixture
def session(server: AfterAnOutage) -> Iterator[LeaseSession]:
    settings = Settings(server.url, None, "stage", "regular", wait=5, ttl=60)
    session = LeaseSession(
        Identity(),
        settings,
        lambda: Endpoint(server.url, None),
        masker=Masker(),
        say=lambda _: None,
        limit=lambda: None,
    )
    with closing(session):
        yield session


def test_so_has_a_test(server: AfterAnOutage, session: LeaseSession) -> None:
    holding = Holding([Want("stage", "regular")])
    session.acquire(holding, wait=5, test_id="test_it")
    assert [user.login for user in holding.users] == ["alice@example.com"]
    session.release(holding, outcome="passed", clean=True)
    assert not session.is_unsettled
    assert_leased_anew(server)

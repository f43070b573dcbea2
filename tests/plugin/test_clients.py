"""The synchronous and the asynchronous client over a real server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from threading import Thread
from uuid import uuid4

import pytest
from support.farm import Farm

from pytest_botfarm.client.asynchronous import AsyncClient
from pytest_botfarm.client.errors import (
    AcquireTimeoutError,
    LeaseEndedError,
    ServerNotReachableError,
)
from pytest_botfarm.client.models import Holder, Lease, Lost, Renewed, Want
from pytest_botfarm.client.sync import Client

EXCHANGES = 60


@pytest.fixture
def client(farm: Farm) -> Iterator[Client]:
    client = Client(farm.url, farm.token)
    yield client
    client.close()


def test_a_lease_is_taken_renewed_and_given_back(farm: Farm, client: Client) -> None:
    want = Want("stage", farm.add_pool("alice"))
    protocol, lease_id = client.protocol, uuid4()
    holder = Holder(run_id="run", worker_id="gw0", test_id="test_it")
    lease = client.run(protocol.acquire(lease_id, [want], holder, ttl=60, wait=0))
    assert [user.password for user in lease.users] == ["password of alice"]
    again = client.run(protocol.acquire(lease_id, [want], holder, ttl=60, wait=0))
    assert again.users == lease.users
    renewal = client.run(protocol.renew({lease_id: lease.fence}))[lease_id]
    assert isinstance(renewal, Renewed)
    assert renewal.expires_in == pytest.approx(60, abs=1)
    for _ in range(2):
        client.run(protocol.release(lease_id, fence=lease.fence, outcome="passed"))
    lost = client.run(protocol.renew({lease_id: lease.fence}))[lease_id]
    assert isinstance(lost, Lost)
    assert lost.state == "released"


def test_a_client_that_finds_nobody_asks_where_the_server_is(farm: Farm) -> None:
    client = Client("http://127.0.0.1:9", farm.token, locate=lambda: farm.url)
    lease_id = uuid4()
    lost = client.run(client.protocol.renew({lease_id: 1}))[lease_id]
    client.close()
    assert isinstance(lost, Lost)
    assert client.url == farm.url


def test_a_wait_that_ends_leaves_the_queue(farm: Farm, client: Client) -> None:
    domain = farm.add_pool("alice")
    protocol = client.protocol
    wants, holder = [Want("stage", domain)], Holder(test_id="test_it")
    first = uuid4()
    client.run(protocol.acquire(first, wants, holder, ttl=60, wait=0))
    with pytest.raises(AcquireTimeoutError, match="by this test itself"):
        client.run(protocol.acquire(uuid4(), wants, holder, ttl=60, wait=0.2))
    other = Holder(test_id="test_another")
    with pytest.raises(AcquireTimeoutError, match="by test_it"):
        client.run(protocol.acquire(uuid4(), wants, other, ttl=60, wait=0))
    assert [lease["id"] for lease in farm.leases(domain)] == [str(first)]


def test_a_broken_lease_cannot_be_given_back(farm: Farm, client: Client) -> None:
    domain = farm.add_pool("alice")
    wants, lease_id = [Want("stage", domain)], uuid4()
    client.run(client.protocol.acquire(lease_id, wants, Holder(), ttl=60, wait=0))
    farm.http.post(f"/api/v1/leases/{lease_id}/break", json={"reason": "a demo"})
    with pytest.raises(LeaseEndedError, match="a demo") as caught:
        client.run(client.protocol.release(lease_id))
    assert [user.login for user in caught.value.users] == [f"alice@{domain}"]


def test_the_asynchronous_client_holds_the_same_conversations(farm: Farm) -> None:
    domain = farm.add_pool("alice", "bob")

    async def lease(client: AsyncClient) -> Lease:
        protocol = client.protocol
        want, holder = Want("stage", domain), Holder(test_id="test_it")
        lease = await client.run(
            protocol.acquire(uuid4(), [want], holder, ttl=60, wait=20)
        )
        await client.run(protocol.release(lease.id, fence=lease.fence))
        return lease

    async def leases() -> list[Lease]:
        client = AsyncClient(farm.url, farm.token)
        try:
            return await asyncio.gather(*(lease(client) for _ in range(10)))
        finally:
            await client.aclose()

    assert len({lease.id for lease in asyncio.run(leases())}) == 10
    assert farm.leases(domain) == []


def test_the_asynchronous_client_repeats_a_call_until_it_gives_up() -> None:
    async def release() -> None:
        client = AsyncClient("http://127.0.0.1:9")
        try:
            await client.run(client.protocol.release(uuid4()))
        finally:
            await client.aclose()

    with pytest.raises(ServerNotReachableError):
        asyncio.run(release())


def exchange(client: Client, want: Want, worker: str) -> None:
    """Lease many times, and check that each answer is one's own."""
    for _ in range(EXCHANGES):
        lease_id, holder = uuid4(), Holder(run_id=worker, worker_id=worker)
        lease = client.run(
            client.protocol.acquire(lease_id, [want], holder, ttl=60, wait=20)
        )
        (user,) = lease.users
        assert user.login.startswith(worker)
        client.run(client.protocol.release(lease_id, fence=lease.fence))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_both_sides_of_a_fork_get_their_own_answers(farm: Farm, client: Client) -> None:
    """The parent's thread is in the middle of its calls when the child begins."""
    parents, childs = farm.add_pool("parent"), farm.add_pool("child")
    failures: list[BaseException] = []

    def parent() -> None:
        try:
            exchange(client, Want("stage", parents), "parent")
        except BaseException as failure:  # noqa: BLE001  # told by the main thread
            failures.append(failure)

    exchange(client, Want("stage", childs), "child")  # opens the connection
    thread = Thread(target=parent)
    thread.start()
    child = os.fork()
    if child == 0:
        try:
            exchange(client, Want("stage", childs), "child")
        except BaseException:  # noqa: BLE001  # nothing of pytest may run here
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    thread.join()
    assert failures == []
    assert code == 0


def test_a_guard_of_the_network_lets_the_client_through_to_a_proxy(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The farm's own server takes requests that are made for a proxy."""

    def forbidden(*arguments: object, **options: object) -> None:
        raise RuntimeError

    domain = farm.add_pool("alice")
    monkeypatch.setenv("http_proxy", farm.url)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    client = Client("http://botfarm.example", farm.token)
    conversation = client.protocol.acquire(
        uuid4(), [Want("stage", domain)], Holder(), ttl=60, wait=0
    )
    assert client.run(conversation).users
    client.close()


def test_a_proxy_of_the_environment_is_used_but_never_for_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pytest_botfarm.client.http import proxy_for  # noqa: PLC0415  # reads nothing

    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "internal.example.com")
    assert proxy_for("https://farm.example.com") == "http://proxy:3128"
    assert proxy_for("https://internal.example.com") is None
    assert proxy_for("http://127.0.0.1:8000") is None
    assert proxy_for("http://localhost:8000") is None

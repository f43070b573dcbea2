"""Leases outside pytest, through the public clients."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
from support.farm import DEADLINE, Farm, eventually

from pytest_botfarm import (
    AcquireTimeoutError,
    AsyncBotfarmClient,
    BotfarmClient,
    BotfarmError,
    LeaseLostError,
    NoSuchPoolError,
    Want,
)


@pytest.fixture
def client(farm: Farm) -> Iterator[BotfarmClient]:
    with BotfarmClient(farm.url, token=farm.token, name="a script") as client:
        yield client


def let_a_knot_be_found(farm: Farm, pool: str, *, leases: int) -> None:
    """Wait until a pool has so many leases, and the server has looked for knots."""
    eventually(lambda: len(farm.leases(pool)) == leases, f"{leases} leases")
    body = {
        "wants": [{"env": "stage", "domain": farm.add_pool("knot")}],
        "wait": DEADLINE,
        "holder": {"run_id": pool, "worker_id": "gw0"},
    }
    held, waits = (f"/api/v1/leases/{uuid.uuid4()}" for _ in range(2))
    farm.http.put(held, json=body).raise_for_status()
    refused = farm.http.put(waits, json=body, timeout=2 * DEADLINE)
    assert refused.json()["error"] == "deadlock"


def test_an_account_is_leased_for_a_block(farm: Farm, client: BotfarmClient) -> None:
    pool = farm.add_pool("alice")
    with client.lease("stage", pool) as user:
        assert user.login == f"alice@{pool}"
        assert user.password == "password of alice"
        (lease,) = farm.leases(pool)
        assert lease["holder"]["test_id"] == "a script"
        in_vain = pytest.raises(AcquireTimeoutError, match=r"longer \(wait=…\), add")
        with in_vain, client.lease("stage", pool, wait=0):
            pass
    (released, _) = farm.leases(pool, state="ended")
    assert (released["state"], released["outcome"]) == ("released", "passed")


def test_a_block_that_raises_gives_its_account_back_as_dirty(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    with pytest.raises(ZeroDivisionError), client.lease("stage", pool):
        raise ZeroDivisionError
    with client.lease("stage", pool) as user:
        assert user.dirty
    assert farm.outcomes(pool) == ["failed", "passed"]


def test_several_accounts_are_leased_together(
    farm: Farm, client: BotfarmClient
) -> None:
    one, two = farm.add_pool("alice"), farm.add_pool("bob", "carol")
    with client.lease_all(Want("stage", one), Want("stage", two, count=2)) as users:
        assert users[0].domain == one
        assert {user.domain for user in users[1:]} == {two}
        assert len(farm.leases(one)) == 1
    assert farm.leases(one) == []


def test_what_cannot_be_had_is_an_error_of_its_own(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    with pytest.raises(NoSuchPoolError), client.lease("prod", pool):
        pass


def test_a_lease_outlives_its_ttl_while_the_block_goes_on(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    with client.lease("stage", pool, ttl=5):
        time.sleep(7)
        assert len(farm.leases(pool)) == 1
    assert farm.outcomes(pool) == ["passed"]


def test_a_lost_lease_is_an_error_at_the_end_of_the_block(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")

    def lose() -> None:
        with client.lease("stage", pool):
            (lease,) = farm.leases(pool)
            path = f"/api/v1/leases/{lease['id']}/break"
            farm.http.post(path, json={"reason": "cleaning up"}).raise_for_status()

    with pytest.raises(LeaseLostError, match="cleaning up"):
        lose()


def test_without_a_url_the_environment_names_the_server(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BotfarmError, match="set BOTFARM_URL"):
        BotfarmClient()
    monkeypatch.setenv("BOTFARM_URL", farm.url)
    monkeypatch.setenv("BOTFARM_TOKEN", farm.token)
    pool = farm.add_pool("alice")
    with BotfarmClient().lease("stage", pool) as user:
        assert user.login


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_the_same_asynchronously(farm: Farm, library: str) -> None:
    pool = farm.add_pool("alice", "bob")

    async def lease() -> None:
        async with AsyncBotfarmClient(farm.url, token=farm.token) as client:
            async with client.lease("stage", pool) as user:
                assert user.password.startswith("password of")
                assert len(farm.leases(pool)) == 1
            async with client.lease_all(Want("stage", pool, count=2)) as users:
                assert len(users) == 2
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(lease()) if library == "asyncio" else trio.run(lease)
    assert farm.outcomes(pool) == ["passed", "failed"]


@pytest.mark.parametrize("held", [True, False])
def test_a_block_that_is_cancelled_leaves_nothing_behind(
    farm: Farm, held: bool
) -> None:
    pool = farm.add_pool("alice")
    other = None if held else farm.hold(pool)

    async def lease() -> None:
        client = AsyncBotfarmClient(farm.url, token=farm.token)
        async with client.lease("stage", pool):
            await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.create_task(lease())
        while len(farm.leases(pool)) < (1 if held else 2):
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert [lease["id"] for lease in farm.leases(pool)] == ([other] if other else [])


def test_a_thread_that_waits_for_another_of_its_client_is_no_knot(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")

    def lease() -> str:
        with client.lease("stage", pool) as user:
            return user.login

    with ThreadPoolExecutor() as threads:
        with client.lease("stage", pool):
            asked = [threads.submit(lease) for _ in range(2)]
            let_a_knot_be_found(farm, pool, leases=3)
        assert [it.result() for it in asked] == [f"alice@{pool}"] * 2


def test_a_task_that_waits_for_another_of_its_client_is_no_knot(farm: Farm) -> None:
    pool = farm.add_pool("alice")

    async def lease(client: AsyncBotfarmClient) -> str:
        async with client.lease("stage", pool) as user:
            return user.login

    async def lease_in_tasks() -> list[str]:
        async with AsyncBotfarmClient(farm.url, token=farm.token) as client:
            async with client.lease("stage", pool):
                asked = [asyncio.create_task(lease(client)) for _ in range(2)]
                await asyncio.to_thread(let_a_knot_be_found, farm, pool, leases=3)
            return await asyncio.gather(*asked)

    assert asyncio.run(lease_in_tasks()) == [f"alice@{pool}"] * 2


def test_a_program_needs_no_pytest_and_ends_without_warnings(
    farm: Farm, tmp_path: Path
) -> None:
    pool = farm.add_pool("alice")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from pytest_botfarm import BotfarmClient\n"
        f"with BotfarmClient({farm.url!r}).lease('stage', {pool!r}) as user:\n"
        "    print(user.login, flush=True)\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "assert 'pytest' not in sys.modules\n"
    )
    environment = {**os.environ, "BOTFARM_TOKEN": farm.token}
    command = [sys.executable, "-W", "error", "-X", "dev", str(program)]
    ended = subprocess.run(
        [*command, "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == (f"alice@{pool}\n", "")
    assert farm.outcomes(pool) == ["passed"]

    with subprocess.Popen(
        [*command, "60"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
    eventually(lambda: farm.leases(pool) == [], "Ctrl-C gives the account back")


def test_a_broken_account_can_be_taken_out_of_rotation(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice", "bob")
    with client.lease("stage", pool) as user:
        user.quarantine("locked out")
    users = farm.http.get("/api/v1/users/", params={"domain": pool}).json()
    (broken,) = (user for user in users if user["state"] == "quarantined")
    assert (broken["login"], broken["quarantined_by"]) == (user.login, "a script")

"""One test signs in, and the others go on with the state that it left."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import trio
from support.accounts import account
from support.farm import DOMAINS, Farm
from support.servers import TOKEN, ServerProcess
from support.suites import Suite

from pytest_botfarm import AsyncBotfarmClient, BotfarmClient, BotUser
from pytest_botfarm.client.errors import InvalidRequestError, LeaseEndedError

STATES: list[Any] = [
    "a token",
    '{"looks": "like JSON"}',
    {"cookies": [{"name": "session", "value": "é\x00"}], "origins": []},
    ["a", 1, None],
]


@pytest.fixture
def client(farm: Farm) -> Iterator[BotfarmClient]:
    with BotfarmClient(farm.url, token=farm.token, name="a script") as client:
        yield client


@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_the_next_holder_gets_a_state_as_it_was_saved(
    farm: Farm, client: BotfarmClient, state: Any
) -> None:
    pool = farm.add_pool("alice")
    with client.lease("stage", pool) as user:
        assert user.state is None
        user.save_state(state)
        assert user.state == state
    with client.lease("stage", pool) as user:
        assert user.state == state
        user.drop_state()
        assert user.state is None
    with client.lease("stage", pool) as user:
        assert user.state is None


def test_a_state_of_another_kind_of_client_is_text(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    for text in ("a token", "42"):
        with client.lease("stage", pool) as user:
            (lease,) = farm.leases(pool)
            path = f"/api/v1/leases/{lease['id']}/users/{user.id}/state"
            body = {"state": text, "fence": lease["fence"]}
            farm.http.put(path, json=body).raise_for_status()
        with client.lease("stage", pool) as user:
            assert user.state == text


def test_of_several_holders_and_their_threads_one_signs_in(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    logins: list[str] = []

    def sign_in(user: BotUser) -> dict[str, Any]:
        logins.append(user.login)
        return {"expires": (1, 2)}

    def together(user: BotUser, all_here: Barrier) -> dict[str, Any]:
        all_here.wait()
        return user.login_once(sign_in)

    for _ in range(2):
        with client.lease("stage", pool) as user, ThreadPoolExecutor(4) as threads:
            states = list(threads.map(together, [user] * 4, [Barrier(4)] * 4))
            # Whoever signs in sees what the others see: JSON has no tuples.
            assert states == [{"expires": [1, 2]}] * 4
    assert logins == [f"alice@{pool}"]


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_of_several_tasks_one_signs_in(farm: Farm, library: str) -> None:
    pool = farm.add_pool("alice")
    logins: list[str] = []
    states: list[str] = []

    async def sign_in(user: BotUser) -> str:
        logins.append(user.login)
        for _ in range(9):  # all others have asked by then
            await (asyncio if library == "asyncio" else trio).sleep(0)
        if len(logins) == 1:
            raise ZeroDivisionError
        return "a token"

    async def ask(user: BotUser) -> None:
        try:
            states.append(await user.login_once_async(sign_in))
        except ZeroDivisionError:
            states.append("failed")

    async def lease() -> None:
        async with (
            AsyncBotfarmClient(farm.url, token=farm.token) as client,
            client.lease("stage", pool) as user,
        ):
            if library == "asyncio":
                await asyncio.gather(*(ask(user) for _ in range(3)))
            else:
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(ask, user)
            assert user.state == "a token"

    asyncio.run(lease()) if library == "asyncio" else trio.run(lease)
    assert sorted(states) == ["a token", "a token", "failed"]
    assert len(logins) == 2


def test_what_is_wrong_with_a_state_or_its_lease_is_an_error(
    farm: Farm, client: BotfarmClient
) -> None:
    pool = farm.add_pool("alice")
    with client.lease("stage", pool) as user:
        with pytest.raises(TypeError, match="and not NoneType"):
            user.login_once(lambda _: None)  # type: ignore[type-var]
        with pytest.raises(TypeError, match="is what JSON can tell: Out of range"):
            user.save_state({"not a number": math.nan})
        user.save_state("kept")
        with pytest.raises(InvalidRequestError, match="262144 bytes"):
            user.save_state("x" * 262_144)
        assert user.state == "kept"
    with pytest.raises(LeaseEndedError) as caught:
        user.save_state("too late")
    assert len(caught.traceback) < 5  # none of them shows what it was


def test_a_state_that_cannot_be_kept_is_not_shown(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import datetime
        import pytest

        SECRET = "".join(map(chr, range(97, 113)))
        AROUND = []
        AROUND.append(AROUND)

        @pytest.mark.parametrize("number", range(5))
        def test_it(bot_user, number):
            user = bot_user()
            user.save_state(
                [
                    SECRET.encode(),
                    {SECRET},
                    {"cookie": SECRET, "at": datetime.date.today()},
                    (SECRET,),
                    AROUND,
                ][number]
            )

        async def sign_in(user):
            return SECRET

        def test_coroutine(bot_user):
            bot_user().login_once(sign_in)
        """
    )
    for style in ("auto", "long", "short"):
        result = suite.run("--tb", style, "--showlocals")
        result.assert_outcomes(failed=6)
        assert "abcdefghijklmnop" not in result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*TypeError: the state of a login is text, *, and not bytes",
            "*TypeError: the state of a login is text, *, and not set",
            "*TypeError: the state of a login *: Object of type date is not *",
            "*TypeError: the state of a login is text, *, and not tuple",
            "*TypeError: the state of a login *: Circular reference detected",
            "*TypeError: * is a coroutine function: await login_once_async*",
        ]
    )


def test_a_login_counts_for_its_test_where_the_server_cannot_be_reached() -> None:
    notes: list[str] = []
    user = account(notes.append)
    assert user.login_once(lambda user: f"a token of {user.login}", expires_in=60) == (
        "a token of alice@example.com"
    )
    assert user.login_once(lambda _: "another") == "a token of alice@example.com"
    (note,) = notes
    assert note.startswith("logins are not kept for the next test: The Botfarm server")
    assert "a token" not in note


SIGNING_IN = """
    import pytest

    logins = []

    def sign_in(user):
        logins.append(user.login)
        return {"token": f"token {len(logins)} of {user.login}"}

    @pytest.mark.parametrize("number", range(3))
    def test_it(bot_user, number):
        bot_user().login_once(sign_in)
        print("logins:", len(logins))
    """


def test_a_suite_signs_in_once_for_each_account_and_shows_no_state(
    suite: Suite, pool: str
) -> None:
    suite.write(
        SIGNING_IN
        + """
    def test_fails(bot_user):
        user, other = bot_user(), bot_user()
        user.login_once(sign_in), other.login_once(sign_in)
        assert user == other

    def test_is_refused(bot_user):
        user = bot_user()
        user.save_state([user.login, "of alice" * 40_000])
    """
    )
    result = suite.run("-vv", "--showlocals", "-rP")
    result.assert_outcomes(passed=3, failed=2)
    printed = result.stdout.str()
    assert printed.count("logins: ") == 3
    assert "logins: 3" not in printed
    assert "BotUser(" in printed
    assert "InvalidRequestError: " in printed
    assert not re.search(r"token \d of|of aliceof", printed)


def test_a_server_without_a_key_keeps_no_logins_and_the_summary_says_so_once(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        "BOTFARM_DOMAINS": DOMAINS,
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        "BOTFARM_SECRET_KEYS": "",
    }
    suite.write(SIGNING_IN)
    with ServerProcess(f"sqlite:///{tmp_path}/farm.sqlite3", environment) as server:
        farm = Farm(server.wait_until_ready().url, TOKEN)
        for name, setting in (
            ("BOTFARM_URL", farm.url),
            ("BOTFARM_TOKEN", TOKEN),
            ("BOTFARM_ENV", "stage"),
            ("BOTFARM_DOMAIN", farm.add_pool("alice")),
        ):
            monkeypatch.setenv(name, setting)
        result = suite.run("-rP")
        farm.http.close()
    result.assert_outcomes(passed=3)
    printed = result.stdout.str()
    assert "logins: 3" in printed
    assert printed.count("logins are not kept for the next test") == 1
    assert "BOTFARM_SECRET_KEYS" in printed

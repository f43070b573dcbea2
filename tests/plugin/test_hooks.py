"""What a suite's hooks hear of its accounts, and what becomes of what they do."""

from __future__ import annotations

import re
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from support.farm import Farm, Json, running_farm
from support.suites import Suite

from pytest_botfarm import BotfarmError, Want
from pytest_botfarm.embedded import Endpoint
from pytest_botfarm.holding import Holding, Identity
from pytest_botfarm.masking import Masker
from pytest_botfarm.session import LeaseSession
from pytest_botfarm.settings import Settings


def users_of(farm: Farm, domain: str) -> list[Json]:
    answer = farm.http.get("/api/v1/users/", params={"domain": domain})
    users: list[Json] = answer.raise_for_status().json()
    return users


def leave_dirty(farm: Farm, domain: str) -> None:
    """Let the last holder of all users of a pool end without a word of cleanness."""
    lease_id = farm.hold(domain, count=len(users_of(farm, domain)))
    answer = farm.http.request(
        "DELETE", f"/api/v1/leases/{lease_id}", json={"clean": False}
    )
    answer.raise_for_status()


def test_hooks_act_on_acquire_and_on_release_with_the_outcome(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import os
        import httpx

        def note(*facts):
            with open("heard", "a") as file:
                print(*facts, file=file)

        def state_of(user):
            headers = {"Authorization": "Bearer " + os.environ["BOTFARM_TOKEN"]}
            url = f"{os.environ['BOTFARM_URL']}/api/v1/users/{user.id}"
            return httpx.get(url, headers=headers).json()["state"]

        def pytest_botfarm_make_user(want):
            note("no limit was set")

        def pytest_botfarm_acquired(user, nodeid):
            note("acquired", nodeid, state_of(user))
            if "never_begins" in nodeid:
                raise ValueError("no inbox")

        def pytest_botfarm_releasing(user, nodeid, outcome):
            note("releasing", nodeid, outcome, state_of(user))
            if "cannot_end" in nodeid:
                raise ValueError("cannot log out " + user.password)
        """,
        "conftest",
    )
    suite.write(
        """
        import pytest

        def test_fails(bot_user):
            bot_user()
            assert False

        @pytest.mark.bot_user
        def test_never_begins():
            pass

        def test_cannot_end(bot_user):
            bot_user()

        def test_nobody(bot_user):
            bot_user(labels={"role": "admin"})

        def test_all_were_given_back(module_bot_user):
            module_bot_user(), module_bot_user(wait=5)
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=2, passed=2, errors=2)
    heard = (suite.pytester.path / "heard").read_text().splitlines()
    file = "test_suite.py"
    assert heard == [
        f"acquired {file}::test_fails held",
        f"releasing {file}::test_fails failed held",
        f"acquired {file}::test_never_begins held",
        f"releasing {file}::test_never_begins error held",
        f"acquired {file}::test_cannot_end held",
        f"releasing {file}::test_cannot_end passed held",
        *[f"acquired {file} held"] * 2,
        *[f"releasing {file} passed held"] * 2,
    ]
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_never_begins*",
            "E * ValueError: no inbox",
            "*ERROR at teardown of test_cannot_end*",
            "pytest_botfarm_releasing failed for *: ValueError: * out [*][*][*] (conf*",
            "this suite can make accounts *: --botfarm-pool-limit says up to how *",
        ]
    )
    assert not re.search(r"password of|pytest_botfarm/", result.stdout.str())
    assert farm.leases(pool) == []


def test_a_dirty_account_is_cleaned_first_and_one_that_cannot_be_is_taken_out(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """The accounts without a label are granted first, and alice cannot be cleaned."""
    leave_dirty(farm, pool)
    for login in ("carol", "dave"):
        farm.add_user(login, pool, labels={"plan": "free"})
    other = farm.add_pool("alice")
    leave_dirty(farm, other)
    farm.add_user("erin", other, labels={"plan": "free"})
    suite.write(
        """
        def pytest_botfarm_clean(user):
            assert user.dirty
            with open("cleaned", "a") as file:
                print(user.login, file=file)
            if user.login.startswith("alice"):
                raise ValueError(f"cannot reset {user.password}")
        """,
        "conftest",
    )
    suite.write(
        f"""
        import pytest

        def test_one(bot_user):
            user = bot_user(domain="{other}")
            assert (user.login, user.dirty) == ("erin@{other}", False)

        @pytest.mark.bot_user(count=2)
        def test_two(bot_user):
            logins = [user.login.partition("@")[0] for user in bot_user.leased]
            assert "alice" not in logins and "bob" in logins
            assert not any(user.dirty for user in bot_user.leased)
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2)
    told = (
        "alice@{} was put in quarantine by test_suite.py::test_{}: cleaning failed: *"
    )
    result.stdout.fnmatch_lines([told.format(other, "one"), told.format(pool, "two")])
    for domain in (pool, other):
        [alice] = (it for it in users_of(farm, domain) if it["state"] == "quarantined")
        assert alice["login"] == f"alice@{domain}"
        reason = "cleaning failed: ValueError: cannot reset ***"
        assert (alice["quarantine_reason"], alice["dirty"]) == (reason, True)
    cleaned = (suite.pytester.path / "cleaned").read_text().splitlines()
    assert cleaned.count(f"bob@{pool}") == 2  # given back with alice, as not clean
    assert not any(it["dirty"] for it in users_of(farm, pool) if it["state"] == "free")


def test_accounts_are_made_up_to_the_limit_by_all_workers_together(
    suite: Suite, farm: Farm, pool: str
) -> None:
    empty = farm.add_pool()
    suite.write(
        """
        import os, pathlib, uuid
        from pytest_botfarm import NewUser

        def pytest_botfarm_make_user(want):
            assert (want.env, want.count) == ("stage", 1)
            login = f"made-{uuid.uuid4()}"
            pathlib.Path(login).touch()
            return NewUser(login, password="made up", secrets={"pin": "1234"})
        """,
        "conftest",
    )
    suite.write(
        f"""
        import pathlib, time
        import pytest
        from pytest_botfarm import NoSuchPoolError

        @pytest.mark.parametrize("number", range(8))
        @pytest.mark.bot_user(domain="{empty}", count=2, labels={{"plan": "free"}})
        def test_it(bot_user, number):
            for user in bot_user.leased:
                assert (user.password, user.secrets["pin"]) == ("made up", "1234")
            while len(list(pathlib.Path().glob("made-*"))) < 3:
                time.sleep(0.02)
            if number == 0:
                with pytest.raises(NoSuchPoolError):
                    bot_user(domain="{empty}", labels={{"plan": "gold"}})
        """
    )
    result = suite.run("-n", "2", "--botfarm-pool-limit", "3")
    result.assert_outcomes(passed=8)
    full = f"no account was made for stage/{empty} plan=gold: * may have 3 users, and *"
    result.stdout.fnmatch_lines([full])
    assert len(list(suite.pytester.path.glob("made-*"))) == 3
    made = users_of(farm, empty)
    assert len(made) == 3
    assert all(user["labels"] == {"plan": "free"} for user in made)


@pytest.mark.usefixtures("pool")
def test_who_may_have_no_more_made_at_once_waits_until_it_may(
    suite: Suite, farm: Farm
) -> None:
    empty = farm.add_pool()
    path, pool = "/api/v1/reservations", {"env": "stage", "domain": empty}
    places: list[str] = []
    while (answer := farm.http.post(path, json={**pool, "limit": 101})).is_success:
        places.append(answer.json()["id"])
    assert answer.json()["error"] == "too_many_places"
    suite.write(
        f"""
        import os
        import httpx
        from pytest_botfarm import NewUser, making

        def pause(seconds):
            print("paused")
            headers = {{"Authorization": "Bearer " + os.environ["BOTFARM_TOKEN"]}}
            url = os.environ["BOTFARM_URL"] + "{path}/{places[0]}"
            httpx.delete(url, headers=headers).raise_for_status()

        making._sleep = pause

        def pytest_botfarm_make_user(want):
            return NewUser("made", password="made up")
        """,
        "conftest",
    )
    suite.write(
        f"""
        def test_it(bot_user):
            assert bot_user(domain="{empty}").login == "made"
        """
    )
    result = suite.run("-s", "--botfarm-pool-limit", "101")
    for place in places:
        farm.http.delete(f"{path}/{place}").raise_for_status()
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("paused") == 1


def test_a_hook_that_answers_with_something_else_is_named_with_what_is_expected(
    suite: Suite, farm: Farm, pool: str
) -> None:
    leave_dirty(farm, pool)
    suite.write(
        """
        async def pytest_botfarm_clean(user):
            assert user.login.startswith("bob")

        def pytest_botfarm_make_user(want):
            return "alice"

        def pytest_botfarm_releasing(user):
            yield
        """,
        "conftest",
    )
    suite.write(
        f"""
        def test_clean_and_make(bot_user):
            bot_user(wait=5)

        def test_release(bot_user):
            bot_user(domain="{farm.add_pool("carol")}")
        """
    )
    result = suite.run("--botfarm-pool-limit", "3")
    result.assert_outcomes(failed=1, passed=1, errors=1)
    conftest = suite.pytester.path / "conftest.py"
    output = result.stdout.str()
    for hook, answer in (
        ("clean", "coroutine: a hook is a plain function, since nothing would await"),
        ("make_user", "str. NewUser or None is expected."),
        ("releasing", "generator: a hook does not yield, but for wrappers. None is"),
    ):
        told = f"TypeError: pytest_botfarm_{hook} of {conftest} answered with {answer}"
        assert told in output
    assert "was never awaited" not in output + result.stderr.str()
    assert not re.search(r"pytest_botfarm/|expected\. \(", output)


def test_a_supplied_password_is_compared_with_the_servers_hash_once(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a process; a wrong one fails every test that reads it, and none is shown."""
    suite.write(
        """
        def pytest_botfarm_password(user):
            return {"d1": "password of alice", "d2": "out of date"}[user.domain]
        """,
        "conftest",
    )
    suite.write(
        """
        import pytest

        @pytest.mark.parametrize("domain", ["d1", "d1", "d2", "d2"])
        def test_sign_in(bot_user, domain):
            print(bot_user("stage", domain).password)
        """
    )
    with running_farm(tmp_path, BOTFARM_SECRET_KEYS="") as farm:
        pools = [farm.add_pool("alice"), farm.add_pool("bob")]
        assert pools == ["d1", "d2"]
        monkeypatch.setenv("BOTFARM_URL", farm.url)
        monkeypatch.setenv("BOTFARM_TOKEN", farm.token)
        result = suite.run("-rP", "--showlocals")
        bob = next(it for it in users_of(farm, "d2"))
        compared = [
            farm.http.post(
                f"/api/v1/users/{bob['id']}/verify-password",
                json={"password": "password of bob"},
            )
            for _ in range(10)
        ]
    result.assert_outcomes(passed=2, failed=2)
    told = "WrongPasswordError: * pytest_botfarm_password supplied for bob@d2 is not *"
    result.stdout.fnmatch_lines([f"E *{told}"])
    assert not re.search("password of alice|out of date", result.stdout.str())
    # One of the ten that a minute has was the run's.
    assert [it.status_code for it in compared] == [*[200] * 9, 429]
    assert compared[0].json() == {"matches": True}
    assert int(compared[-1].headers["Retry-After"]) <= 60


def test_a_factory_that_fails_is_told_once_and_gives_its_place_back(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def pytest_botfarm_make_user(want):
            with open("asked", "a") as file:
                print(want.labels["role"], file=file)
            if want.labels["role"] == "admin":
                raise ValueError("signing up is closed")
        """,
        "conftest",
    )
    suite.write(
        """
        def test_guest(bot_user):
            bot_user(labels={"role": "guest"})

        def test_admin(bot_user):
            bot_user(labels={"role": "admin"})

        def test_another_admin(bot_user):
            bot_user(labels={"role": "admin"})
        """
    )
    result = suite.run("--botfarm-pool-limit", "3")
    result.assert_outcomes(failed=3)
    asked = (suite.pytester.path / "asked").read_text().splitlines()
    assert asked == ["guest", "admin"]
    told = (
        f"no account was made for stage/{pool} role=admin in test_suite.py::"
        "test_admin: ValueError: signing up is closed (conftest.py:"
    )
    output = result.stdout.str()
    assert output.count("NoSuchPoolError: No user in rotation") >= 3
    assert output.count(told) == 2  # in the test's report, and in the summary
    conftest = suite.pytester.path / "conftest.py"
    told = f"pytest_botfarm_make_user of {conftest} answered with None"
    assert output.count(f"made for stage/{pool} role=guest: {told}") == 2
    free = {"env": "stage", "domain": pool, "limit": 3, "id": str(uuid.uuid4())}
    assert farm.http.post("/api/v1/reservations", json=free).status_code == 201


def test_nothing_is_leased_for_a_test_that_has_ended(farm: Farm, pool: str) -> None:
    """As by a thread that a cancelled asynchronous test has left behind."""
    settings = Settings(farm.url, None, "stage", pool, wait=5, ttl=60)
    session = LeaseSession(
        Identity(),
        settings,
        lambda: Endpoint(farm.url, farm.token),
        masker=Masker(),
        say=lambda _: None,
        limit=lambda: None,
    )
    holding = Holding([Want("stage", pool)], is_over=True)
    with closing(session), pytest.raises(BotfarmError, match="test_it has ended"):
        session.acquire(holding, wait=5, test_id="test_it")
    assert not session.is_unsettled
    assert farm.leases(pool, state="all") == []

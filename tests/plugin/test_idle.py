"""Tests of one worker that leave a lease to each other, in embedded mode."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import Any

import pytest
from support.farm import Farm, eventually, farm_of, write_pool
from support.suites import Suite

from pytest_botfarm import Want
from pytest_botfarm.client.errors import BotfarmError
from pytest_botfarm.embedded import EmbeddedServer, Endpoint
from pytest_botfarm.holding import Holding, Identity, Place
from pytest_botfarm.idle import IdleLease, IdleLeases
from pytest_botfarm.limits import Limit
from pytest_botfarm.masking import Masker
from pytest_botfarm.session import LeaseSession
from pytest_botfarm.settings import Settings

ASKING: dict[str, Any] = {"wait": 5, "test_id": "test"}
pytestmark = pytest.mark.usefixtures("leaves_nothing")


def files_of(suite: Suite) -> list[Path]:
    """Those of leases that live."""
    return list(suite.pytester.path.glob("state/*/alive/*.lease"))


CONFTEST = """
    import pathlib
    import time

    import pytest

    HEARD = []

    def pytest_botfarm_acquired(user, nodeid):
        HEARD.append(("acquired", nodeid.partition("::")[2]))

    def pytest_botfarm_releasing(user, nodeid, outcome):
        HEARD.append(("releasing", nodeid.partition("::")[2]))

    @pytest.fixture
    def heard():
        return HEARD

    # Not in a test: pytest-xdist changes the order of what is left when a worker dies.
    def pytest_runtest_logfinish():
        if len(list(pathlib.Path().glob("after-*"))) == 2:
            pathlib.Path("idle").touch()
            time.sleep(60)
    """
SUITE = """
    import os
    import pathlib

    import pytest

    FENCES = {}

    @pytest.fixture
    def fence(bot_user, request):
        FENCES[request.node.name] = bot_user().fence
        return FENCES[request.node.name]

    def test_first(fence): pass
    def test_second(fence): assert fence == FENCES["test_first"]
    def test_fails(fence): assert fence != FENCES["test_first"]
    def test_after_a_failure(fence): assert fence != FENCES["test_fails"]
    def test_saves_a_state(bot_user, fence): bot_user.leased[0].save_state("x")
    def test_after_a_state(fence): assert fence != FENCES["test_saves_a_state"]

    @pytest.mark.bot_user(count=2)
    def test_several(bot_user):
        assert len({user.login for user in bot_user.leased}) == 2
        for user in bot_user.leased:
            user.drop_state()

    def test_hooks_heard_of_each(heard):
        tests = dict.fromkeys(test for _, test in heard)
        assert [*tests][:3] == ["test_first", "test_second", "test_fails"]
        for test in tests:
            count = 2 if test == "test_several" else 1
            told = [what for what, which in heard if which == test]
            assert told == ["acquired"] * count + ["releasing"] * count

    def test_dies():
        os._exit(1)

    @pytest.mark.parametrize("number", range(2))
    def test_leases_after_it(bot_user, number):
        assert not bot_user().dirty
        pathlib.Path(f"after-{number}").touch()
    """
LEASING = {
    **{f"test_{name}": "passed" for name in ("first", "second")},
    "test_fails": "failed",
    **{f"test_{name}": "passed" for name in ("after_a_failure", "saves_a_state")},
    **{f"test_{name}": "passed" for name in ("after_a_state", "several")},
    **{f"test_leases_after_it[{number}]": "passed" for number in range(2)},
}


def test_tests_have_a_lease_in_turn_and_each_is_told_of_as_if_it_had_its_own(
    suite: Suite, pool_file: Path
) -> None:
    """One lease is another's where the fence is: after a failure and with a state it is
    a new one. A worker that dies between two tests leaves its account clean, and Ctrl-C
    leaves nothing idle.
    """
    suite.write(CONFTEST, "conftest")
    suite.write(SUITE)
    with suite.start("-n", "1") as run:
        suite.wait_for("idle")
        with farm_of(pool_file) as farm:
            assert [it["holder"]["test_id"] for it in farm.leases()] == [None]
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(30) == pytest.ExitCode.INTERRUPTED
            eventually(lambda: not farm.leases(), "nothing is held")
            told = {
                lease["holder"]["test_id"].partition("::")[2]: lease["outcome"]
                for lease in farm.leases(state="ended")
                if lease["users"]
            }
    assert [*told.items()][:7] == [*LEASING.items()][:7]
    assert told == LEASING
    assert files_of(suite) == []
    output = suite.output()
    assert "2 failed, 9 passed" in output
    assert "9 leases, longest wait" in output
    assert " held " not in output  # of the worker that died


IN_TURN = """
    import os
    import pathlib
    import time

    import pytest

    def wait_for(file):
        while not pathlib.Path(file).exists():
            time.sleep(0.02)

    def test_leases(bot_user):
        bot_user()

    def test_stands_still():
        pathlib.Path(f"idle-{os.getpid()}").touch()
        wait_for("go-on")

    def test_leases_again(bot_user):
        bot_user(wait=20)
        pathlib.Path(f"holds-{os.getpid()}").touch()
        wait_for("end")
    """


def test_a_process_that_stands_still_or_dies_keeps_nothing_that_is_idle(
    suite: Suite, pool_file: Path
) -> None:
    """Others have the account as soon as they want it, and it is clean. When it goes
    on, it waits its turn. What it uses when it dies is dirty.
    """
    write_pool(pool_file, "alice@example.com")
    suite.write(IN_TURN)
    with suite.start() as run, farm_of(pool_file) as farm:
        suite.wait_for("idle-*")
        assert len(files_of(suite)) == 1
        [lease] = farm.leases()
        assert lease["holder"]["test_id"] is None
        run.send_signal(signal.SIGSTOP)
        taken = farm.hold("regular")
        suite.tell("go-on")
        run.send_signal(signal.SIGCONT)
        eventually(
            lambda: [it["state"] for it in farm.leases()] == ["held", "waiting"],
            "the run waits",
        )
        farm.http.delete(f"/api/v1/leases/{taken}").raise_for_status()
        suite.wait_for("holds-*")
        run.send_signal(signal.SIGKILL)
        run.wait()
        eventually(lambda: not farm.leases(), "what it used is given back")
        ended = [
            ((it["holder"]["test_id"] or "").partition("::")[2], it["outcome"])
            for it in farm.leases(state="ended")
            if it["users"]
        ]
        assert ended == [
            ("test_leases", "passed"),
            ("", None),
            ("test_leases_again", "crashed"),
        ]
        [user] = farm.http.get("/api/v1/users/").json()
        assert user["dirty"]


def leasing(endpoint: Endpoint, pool: str = "regular") -> LeaseSession:
    """One process's part in a run over a server."""
    return LeaseSession(
        Identity(),
        Settings(endpoint.url, None, "stage", pool, wait=5, ttl=60),
        lambda: endpoint,
        masker=Masker(),
        say=lambda _: None,
        limit=lambda: None,
    )


def test_what_is_idle_when_no_server_answers_is_told_to_the_next(
    pool_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tests that had it, and that its account is clean."""
    monkeypatch.setattr("pytest_botfarm.client.core.RELEASE_PATIENCE", 0.1)
    write_pool(pool_file, "alice@example.com")
    tests = ["first", "second", "third"]
    server = EmbeddedServer(pool_file)
    session = leasing(server.endpoint())
    with closing(session):
        for test_id in tests:
            holding = Holding([Want("stage", "regular")])
            session.acquire(holding, wait=5, test_id=test_id)
            session.release(holding, outcome="passed", clean=True)
        server.stop()
        session.give_back_idle()
    with farm_of(pool_file) as farm:
        eventually(lambda: not farm.leases(), "nothing is held")
        ended = farm.leases(state="ended")
        told = {it["holder"]["test_id"]: it["outcome"] for it in ended if it["users"]}
        assert told == dict.fromkeys(tests, "passed")
        [user] = farm.http.get("/api/v1/users/").json()
        assert not user["dirty"]


def test_threads_of_a_test_do_not_take_up_the_same(
    farm: Farm, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = leasing(Endpoint(farm.url, farm.token, str(tmp_path)), pool)
    before, mine, other = (Holding([Want("stage", pool)]) for _ in range(3))
    late = Thread(target=session.acquire, args=[other], kwargs=ASKING)
    both_look, both_found, at = Event(), Barrier(2), IdleLeases.at

    def look_while_another_does() -> Iterator[int]:
        if late.ident is None:
            late.start()
            both_look.wait(0.5)  # in vain, if the other waits for this one
        else:
            both_look.set()
        return count()

    def at_once(idle: IdleLeases, place: Place) -> IdleLease | None:
        found = at(idle, place)
        with suppress(BrokenBarrierError):
            both_found.wait(0.5)
        return found

    with closing(session):
        session.acquire(before, **ASKING)
        session.release(before, outcome="passed", clean=True)
        monkeypatch.setattr("pytest_botfarm.session.count", look_while_another_does)
        monkeypatch.setattr(IdleLeases, "at", at_once)
        session.acquire(mine, **ASKING)
        late.join()
        assert mine.users[0].login != other.users[0].login
        for holding in (mine, other):
            session.release(holding, outcome="failed", clean=True)


def test_what_a_cancelled_test_takes_up_after_its_end_is_the_next_ones(
    farm: Farm, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = leasing(Endpoint(farm.url, farm.token, str(tmp_path)), pool)
    first, late, last = (Holding([Want("stage", pool)]) for _ in range(3))
    take_up = IdleLease.take_up

    def take_up_late(idle: IdleLease, test_id: str) -> bool:
        late.is_over = True
        return take_up(idle, test_id)

    with closing(session):
        session.acquire(first, wait=5, test_id="first")
        session.release(first, outcome="passed", clean=True)
        monkeypatch.setattr(IdleLease, "take_up", take_up_late)
        with pytest.raises(BotfarmError, match="late has ended before"):
            session.acquire(late, wait=5, test_id="late")
        session.acquire(last, wait=5, test_id="last")
        assert last.id == first.id
        session.release(last, outcome="passed", clean=True)
        assert len(farm.leases(pool)) == 1
        session.give_back_idle()
        assert not session.is_unsettled
    assert farm.leases(pool) == []


CUTS_OFF = """
    import os
    import signal
    import threading

    import pytest
    from pytest_botfarm import idle, session

    run = session.LeaseSession._keep
    CUT = []

    def keep_or_end(leases, holding, outcome):
        if "test_releases" in holding.test_id and not CUT:
            CUT.append(holding)
            pytest.fail("as pytest-timeout does in a release")
        return run(leases, holding, outcome)

    session.LeaseSession._keep = keep_or_end

    begin = idle.LeaseFile.begin

    def begin_and_end(file, test_id):
        begin(file, test_id)
        if "test_is_failed" in test_id:
            pytest.fail("as pytest-timeout does")
        if "test_is_interrupted" in test_id:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait()

    idle.LeaseFile.begin = begin_and_end
    """
CUT_OFF = """
    import fcntl
    import json
    import os

    BOTH = {"alice@example.com", "bob@example.com"}

    def no(*arguments, **named):
        raise TypeError("a double")

    def test_locks_nothing(monkeypatch, bot_user):
        monkeypatch.setattr(fcntl, "flock", lambda *given: None)
        bot_user()

    def test_is_failed(bot_user):
        bot_user()

    def test_encodes_nothing(monkeypatch, bot_user):
        bot_user(wait=5)
        monkeypatch.setattr(json, "dumps", no)

    def test_closes_all(bot_user):
        bot_user(wait=5)
        for file in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{file}").endswith(".lease"):
                    os.close(int(file))
            except OSError:
                pass

    def test_releases(bot_user):
        for _ in range(2):
            bot_user(wait=5).save_state("so that it does not stay idle")

    def test_goes_on(bot_user):
        assert {bot_user(wait=5).login, bot_user(wait=5).login} == BOTH

    def test_is_interrupted(bot_user):
        bot_user(wait=5)
    """


def test_whatever_cuts_off_what_is_done_with_a_lease_it_is_given_back(
    suite: Suite, pool_file: Path
) -> None:
    """Doubles of what its file is made of, too."""
    write_pool(pool_file, "alice@example.com", "bob@example.com")
    suite.write(CUTS_OFF, "conftest")
    suite.write(CUT_OFF)
    with farm_of(pool_file) as farm:
        result = suite.run("-p", "no:randomly", timeout=60)
        assert result.ret == pytest.ExitCode.INTERRUPTED
        result.assert_outcomes(passed=5, failed=1, errors=1)
        result.stdout.no_fnmatch_line("*eadlock*")
        assert farm.leases() == []
    assert files_of(suite) == []


def test_a_server_that_is_not_there_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_botfarm.client.core.RELEASE_PATIENCE", 0.1)
    nowhere = "http://127.0.0.1:9"
    session = LeaseSession(
        Identity(),
        Settings(nowhere, None, "stage", "regular", wait=5, ttl=60),
        lambda: Endpoint(nowhere, "token", str(tmp_path)),
        masker=Masker(),
        say=lambda _: None,
        limit=lambda: Limit(0.2),
    )
    holding = Holding([Want("stage", "regular")])
    with closing(session):
        with pytest.raises(BotfarmError, match="reached"):
            session.acquire(holding, wait=5, test_id="test")
        session.release(holding, outcome="failed", clean=True)
        assert list(tmp_path.glob("*.lease")) == []
        assert holding.file is None
        assert session.is_unsettled

"""Whatever dies, nothing of the run is left held, and its accounts are free in time."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from support.farm import Farm, eventually, farm_of, servers_over, write_pool
from support.gates import Gate
from support.suites import START_TIME, Suite

pytestmark = pytest.mark.usefixtures("leaves_nothing")

CLAIM_WINDOW = 15.0
"""Seconds; whoever waits less for a dead worker's account has not waited for an expiry.
"""
LEAST_TTL = 5.0
LOCK_DELAY = 1.0
"""Seconds, of the server that these tests share."""
INTERRUPTED = 5.0
"""Seconds after which execnet interrupts a worker without its controller."""
SLACK = 20.0
"""Seconds that a busy machine may take longer."""

HOLDS = """
    import os
    import pathlib
    import signal
    import time

    import pytest

    def wait_for(file):
        while not pathlib.Path(file).exists():
            time.sleep(0.02)

    @pytest.mark.parametrize("number", range({tests}))
    def test_it(bot_user, number):
        bot_user()
        pathlib.Path(f"holds-{{os.getpid()}}").touch()
        {then}
    """


def pids(suite: Suite, files: str) -> list[int]:
    """What tests have told by the names of their files."""
    return [int(path.name.split("-")[1]) for path in suite.pytester.path.glob(files)]


def _are_renewed(farm: Farm, number: int) -> bool:
    remain = [lease["expires_in"] or 0.0 for lease in farm.leases()]
    return len(remain) == number and min(remain) > CLAIM_WINDOW


def test_a_dead_workers_accounts_are_free_at_once(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """It dies in four ways, and by each in set-up, call and teardown.

    pytest-xdist starts another in its place, so that one run can hold all twelve.
    """
    suite.write(
        """
        import os
        import signal

        import pytest

        def die(way):
            if way == "_exit":
                os._exit(1)
            os.kill(os.getpid(), signal.Signals[way])

        @pytest.fixture
        def resource(bot_user, place, way):
            bot_user()
            if place == "set-up":
                die(way)
            yield
            if place == "teardown":
                die(way)

        @pytest.mark.parametrize("way", ["SIGKILL", "SIGTERM", "SIGSEGV", "_exit"])
        @pytest.mark.parametrize("place", ["set-up", "call", "teardown"])
        def test_dies(resource, place, way):
            if place == "call":
                die(way)
        """
    )
    result = suite.run("-n", "2", "--max-worker-restart", "12", timeout=120)
    result.assert_outcomes(failed=12, passed=4)
    crash = r"worker gw\d+ crashed while test_suite.py::test_dies\[\S+ held (\w+)@"
    told = [line for line in result.outlines if re.match(crash, line)]
    assert len(told) == 24  # in the crash's report and in the summary
    assert all(line.endswith(f"@{pool}: given back, and dirty") for line in told)
    assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["crashed"] * 12
    waited = [lease["waited"] for lease in farm.leases(pool, state="ended")]
    assert max(waited) < CLAIM_WINDOW


def test_a_worker_that_dies_while_it_waits_leaves_the_queue(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import os
        import threading

        import pytest

        @pytest.mark.bot_user
        def test_dies(bot_user):
            threading.Timer(0.5, os._exit, [1]).start()
            bot_user(), bot_user()

        @pytest.mark.bot_user
        def test_next():
            pass
        """
    )
    other = farm.hold(pool)  # or the server would tell it that it waits for itself
    suite.run("-n", "1").assert_outcomes(failed=1, passed=1)
    assert {it["id"] for it in farm.leases(pool)} <= {other}


def test_workers_give_all_back_when_their_controller_dies(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """Execnet interrupts them, so that they are torn down."""
    suite.write(
        HOLDS.format(
            tests=2,
            then="""
        if number == 0:
            wait_for("go-on")
            os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
        """,
        )
    )
    with suite.start("-n", "2") as run:
        suite.wait_for("holds-*", 2)
        suite.tell("go-on")
        assert run.wait(30) == -signal.SIGTERM
        farm.hold(pool, count=2, wait=INTERRUPTED + SLACK)
    assert farm.outcomes(pool) == ["unknown"] * 2


@pytest.mark.parametrize("workers", ["0", "2"])
def test_accounts_of_a_run_that_is_killed_with_its_server_are_free_for_the_next(
    suite: Suite, pool_file: Path, workers: str
) -> None:
    """As soon as its last process has ended, long before their TTL."""
    holding = int(workers) or 1
    suite.write(HOLDS.format(tests=holding, then="time.sleep(60)"))
    with suite.start("-n", workers, "--botfarm-ttl", "3600") as run:
        suite.wait_for("holds-*", holding)
        assert len(servers_over(pool_file)) == 1
        with farm_of(pool_file) as farm:
            eventually(lambda: _are_renewed(farm, holding), "they are renewed")
        run.send_signal(signal.SIGKILL)
        run.wait()
        eventually(lambda: not servers_over(pool_file), "the server has ended")
    with farm_of(pool_file) as farm:
        eventually(lambda: not farm.leases(), "its processes have ended")
        ended = [outcome for outcome in farm.outcomes("regular") if outcome]
        assert ended == ["crashed"] * holding


def test_a_dead_server_is_started_again_and_held_leases_go_on(
    suite: Suite, pool_file: Path
) -> None:
    """For heartbeats, which go to its new address, and for new leases."""
    suite.write(
        HOLDS.format(
            tests=2,
            then="""
        wait_for("killed")
        bot_user()
        wait_for("go-on")
        """,
        )
    )
    write_pool(pool_file, *(f"{name}@example.com" for name in "abcd"))
    with suite.start("-n", "2") as run, farm_of(pool_file) as farm:
        suite.wait_for("holds-*", 2)
        (server,) = [it for it in servers_over(pool_file) if it.ppid() == run.pid]
        server.kill()
        suite.tell("killed")

        def renewed() -> bool:
            return _are_renewed(farm, 4)

        eventually(renewed, "all four were renewed", within=START_TIME)
        suite.tell("go-on")
        assert run.wait(30) == 0, suite.output()
        assert farm.leases() == []
        assert farm.outcomes("regular") == ["passed"] * 4
    assert "the server of this run ended and was started again once" in suite.output()


def test_a_server_that_keeps_dying_is_started_again_three_times(
    suite: Suite, pool_file: Path
) -> None:
    """Then tests are told so; one whose account it cannot take back does not fail."""
    suite.write(
        """
        import psutil
        import pytest

        @pytest.mark.parametrize("number", range(5))
        def test_it(bot_user, number):
            # What has a state is given back, and not left idle for the next test.
            bot_user().save_state("a state")
            (server,) = psutil.Process().children()
            server.kill()
            server.wait()
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=4, failed=1)
    reason = "the server of this run has ended 4 times within 60 s"
    result.stdout.fnmatch_lines(
        [
            f"*EmbeddedServerError: {reason}*",
            f"*test_it[[]*]: not given back, and free again by the TTL of *: {reason}*",
            "the server of this run ended and was started again 3 times",
        ]
    )
    result.stderr.fnmatch_lines([f"botfarm: what is left held *: {reason}*"])


def test_a_worker_that_stood_still_for_too_long_is_told_that_its_lease_is_lost(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(HOLDS.format(tests=1, then="wait_for('go-on')"))
    with suite.start("-n", "1", "--botfarm-ttl", str(LEAST_TTL)) as run:
        suite.wait_for("holds-*")
        (worker,) = pids(suite, "holds-*")
        os.kill(worker, signal.SIGSTOP)
        farm.hold(pool, count=2, wait=LEAST_TTL + LOCK_DELAY + SLACK)
        suite.tell("go-on")
        os.kill(worker, signal.SIGCONT)
        assert run.wait(30) == pytest.ExitCode.TESTS_FAILED
    text = suite.output()
    assert "ERROR at teardown of test_it" in text
    assert f"The lease of alice@{pool} was lost" in text
    assert f"alice@{pool} is now held by an unnamed holder" in text
    (ended,) = farm.leases(pool, state="ended")
    assert ended["state"] == "expired"


def test_a_forked_child_that_outlives_its_worker_does_not_keep_the_account(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """pytest-xdist takes the worker for alive: the child has its end of the pipe."""
    suite.write(
        HOLDS.format(
            tests=1,
            then="""
        if child := os.fork():
            pathlib.Path(f"child-{child}").touch()
            time.sleep(60)
        wait_for("go-on")
        os._exit(0)
        """,
        )
    )
    with suite.start("-n", "1", "--botfarm-ttl", str(LEAST_TTL)) as run:
        suite.wait_for("child-*")
        (worker,) = pids(suite, "holds-*")
        os.kill(worker, signal.SIGKILL)
        farm.hold(pool, count=2, wait=LEAST_TTL + LOCK_DELAY + SLACK)
        assert run.poll() is None
        suite.tell("go-on")
        assert run.wait(30) == pytest.ExitCode.TESTS_FAILED
    assert len(farm.leases(pool)) == 1  # that of somebody else


def test_a_forked_child_that_ends_as_a_run_leaves_its_parents_accounts_alone(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has something to clean up: Ctrl-C came in its own release."""
    suite.write(
        HOLDS.format(
            tests=1,
            then="""
        if child := os.fork():
            pathlib.Path(f"child-{child}").touch()
            os.waitpid(child, 0)
            pathlib.Path("ended").touch()
            wait_for("go-on")
        else:
            bot_user()
        """,
        )
    )
    with Gate(farm.url, "DELETE") as gate:
        monkeypatch.setenv("BOTFARM_URL", gate.url)
        with suite.start("-n", "0") as run:
            suite.wait_for("child-*")
            (child,) = pids(suite, "child-*")
            eventually(lambda: gate.held, "the child is at its release")
            os.kill(child, signal.SIGINT)
            suite.wait_for("ended")
            assert len(farm.leases(pool)) == 2
            gate.open()
            suite.tell("go-on")
            assert run.wait(30) == 0, suite.output()
    assert "crashed" not in farm.outcomes(pool)


def test_children_of_multiprocessing_have_no_part_in_it(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import multiprocessing
        import os

        import pytest

        @pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
        def test_it(bot_user, method):
            bot_user(), bot_user()
            child = multiprocessing.get_context(method).Process(target=os.getpid)
            child.start()
            child.join()
            assert child.exitcode == 0
        """
    )
    suite.run("-n", "1").assert_outcomes(passed=3)
    assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["passed"] * 6

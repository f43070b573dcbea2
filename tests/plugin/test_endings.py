"""However a run or a worker of it ends, nothing of it is left held."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.farm import Farm, eventually
from support.suites import Suite

WAITS_FOR_EVER = """
    import pathlib
    import time

    import pytest

    @pytest.mark.parametrize("number", range({tests}))
    def test_it(bot_user, number):
        bot_user()
        pathlib.Path(f"holds-{{number}}").touch()
        time.sleep(60)
    """


def hold(suite: Suite, tests: int) -> None:
    """Wait until as many tests hold an account."""
    eventually(
        lambda: len(list(suite.pytester.path.glob("holds-*"))) == tests,
        f"{tests} tests hold an account",
    )


@pytest.mark.parametrize(
    "death",
    [
        "os._exit(1)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)
def test_a_dead_workers_accounts_are_free_at_once(
    suite: Suite, farm: Farm, pool: str, death: str
) -> None:
    suite.write(
        f"""
        import os
        import signal
        import time

        def test_dies(bot_user):
            bot_user(), bot_user()
            {death}

        def test_next(bot_user):
            bot_user(wait=5), bot_user(wait=5)
        """
    )
    result = suite.run("-n", "1")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["worker gw0 died; 2 lease(s) released"])
    assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["crashed", "crashed", "passed", "passed"]
    waited = [lease["waited"] for lease in farm.leases(pool, state="ended")]
    assert max(waited) < 2


def test_a_worker_that_dies_while_it_waits_leaves_the_queue(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import os
        import threading

        import pytest

        @pytest.mark.bot_user(count=2)
        def test_dies(bot_user):
            threading.Timer(0.5, os._exit, [1]).start()
            bot_user(), bot_user(), bot_user()

        @pytest.mark.bot_user(count=2)
        def test_next():
            pass
        """
    )
    suite.run("-n", "1").assert_outcomes(failed=1, passed=1)
    assert farm.leases(pool) == []


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_gives_all_back(
    suite: Suite, farm: Farm, pool: str, workers: str
) -> None:
    tests = int(workers) or 1
    suite.write(WAITS_FOR_EVER.format(tests=tests))
    with suite.start("-n", workers) as run:
        hold(suite, tests)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED
    assert farm.leases(pool) == []
    assert len(farm.leases(pool, state="ended")) == tests


def test_ctrl_c_in_a_set_up_that_waits_gives_up_the_place(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.fixture
        def second(bot_user):
            bot_user(), bot_user(), bot_user()

        @pytest.mark.bot_user(count=2)
        def test_it(second):
            pass
        """
    )
    with suite.start("-n", "0") as run:
        eventually(lambda: farm.leases(pool, state="waiting"), "the test waits")
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED
    assert farm.leases(pool) == []
    states = [lease["state"] for lease in farm.leases(pool, state="ended")]
    assert states == ["released", "cancelled"]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("arguments", [["-x"], ["--maxfail=2"], []])
def test_an_early_end_gives_all_back(
    suite: Suite, farm: Farm, pool: str, workers: str, arguments: list[str]
) -> None:
    """`-x` and `--maxfail` end a run between tests, `pytest.exit` in one."""
    end = "assert number > 6" if arguments else 'pytest.exit("enough")'
    suite.write(
        f"""
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(bot_user, number):
            bot_user()
            {end}
        """
    )
    suite.run("-n", workers, *arguments)
    assert farm.leases(pool) == []
    assert farm.leases(pool, state="ended")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_failing_teardown_gives_all_back(
    suite: Suite, farm: Farm, pool: str, workers: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.fixture
        def before():
            yield
            raise ValueError

        @pytest.fixture
        def after(bot_user):
            bot_user()
            yield
            raise ValueError

        def test_it(before, bot_user, after):
            bot_user()
        """
    )
    suite.run("-n", workers).assert_outcomes(passed=1, errors=1)
    assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["passed", "passed"]


def test_a_release_that_gets_no_answer_is_noted_and_fails_no_test(
    suite: Suite, pool_file: Path
) -> None:
    suite.write(
        """
        import psutil

        def test_it(bot_user):
            bot_user()
            (server,) = psutil.Process().children()
            server.kill()
            server.wait()
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        ["1 lease, .*", "lease .* was not released and ends by its TTL: .*"]
    )
    result.stderr.fnmatch_lines(["botfarm: what is left held ends by its TTL: *"])

"""However a run is ended, nothing of it is left held."""

from __future__ import annotations

import os
import signal

import pytest
from support.farm import Farm, eventually
from support.gates import Gate
from support.suites import Suite

pytestmark = pytest.mark.usefixtures("leaves_nothing")

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


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_gives_all_back(
    suite: Suite, farm: Farm, pool: str, workers: str
) -> None:
    tests = int(workers) or 1
    suite.write(WAITS_FOR_EVER.format(tests=tests))
    with suite.start("-n", workers) as run:
        suite.wait_for("holds-*", tests)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        assert run.wait(30) == pytest.ExitCode.INTERRUPTED
    assert farm.leases(pool) == []
    assert len(farm.leases(pool, state="ended")) == tests


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_again_in_the_release_gives_all_back(
    suite: Suite,
    farm: Farm,
    pool: str,
    workers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tests = int(workers) or 1
    suite.write(WAITS_FOR_EVER.format(tests=tests))
    with Gate(farm.url, "DELETE") as gate:
        monkeypatch.setenv("BOTFARM_URL", gate.url)
        with suite.start("-n", workers) as run:
            suite.wait_for("holds-*", tests)
            os.killpg(run.pid, signal.SIGINT)
            eventually(lambda: gate.held == tests, "all are at their release")
            os.killpg(run.pid, signal.SIGINT)
            run.wait(30)
        assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["crashed"] * tests


def test_ctrl_c_in_a_release_gives_all_back(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.write("def test_it(bot_user): bot_user(), bot_user()")
    with Gate(farm.url, "DELETE") as gate:
        monkeypatch.setenv("BOTFARM_URL", gate.url)
        with suite.start("-n", "0") as run:
            eventually(lambda: gate.held, "it is at its release")
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(30) == pytest.ExitCode.INTERRUPTED
        assert farm.leases(pool) == []


def test_a_worker_whose_teardown_does_not_end_is_killed_and_frees_its_account(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """After Ctrl-C execnet interrupts a worker once more when 5 s are over, and
    pytest-xdist kills it when 10 s are; its end is not told to any hook then.
    """
    suite.write(
        WAITS_FOR_EVER.format(tests=1)
        + """
    @pytest.fixture(autouse=True)
    def stubborn(bot_user):
        yield
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
        """
    )
    with suite.start("-n", "1") as run:
        suite.wait_for("holds-*")
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == pytest.ExitCode.INTERRUPTED
    assert farm.leases(pool) == []
    assert farm.outcomes(pool) == ["crashed"]


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

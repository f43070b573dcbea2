"""A failed test's accounts are kept for a person to look at."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from support.farm import Farm
from support.suites import Suite

KEEP = ("--botfarm-keep-on-fail", "30")
FAILS = """
    import pytest

    @pytest.fixture
    def broken(bot_user):
        bot_user()
        raise ValueError

    def test_passes(bot_user):
        bot_user()

    def test_fails(bot_user):
        bot_user()
        assert False

    def test_errs(broken):
        pass
    """


def give_back(told: str) -> str:
    """Do what the report says, in a process of its own; what that prints."""
    command = shlex.split(told)
    assert command.pop(0) == "botfarm"
    done = subprocess.run(
        [sys.executable, "-m", "botfarm_server", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_it_stays_leased_and_the_report_tells_how_to_give_it_back(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(FAILS)
    result = suite.run("-n", "1", *KEEP)
    result.assert_outcomes(passed=1, failed=1, errors=1)
    kept = {it["holder"]["test_id"]: it for it in farm.leases(pool)}
    assert {it["outcome"] for it in kept.values()} == {"failed", "error"}
    for test_id, lease in kept.items():
        assert lease["kept_at"]
        assert 1700 < lease["expires_in"] <= 1800
        user = re.escape(f"{lease['users'][0]['login']} (stage/{pool})")
        command = f"botfarm leases break {lease['id']} --url {farm.url}"
        time = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d \w+"
        told = f"; give it back with `{command}`"
        result.stdout.re_match_lines(
            [
                f"{user}: lease {lease['id']}, fence .*",
                f"  to be kept at least until {time}{told}",
                f"kept: {user} until {time} for {test_id}{told}",
            ]
        )
    assert "Broke lease" in give_back(command)
    assert len(farm.leases(pool)) == 1


def test_what_a_scope_shares_is_kept_when_it_ends_and_a_waiting_test_says_so(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        class TestIt:
            def test_fails(self, class_bot_user):
                class_bot_user()
                assert False

            def test_passes(self, class_bot_user):
                assert class_bot_user.leased

        @pytest.mark.bot_user(count=2)
        def test_waits():
            pass
        """
    )
    result = suite.run(*KEEP, "--botfarm-wait", "0.2")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    (lease,) = farm.leases(pool)
    assert lease["holder"]["test_id"] == "test_suite.py::TestIt"
    told = f"  {lease['users'][0]['login']}: kept to be looked at, 30 min more, after"
    assert told in result.stdout.str()


def test_a_test_that_is_run_again_gives_back_what_it_kept(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for _ in range(3):
                runtestprotocol(item, nextitem=nextitem)
            return True
        """,
        "conftest",
    )
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(count=2)
        def test_fails():
            assert False
        """
    )
    result = suite.run(*KEEP)
    (lease,) = farm.leases(pool)
    assert lease["kept_at"]
    (told,) = (it for it in result.outlines if it.startswith("kept: "))
    assert lease["id"] in told
    ended = farm.leases(pool, state="ended")
    assert [it["state"] for it in ended] == ["released", "released"]


def test_it_stays_leased_when_the_runs_own_server_has_ended(
    suite: Suite, pool_file: Path
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            bot_user()
            assert bot_user.leased[0].login == "nobody"
        """
    )
    logins = set()
    for _ in range(2):
        output = suite.run(*KEEP).stdout.str()
        told = re.search(r"kept: (\S+) .* with `(.*)`", output)
        assert told
        logins.add(told[1])
        command = told[2]
    assert len(logins) == 2  # the second run did not get what the first had kept
    assert "Broke lease" in give_back(command)

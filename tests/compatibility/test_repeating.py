"""Tools that repeat, shuffle and cut off tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from support.beside import Beside
from support.farm import write_pool


@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_attempt_of_rerunfailures_leases_anew_and_is_reported_once(
    suite: Beside, workers: str
) -> None:
    suite.write(
        """
        attempts = []

        def pytest_botfarm_acquired(nodeid):
            if "refused" in nodeid:
                attempts.append(nodeid)
                assert len(attempts) > 1
        """,
        "conftest",
    )
    suite.write(
        """
        import pytest

        attempts = []

        @pytest.fixture(autouse=True)
        def browser():
            pass

        @pytest.mark.bot_user
        def test_refused_once():
            pass

        @pytest.mark.bot_user
        def test_flaky(bot_user):
            assert len(bot_user.leased) == 1
            attempts.append(bot_user())
            assert len(attempts) == 3

        def test_steady(bot_user):
            bot_user()

        def test_hopeless(bot_user):
            bot_user()
            assert False
        """
    )
    junit = suite.pytester.path / "junit.xml"
    plugins = ("-p", "xdist", "-p", "rerunfailures")
    result = suite.run(*plugins, "--reruns=2", "-n", workers, f"--junitxml={junit}")
    result.stdout.re_match_lines(
        [
            r"9 leases, longest wait .*, 0 lost",
            r"=+ 1 failed, 3 passed, 5 rerun in .*",
        ]
    )
    outcomes = ["error", *["failed"] * 5, *["passed"] * 3]
    assert sorted(map(str, suite.outcomes())) == outcomes
    # The tool itself writes a case for each attempt.
    cases = list(ET.parse(junit).iter("testcase"))
    assert len(cases) == 9
    for case in cases:
        told = [(x.get("name"), x.get("value")) for x in case.iter("property")]
        assert len(told) == len(set(told))


def test_repeat_and_randomly_lease_for_each_repetition(
    suite: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-randomly seeds `random` for each test, and no lease moves that on.

    Over a pool file, a repetition takes up what the one before has left.
    """
    suite.write(
        """
        import random

        import pytest

        @pytest.mark.parametrize("number", range(2))
        @pytest.mark.bot_user
        def test_it(bot_user, number):
            seeded = random.getstate()
            bot_user(), bot_user()
            assert random.getstate() == seeded
        """
    )
    folder = suite.pytester.path
    options = ("-p", "randomly", "-p", "repeat", "--count=2", "--junitxml=junit.xml")

    def leases() -> list[str | None]:
        told = ET.parse(folder / "junit.xml").iterfind(".//*[@name='botfarm.lease']")
        return [it.get("value") for it in told]

    suite.run(*options).assert_outcomes(passed=4)
    assert suite.outcomes() == ["passed"] * 8
    assert len(set(leases())) == 8
    write_pool(folder / "botfarm.toml", "alice@example.com", "bob@example.com")
    monkeypatch.delenv("BOTFARM_URL")
    monkeypatch.setenv("BOTFARM_DOMAIN", "regular")
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(folder / "state"))
    suite.run(*options).assert_outcomes(passed=4)
    assert len(leases()) == 8
    assert len(set(leases())) == 2


def test_what_a_timeout_cuts_off_is_given_back(suite: Beside) -> None:
    """A signal fails the test, and the thread ends the test's process."""
    suite.write(
        """
        import time

        import pytest

        pytestmark = pytest.mark.bot_user(count=2)  # before the time begins

        @pytest.mark.timeout(0.2, method="signal", func_only=True)
        def test_signal():
            time.sleep(60)

        @pytest.mark.timeout(0.2, method="thread", func_only=True)
        def test_thread():
            time.sleep(60)

        def test_last():
            pass
        """
    )
    result = suite.run("-p", "xdist", "-n1", "-p", "timeout")
    result.assert_outcomes(passed=1, failed=2)
    assert suite.outcomes() == ["failed", "crashed", "passed"]

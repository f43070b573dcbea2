"""What a run tells of its leases."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from support.farm import Farm
from support.suites import Suite


def test_the_header_names_the_server_and_its_terms(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write("def test_it(): pass")
    result = suite.run("--botfarm-wait", "7", "--botfarm-ttl", "90")
    result.stdout.fnmatch_lines([f"botfarm: {farm.url} (lease 90 s, wait 7 s)"])


def test_the_header_names_the_pool_of_an_embedded_server(
    suite: Suite, pool_file: Path
) -> None:
    suite.write("def test_it(): pass")
    result = suite.run()
    result.stdout.fnmatch_lines(
        ["botfarm: embedded, pool botfarm.toml (lease 60 s, wait 300 s)"]
    )


def test_a_run_that_has_nothing_to_do_with_accounts_says_nothing(suite: Suite) -> None:
    suite.write("def test_it(): pass")
    lines = [line for line in suite.run().outlines if not line.startswith("plugins:")]
    assert "botfarm" not in "\n".join(lines[3:])


def test_a_failed_test_has_a_section_on_its_accounts(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            bot_user()
            assert False
        """
    )
    for arguments in ([], ["-n", "1"]):
        result = suite.run(*arguments)
        result.assert_outcomes(failed=1)
        lease = farm.leases(pool, state="ended")[-1]
        (user,) = lease["users"]
        section = (
            rf"{user['login']} \(stage/{pool}\): lease {lease['id']}, "
            rf"fence {user['fence']}, waited 0\.\d\d s"
        )
        result.stdout.re_match_lines(["-* botfarm -*", section])
        result.stdout.re_match_lines([r"1 lease, longest wait 0\.\d\d s.*, 0 lost"])


def test_the_next_holder_learns_that_an_account_was_not_given_back_in_order(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import os

        def test_dies(bot_user):
            bot_user()
            bot_user()
            os._exit(1)

        def test_next(bot_user):
            assert bot_user().dirty
        """
    )
    suite.run("-n", "1").assert_outcomes(failed=1, passed=1)


def test_accounts_are_properties_in_reports_that_programs_read(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user()
        def test_shares(bot_user, session_bot_user, record_property):
            record_property("own", "value")
            session_bot_user()

        def test_shares_again(session_bot_user):
            pass

        def test_has_none():
            pass
        """
    )
    suite.run("-n", "1", "--junitxml", "junit.xml").assert_outcomes(passed=3)
    cases = ET.parse(suite.pytester.path / "junit.xml").findall(".//testcase")
    first, second, third = (
        [(it.attrib["name"], it.attrib["value"]) for it in case.iter("property")]
        for case in cases
    )
    leases = {
        lease["id"]: lease["users"][0]["login"]
        for lease in farm.leases(pool, state="ended")
    }
    assert [name for name, _ in first] == [
        *("own", "botfarm.login", "botfarm.lease", "botfarm.waited"),
        *("botfarm.login", "botfarm.lease", "botfarm.waited"),
    ]
    assert second == first[1:4]
    assert third == []
    assert {first[2][1]: first[1][1], first[5][1]: first[4][1]} == leases


def test_a_test_that_runs_again_has_the_properties_of_its_last_run_alone(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            first = dict(nodeid=item.nodeid, location=item.location)
            item.ihook.pytest_runtest_logstart(**first)
            runtestprotocol(item, log=False, nextitem=nextitem)
            runtestprotocol(item, nextitem=nextitem)
            return True
        """
    )
    suite.write("def test_it(bot_user): bot_user()")
    result = suite.run("-rP", "--junitxml", "junit.xml")
    # Who asks for the output of passed tests sees the account.
    result.stdout.re_match_lines([r"-* botfarm -*", r"\w+@.* lease .*"])
    report = ET.parse(suite.pytester.path / "junit.xml")
    told = [it.attrib["value"] for it in report.iterfind(".//property")]
    last = farm.leases(pool, state="ended")[-1]
    assert told[:2] == [last["users"][0]["login"], last["id"]]
    assert len(told) == 3


def test_a_run_in_which_nothing_was_leased_says_so_at_the_end(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            bot_user("prod")
        """
    )
    suite.run().stdout.fnmatch_lines(
        ["*= botfarm =*", "0 leases, 1 not leased, *, 0 lost"]
    )

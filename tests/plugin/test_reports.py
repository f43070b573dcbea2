"""What a run tells of its leases."""

from __future__ import annotations

from pathlib import Path

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

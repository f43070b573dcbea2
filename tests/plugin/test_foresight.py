"""What a run says before its first test: accounts that are missing or too few."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.farm import Farm
from support.suites import Suite


def test_what_can_never_be_granted_is_told_once_at_collection(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """Of tests that will run, that is; and none of the others is run then, though
    pytest-xdist goes on after other errors of the collection.
    """
    suite.write(
        """
        import unittest
        import pytest

        @pytest.mark.bot_user("prod")
        @pytest.mark.parametrize("number", range(5))
        def test_it(number):
            pass

        @pytest.mark.bot_user(count=3)
        def test_three():
            pass

        def test_other(bot_user):
            bot_user()

        @pytest.mark.bot_user("preprod")
        class TestNotRun(unittest.TestCase):
            @pytest.mark.skip
            def test_skip(self): pass

            @pytest.mark.skipif("True", reason="known when it runs")
            def test_skipif(self): pass

            @pytest.mark.xfail
            def test_xfail(self): pass

            @unittest.skip("as well")
            def test_unittest_skip(self): pass

            def test_deselected(self): pass

        @pytest.mark.skipif(False, reason="it will run")
        @pytest.mark.bot_user("prod")
        def test_run():
            pass
        """
    )
    result = suite.run("-n", "2", "-k", "not deselected")
    result.assert_outcomes(errors=2)
    output = result.stdout.str()
    assert "preprod" not in output
    assert output.count(f"\nNo user in rotation matches prod/{pool}. Pools that") == 1
    assert output.count("\n3 × stage/") == 1
    tests = ", ".join(f"test_suite.py::test_it[{number}]" for number in range(3))
    result.stdout.fnmatch_lines(
        [
            "* ERROR collecting test_suite.py *",
            f"The mark bot_user asks for it in {tests} and 3 more.".replace("[", "[[]"),
            "*Interrupted: 2 errors during collection *",
        ]
    )
    assert farm.leases(pool, state="all") == []


def test_a_mark_without_a_pool_and_a_factory_without_a_limit_are_told_once_as_well(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOTFARM_ENV")
    suite.write("def pytest_botfarm_make_user(want): return None", "conftest")
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user
        @pytest.mark.parametrize("number", range(2))
        def test_env(number):
            pass

        @pytest.mark.bot_user("prod")
        def test_pool():
            pass
        """
    )
    result = suite.run("-n", "2")
    result.assert_outcomes(errors=2)
    output = result.stdout.str()
    assert output.count("\nbot_user needs the env of the account: name it in") == 1
    assert output.count(f"\nNo user in rotation matches prod/{pool}. Pools that") == 1
    suite.run("-n", "2", "--botfarm-pool-limit", "2").assert_outcomes(errors=1)


def test_workers_are_capped_by_accounts_and_a_pool_that_is_smaller_is_named(
    suite: Suite, farm: Farm, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "4")
    (user, _) = farm.http.get("/api/v1/users/", params={"domain": pool}).json()
    change = {"labels": {"role": "admin"}}
    farm.http.patch(f"/api/v1/users/{user['id']}", json=change).raise_for_status()
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(labels={"role": "admin"})
        @pytest.mark.parametrize("number", range(2))
        def test_admin(number):
            pass

        def test_any(bot_user):
            bot_user()
        """
    )
    result = suite.run("-n", "auto", "--botfarm-cap-workers")
    result.assert_outcomes(passed=3)
    admins = f"stage/{pool} role=admin"
    result.stdout.fnmatch_lines(
        [
            "botfarm: 2 accounts for 4 workers, so 2 workers will do",
            f"botfarm: 1 account in {admins} for 2 workers: 1 of them will wait",
            "* botfarm *",
            "3 leases, *",
            f"{admins} had 1 account for 2 workers: too few for 1 of them",
        ]
    )
    assert "2 accounts in" not in result.stdout.str()
    assert result.stdout.str().count("will wait") == 1


def test_no_server_is_started_to_cap_workers_where_no_test_runs(
    suite: Suite, pool_file: Path
) -> None:
    suite.write("def test_it(bot_user): bot_user()")
    suite.run("--fixtures", "-n", "auto", "--botfarm-cap-workers")
    assert not (suite.pytester.path / "state").exists()

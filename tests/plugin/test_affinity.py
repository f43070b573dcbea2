"""A worker gets back the accounts that it had last."""

from __future__ import annotations

from support.farm import Farm
from support.suites import Suite


def test_each_worker_uses_its_own_accounts_again_and_again(
    suite: Suite, farm: Farm, pool: str
) -> None:
    for login in ("carol", "dave", "erin"):
        farm.add_user(login, pool)
    suite.write(
        """
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_it(bot_user, number):
            bot_user(), bot_user()
        """
    )
    suite.run("-n", "2").assert_outcomes(passed=6)
    had: dict[str, list[str]] = {"gw0": [], "gw1": []}
    for lease in farm.leases(pool, state="ended"):
        (user,) = lease["users"]
        had[lease["holder"]["worker_id"]].append(user["login"])
    for logins in had.values():
        assert len(logins) >= 4
        assert logins == logins[:2] * (len(logins) // 2)
    assert len({*had["gw0"], *had["gw1"]}) == 4

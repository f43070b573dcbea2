"""pytest-xdist: every way of handing tests to workers."""

from __future__ import annotations

import pytest
from support.beside import Beside

SUITE = """
    import pytest

    @pytest.mark.xdist_group("one")
    @pytest.mark.parametrize("number", range(4))
    def test_alone(bot_user, number):
        bot_user()

    @pytest.mark.xdist_group("two")
    class TestShared:
        @pytest.mark.parametrize("number", range(4))
        def test_it(self, session_bot_user, number):
            if not session_bot_user.leased:
                session_bot_user()
            assert len(session_bot_user.leased) == 1
    """


@pytest.mark.parametrize(
    "spread",
    [
        "-n1",
        "-n2 --dist=load",
        "-n2 --dist=worksteal",
        "-n2 --dist=loadscope",
        "-n2 --dist=loadfile",
        "-n2 --dist=loadgroup",
    ],
)
def test_each_test_has_its_account_and_each_worker_one_for_its_session(
    suite: Beside, spread: str
) -> None:
    suite.farm.add_user("carol", suite.pool)
    suite.write(SUITE)
    suite.run("-p", "xdist", *spread.split()).assert_outcomes(passed=8)
    holders = [lease["holder"] for lease in suite.leases()]
    shared = [x["worker_id"] for x in holders if x["test_id"] == "session"]
    assert len(shared) == len(set(shared)) > 0
    assert len(holders) == 4 + len(shared)

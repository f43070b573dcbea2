"""What a test that waits tells of it, and how long it may wait."""

from __future__ import annotations

import re

from support.farm import Farm, eventually
from support.suites import Suite


def users_of(farm: Farm, pool: str, do: str, body: object = None) -> None:
    """Acquire or release all users of a pool through the first API, without a TTL."""
    for user in farm.http.get("/api/v1/users/", params={"domain": pool}).json():
        answer = farm.http.post(f"/api/v1/users/{user['id']}/{do}", json=body)
        answer.raise_for_status()


def test_a_test_that_waits_says_for_whom_past_the_capture_of_output(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """From the thread that an asynchronous test waits in, too, and from a worker."""
    other = {"test_id": "test_b.py::test_y", "worker_id": "gw1", "host": "ci-7"}
    users_of(farm, pool, "acquire", {"holder": other})
    suite.write(
        """
        import asyncio

        def test_waits(bot_user):
            print("captured")
            asyncio.run(bot_user.acquire())
        """
    )
    by = r"is held by test_b\.py::test_y \(worker gw1, host ci-7\)"
    line = re.compile(
        rf"^botfarm: test_suite\.py::test_waits has waited \d+ s for stage/{pool}: "
        rf"alice@{pool} {by}, bob@{pool} {by}$",
        re.MULTILINE,
    )
    names = ("output", "spread")
    with suite.start() as alone, suite.start("-n", "1", output_to="spread") as spread:
        eventually(
            lambda: all(line.search(suite.output(name)) for name in names),
            "both tell of the wait",
        )
        users_of(farm, pool, "release")
        assert (alone.wait(30), spread.wait(30)) == (0, 0)
    for name in names:
        output = suite.output(name)
        assert output.count("has waited") == 1
        assert "captured" not in output


def test_a_wait_ends_before_the_timeout_of_its_test_does(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """Which with the method `thread` would end the process, and all other tests."""
    users_of(farm, pool, "acquire")
    _, bob = farm.http.get("/api/v1/users/", params={"domain": pool}).json()
    farm.http.post(f"/api/v1/users/{bob['id']}/quarantine", json={"reason": "broken"})
    # So that the waits are short, and a slow machine has time to give up.
    suite.pytester.makeconftest(
        "from pytest_botfarm import limits\nlimits.MARGIN = 0.975"
    )
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user
        @pytest.mark.timeout(20, method="thread")
        def test_thread():
            pass

        @pytest.mark.timeout(20, method="signal")
        def test_signal(bot_user):
            bot_user()

        @pytest.mark.timeout(21, func_only=True)
        def test_body(bot_user):
            bot_user()

        @pytest.mark.timeout(60)
        def test_own_wait(bot_user):
            bot_user(wait=0.1)
        """
    )
    result = suite.run()
    result.assert_outcomes(failed=3, errors=1)
    output = result.stdout.str()
    assert "from pytest-timeout" not in output
    assert output.count("before the test's own timeout of 20 s.") == 2
    assert output.count("before the test's own timeout of 21 s.") == 1
    assert output.count("Allow the test more time (--timeout, or @pytest.mark") == 3
    assert output.count("Wait longer (--botfarm-wait), add accounts to the") == 1
    assert output.count(" to the pool, or run fewer workers.") == 4
    assert "wait=…" not in output
    assert output.count("2 accounts match: 1 held, 1 in quarantine.") >= 4
    assert f"In quarantine: bob@{pool} (broken). Bring one back" in output
    # The waits were in vain, and as long.
    waits = r"longest wait \d+\.\d\d s \(test_suite\.py::test_\w+\), median .* s"
    result.stdout.re_match_lines([rf"0 leases, 4 not leased, {waits}, 0 lost"])

"""Accounts for asynchronous tests, on each event loop and under each plugin."""

from __future__ import annotations

import pytest
from support.farm import Farm
from support.suites import Suite

BOTH = """
    import {library}

    async def lease(bot_user):
        user = await bot_user.acquire()
        other = await bot_user.acquire(wait=5)
        assert user.id != other.id
        assert bot_user.leased == [user, other]
    """


@pytest.mark.parametrize(
    "run", ["asyncio.run(lease(bot_user))", "trio.run(lease, bot_user)"]
)
def test_a_synchronous_test_may_run_a_loop_of_its_own(
    suite: Suite, farm: Farm, pool: str, run: str
) -> None:
    suite.write(
        BOTH.format(library=run.partition(".")[0])
        + f"""
    def test_it(bot_user):
        {run}
    """
    )
    suite.run().assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"] * 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_under_anyio(suite: Suite, farm: Farm, pool: str, backend: str) -> None:
    suite.write(
        BOTH.format(library="pytest")
        + f"""
    @pytest.fixture
    def anyio_backend():
        return "{backend}"

    @pytest.mark.anyio
    @pytest.mark.bot_user
    async def test_it(bot_user):
        marked = await bot_user.acquire()
        assert bot_user.leased == [marked]
        await bot_user.acquire()
    """
    )
    suite.run("-p", "anyio").assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"] * 2


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_under_pytest_asyncio(suite: Suite, farm: Farm, pool: str, mode: str) -> None:
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    suite.write(
        BOTH.format(library="pytest")
        + f"""
    {mark}
    async def test_it(bot_user):
        await lease(bot_user)
    """
    )
    suite.run("-p", "asyncio", "-o", f"asyncio_mode={mode}").assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"] * 2


def test_the_loop_goes_on_while_a_test_waits(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import asyncio
        import pytest
        from pytest_botfarm import AcquireTimeoutError

        async def wait_in_vain(bot_user):
            ticks = 0
            waiting = asyncio.create_task(bot_user.acquire(wait=0.5))
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1
            with pytest.raises(AcquireTimeoutError):
                await waiting
            assert ticks > 5

        def test_it(bot_user):
            asyncio.run(wait_in_vain(bot_user))
        """
    )
    farm.hold(pool, count=2)
    suite.run().assert_outcomes(passed=1)


def test_what_a_cancelled_call_may_have_leased_is_given_back(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import asyncio

        async def give_up(bot_user):
            waiting = asyncio.create_task(bot_user.acquire(wait=20))
            await asyncio.sleep(0.3)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        def test_it(bot_user):
            bot_user(), bot_user()
            asyncio.run(give_up(bot_user))
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert farm.leases(pool, state="live") == []


def test_an_asynchronous_method_of_a_unittest_case(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import unittest
        import pytest

        class TestIt(unittest.IsolatedAsyncioTestCase):
            @pytest.fixture(autouse=True)
            def _accounts(self, bot_user):
                self.bot_user = bot_user

            async def test_it(self):
                assert (await self.bot_user.acquire()).password
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"]

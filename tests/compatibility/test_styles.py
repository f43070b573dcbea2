"""The ways in which tests are written."""

from __future__ import annotations

import pytest
from support.beside import NEWEST, OLDEST, Beside


def test_unittest_and_every_way_to_ask_for_a_fixture(suite: Beside) -> None:
    suite.write(
        """
        import unittest

        import pytest

        @pytest.fixture
        def account(bot_user, request):
            return bot_user(*request.param)

        @pytest.mark.parametrize(
            "account", [(), ("stage",)], ids=["default", "stage"], indirect=True
        )
        def test_indirect(account):
            assert account.password

        def test_by_name_while_it_runs(request):
            assert request.getfixturevalue("bot_user")().password

        @pytest.mark.bot_user
        @pytest.mark.usefixtures("bot_user")
        def test_usefixtures():
            pass

        class Accounts:
            @pytest.fixture(autouse=True)
            def _accounts(self, bot_user):
                self.bot_user = bot_user

        class TestCase(Accounts, unittest.TestCase):
            def setUp(self):
                self.user = self.bot_user()

            def test_set_up(self):
                assert self.user.password

            @pytest.mark.bot_user
            def test_mark(self):
                assert self.bot_user.leased == [self.user]

        class TestAsynchronous(Accounts, unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.user = await self.bot_user.acquire()

            async def test_asynchronous(self):
                other = await self.bot_user.acquire()
                assert self.bot_user.leased == [self.user, other]
        """
    )
    suite.run().assert_outcomes(passed=7)
    assert suite.outcomes() == ["passed"] * 8


@pytest.mark.parametrize("environment", [NEWEST, OLDEST])
def test_an_account_is_released_as_failed_after_a_failed_subtest(
    suite: Beside, environment: str
) -> None:
    """Those of pytest itself, and of pytest-subtests, which they come from."""
    suite.environment = environment
    suite.write(
        """
        import unittest

        import pytest

        @pytest.mark.bot_user
        def test_it(bot_user, subtests):
            user = bot_user()
            for number in range(3):
                with subtests.test(number=number):
                    assert bot_user.leased == [user]
                    assert number != 1

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _accounts(self, bot_user):
                self.bot_user = bot_user

            def test_case(self):
                user = self.bot_user()
                for number in range(3):
                    with self.subTest(number=number):
                        self.assertNotEqual(number, 1)
        """
    )
    suite.run("-p", "subtests")
    assert suite.outcomes() == ["failed", "failed"]


def test_steps_of_pytest_bdd_share_the_scenarios_account(suite: Beside) -> None:
    (suite.pytester.path / "shop.feature").write_text(
        "Feature: Shop\n"
        "  @bot_user\n"
        "  Scenario: Order\n"
        "    Given a customer\n"
        "    When the customer orders\n"
        "    Then the order is the customer's\n"
    )
    suite.write(
        """
        from pytest_bdd import given, scenarios, then, when

        scenarios("shop.feature")

        @given("a customer", target_fixture="customer")
        def _(bot_user):
            assert len(bot_user.leased) == 1
            return bot_user()

        @when("the customer orders", target_fixture="order")
        def _(customer):
            return customer.login

        @then("the order is the customer's")
        def _(order, bot_user):
            assert [order] == [user.login for user in bot_user.leased]
        """
    )
    suite.run("-p", "pytest-bdd").assert_outcomes(passed=1)
    assert suite.outcomes() == ["passed"]

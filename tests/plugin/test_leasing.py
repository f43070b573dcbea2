"""What a test gets from the fixture and the mark, and when it gives it back."""

from __future__ import annotations

import pytest
from support.farm import Farm
from support.suites import Suite


def test_a_call_leases_an_account_until_the_teardown(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            user = bot_user()
            assert user.login.split("@")[0] in {"alice", "bob"}
            assert user.password == "password of " + user.login.split("@")[0]
            assert user.env == "stage"
            assert bot_user.leased == [user]
        """
    )
    suite.run().assert_outcomes(passed=1)
    (lease,) = farm.leases(pool, state="ended")
    assert lease["state"] == "released"
    assert lease["outcome"] == "passed"
    assert lease["holder"]["test_id"] == "test_suite.py::test_it"
    assert lease["holder"]["worker_id"] == "main"


def test_the_release_tells_how_the_test_ended(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
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

        def test_skips(bot_user):
            bot_user()
            pytest.skip()

        def test_errs(broken):
            pass
        """
    )
    suite.run().assert_outcomes(passed=1, failed=1, skipped=1, errors=1)
    assert farm.outcomes(pool) == ["passed", "failed", "skipped", "error"]


def test_a_mark_leases_before_the_test_starts_even_where_the_fixture_is_not_named(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(count=2)
        def test_it(bot_user):
            alice, bob = bot_user.leased
            assert alice.id != bob.id

        @pytest.mark.bot_user
        def test_without_the_fixture():
            pass
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert [len(lease["users"]) for lease in farm.leases(pool, state="ended")] == [2, 1]


def test_a_mark_leases_before_the_other_fixtures_begin_and_until_they_have_ended(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        order = []

        @pytest.fixture(autouse=True, scope="class")
        def server():
            order.append("server")

        @pytest.fixture
        def browser():
            order.append("browser")
            yield
            order.append("browser closed")

        @pytest.fixture(name="bot_user")
        def overridden(tmp_path, bot_user):
            order.append(len(bot_user.leased))
            yield bot_user
            order.append("given back")

        marked = pytest.mark.bot_user

        @marked
        def test_without_the_fixture(browser):
            pass

        @marked
        def test_after_another(browser, bot_user):
            pass

        @marked
        def test_before_another(bot_user, browser):
            pass

        def test_order():
            one = ["server", 1, "browser", "browser closed", "given back"]
            assert order == [*one, *one, *one, "server"]
        """
    )
    suite.run().assert_outcomes(passed=4)
    assert farm.outcomes(pool) == ["passed"] * 3


def test_a_mark_whose_lease_fails_ends_its_own_test_before_its_fixtures_begin(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """And leaves these as they were for other tests."""
    suite.write(
        """
        import pytest

        def pytest_botfarm_acquired(nodeid):
            if "refused" in nodeid:
                raise ValueError("no inbox")
            if "skipped" in nodeid:
                pytest.skip("no inbox")
        """,
        "conftest",
    )
    suite.write(
        """
        import pytest

        began = []

        @pytest.fixture(autouse=True)
        def clock(request):
            began.append(request.node.name)

        @pytest.fixture
        def page(clock):
            return "a page"

        @pytest.mark.bot_user
        @pytest.mark.parametrize("what", ["refused", "skipped"])
        def test_it(page, what):
            pass

        def test_innocent(page):
            assert began == ["test_innocent"]

        @pytest.mark.bot_user
        def test_leased(page, bot_user):
            assert len(bot_user.leased) == 1
        """
    )
    suite.run().assert_outcomes(errors=1, skipped=1, passed=2)
    assert len(farm.leases(pool, state="ended")) == 3


def test_all_marks_of_a_test_make_one_lease_in_the_order_they_are_written(
    suite: Suite, farm: Farm, pool: str
) -> None:
    farm.add_user("carol", pool, labels={"role": "admin"})
    suite.write(
        """
        import pytest

        pytestmark = pytest.mark.bot_user(labels={"role": "admin"})

        @pytest.mark.bot_user()
        class TestIt:
            @pytest.mark.bot_user()
            def test_it(self, bot_user):
                carol, *others = bot_user.leased
                assert carol.labels == {"role": "admin"}
                assert len({carol.id, *(user.id for user in others)}) == 3
        """
    )
    suite.run().assert_outcomes(passed=1)
    (lease,) = farm.leases(pool, state="ended")
    assert len(lease["users"]) == 3


def test_calls_hand_out_what_the_marks_leased_and_lease_anew_beyond_that(
    suite: Suite, farm: Farm, pool: str
) -> None:
    farm.add_user("carol", pool, labels={"role": "admin"})
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user()
        @pytest.mark.bot_user(labels={"role": "admin"})
        def test_it(bot_user):
            plain, carol = bot_user.leased
            assert bot_user(labels={"role": "admin"}) is carol
            assert bot_user() is plain
            third = bot_user()
            assert third not in {plain, carol}
            assert bot_user.leased == [plain, carol, third]
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert len(farm.leases(pool, state="ended")) == 2


def test_a_call_that_leaves_out_the_pool_takes_what_the_mark_leased(
    suite: Suite, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOTFARM_ENV")
    monkeypatch.delenv("BOTFARM_DOMAIN")
    suite.write(
        f"""
        import pytest

        @pytest.mark.bot_user("stage", "{pool}")
        def test_it(bot_user):
            assert bot_user() is bot_user.leased[0]
            with pytest.raises(pytest.UsageError, match="needs the env"):
                bot_user()
        """
    )
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_malformed_mark_is_an_error_at_collection(
    suite: Suite, farm: Farm, pool: str, workers: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user(count=0)
        def test_none():
            pass

        @pytest.mark.parametrize("number", [
            1, pytest.param(2, marks=pytest.mark.bot_user(colour="red")),
        ])
        def test_red(number):
            pass

        @pytest.mark.bot_user
        def test_right():
            pass
        """
    )
    result = suite.run("-n", workers)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "* ERROR collecting test_suite.py *",
            "the mark bot_user of test_suite.py::test_none is wrong: count must be *",
            "the mark bot_user of test_suite.py::test_red[[]2[]] is wrong: *'colour'*",
        ]
    )
    assert farm.leases(pool, state="all") == []


def test_a_mark_that_a_hook_adds_leases_and_if_malformed_fails_its_test_alone(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.pytester.makeconftest(
        """
        import pytest

        def pytest_collection_modifyitems(items):
            items[0].add_marker(pytest.mark.bot_user(count=0))
            items[1].add_marker(pytest.mark.bot_user(count=2))
        """
    )
    suite.write("def test_it(): pass\ndef test_right(): pass\ndef test_other(): pass")
    result = suite.run()
    result.assert_outcomes(errors=1, passed=2)
    result.stdout.fnmatch_lines(
        [
            "* ERROR at setup of test_it *",
            "the mark bot_user of test_suite.py::test_it is wrong: count must be *",
        ]
    )
    assert [len(lease["users"]) for lease in farm.leases(pool, state="ended")] == [2]


def test_methods_of_unittest_cases_lease_through_the_mark(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import unittest
        import pytest

        class TestIt(unittest.TestCase):
            @pytest.mark.bot_user(count=2)
            def test_it(self):
                pass
        """
    )
    suite.run().assert_outcomes(passed=1)
    assert farm.outcomes(pool) == ["passed"]


def test_accounts_can_be_leased_from_several_threads_of_a_test(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        from concurrent.futures import ThreadPoolExecutor

        def test_it(bot_user):
            with ThreadPoolExecutor(2) as threads:
                users = list(threads.map(lambda _: bot_user(), range(2)))
            assert len({user.id for user in users}) == 2
        """
    )
    suite.run("-W", "error").assert_outcomes(passed=1)
    assert len(farm.outcomes(pool)) == 2


def test_a_waiting_test_gets_the_account_when_another_gives_it_back(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.parametrize("number", range(12))
        @pytest.mark.bot_user(count=2)
        def test_it(number):
            pass
        """
    )
    result = suite.run("-n", "2")
    result.assert_outcomes(passed=12)
    assert farm.outcomes(pool) == ["passed"] * 12
    result.stdout.re_match_lines(
        [r"12 leases, longest wait .* s( \(.*\))?, median .* s, 0 lost"]
    )


def test_no_secret_is_shown_of_an_account(suite: Suite, pool: str) -> None:
    suite.write(
        """
        def test_it(bot_user):
            user = bot_user()
            other = bot_user()
            assert user == other
        """
    )
    result = suite.run("-vv", "--showlocals")
    result.assert_outcomes(failed=1)
    assert "BotUser(" in result.stdout.str()
    assert "password of" not in result.stdout.str()


def test_a_forked_child_neither_shares_a_connection_nor_ends_its_parents_leases(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import os

        def test_it(bot_user):
            user = bot_user()
            child = os.fork()
            if child == 0:
                other = bot_user()
                assert other.id != user.id
                raise ValueError  # through the teardown, and all the rest of pytest
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
            assert bot_user().id != user.id
        """
    )
    suite.run("-W", "ignore::DeprecationWarning").assert_outcomes(passed=1)
    leases = farm.leases(pool, state="ended")
    assert [lease["state"] for lease in leases] == ["released"] * 3
    assert [lease["outcome"] for lease in leases] == ["passed", "failed", "passed"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_account_can_be_taken_out_of_rotation(
    suite: Suite, farm: Farm, pool: str, workers: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            user = bot_user()
            user.quarantine("locked out after three attempts")
            assert bot_user().id != user.id
        """
    )
    result = suite.run("-n", workers)
    result.assert_outcomes(passed=1)
    told = f"*@{pool} was put in quarantine by test_suite.py::test_it: locked out *"
    result.stdout.fnmatch_lines([told])
    users = farm.http.get("/api/v1/users/", params={"domain": pool}).json()
    (broken,) = (user for user in users if user["state"] == "quarantined")
    assert broken["quarantine_reason"] == "locked out after three attempts"
    assert broken["quarantined_by"] == "test_suite.py::test_it"


def test_the_reason_of_a_quarantine_tells_nobody_a_secret(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user):
            user = bot_user()
            user.quarantine(f"{user.password} is not taken any more")
        """
    )
    suite.run().assert_outcomes(passed=1)
    users = farm.http.get("/api/v1/users/", params={"domain": pool}).json()
    (broken,) = (user for user in users if user["state"] == "quarantined")
    assert broken["quarantine_reason"] == "*** is not taken any more"

"""One account for all tests of a class, a module, a package or a session."""

from __future__ import annotations

import pytest
from support.farm import Farm
from support.suites import Suite

SCOPES = ("class", "module", "package", "session")
TWO_CLASSES = """
    import pytest

    seen = []

    class TestOne:
        def test_a(self, {scope}_bot_user):
            seen.append({scope}_bot_user().id)

        def test_b(self, {scope}_bot_user):
            seen.append({scope}_bot_user.leased[0].id)

    class TestTwo:
        def test_c(self, {scope}_bot_user):
            if not {scope}_bot_user.leased:
                {scope}_bot_user()
            seen.append({scope}_bot_user.leased[0].id)
            assert len(set(seen[:2])) == 1
    """


@pytest.mark.parametrize("scope", SCOPES)
def test_an_account_is_leased_once_for_the_scope(
    suite: Suite, farm: Farm, pool: str, scope: str
) -> None:
    suite.write(TWO_CLASSES.format(scope=scope))
    result = suite.run()
    result.assert_outcomes(passed=3)
    leases = farm.leases(pool, state="ended")
    assert [lease["state"] for lease in leases] == ["released"] * len(leases)
    assert len(leases) == (2 if scope == "class" else 1)
    count = "2 leases" if scope == "class" else "1 lease"
    result.stdout.fnmatch_lines([f"{count}, longest wait * s*, 0 lost"])


@pytest.mark.parametrize(
    ("scope", "holder"),
    [
        ("class", "test_suite.py::TestIt"),
        ("module", "test_suite.py"),
        ("session", "session"),
    ],
)
def test_the_scope_is_told_as_the_holder(
    suite: Suite, farm: Farm, pool: str, scope: str, holder: str
) -> None:
    suite.write(
        f"""
        class TestIt:
            def test_it(self, {scope}_bot_user):
                {scope}_bot_user()
        """
    )
    suite.run().assert_outcomes(passed=1)
    (lease,) = farm.leases(pool, state="ended")
    assert lease["holder"]["test_id"] == holder


def test_the_release_tells_the_worst_that_a_test_came_to(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_passes(module_bot_user):
            module_bot_user()

        def test_fails(module_bot_user):
            assert module_bot_user.leased == []

        def test_passes_again(module_bot_user):
            pass
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, failed=1)
    assert farm.outcomes(pool) == ["failed"]
    # The failed test says which account it had, though it has not leased it.
    result.stdout.re_match_lines([r".* botfarm -+", r"\w+@.* \(stage/.*\): lease .*"])


def test_a_shared_account_is_that_of_the_tests_that_used_it_and_of_no_other(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """Also where they ask for it while they run, as pytest-bdd does."""
    suite.write(
        """
        import pytest

        @pytest.fixture(scope="class")
        def signed_in(class_bot_user):
            return class_bot_user()

        class TestWell:
            def test_uses(self, request):
                request.getfixturevalue("signed_in")

            def test_uses_again(self, request):
                request.getfixturevalue("signed_in")

            def test_other(self):
                raise ValueError

        class TestBadly:
            def test_uses(self, request):
                request.getfixturevalue("signed_in")
                raise ValueError

            def test_other(self):
                pass
        """
    )
    result = suite.run("-rP")
    result.assert_outcomes(passed=3, failed=2)
    assert farm.outcomes(pool) == ["passed", "failed"]
    ids = [lease["id"] for lease in farm.leases(pool, state="ended")]
    assert [result.stdout.str().count(f"lease {it}") for it in ids] == [2, 1]


def test_marks_lease_for_each_test_and_not_again_for_the_scope(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.bot_user()
        class TestIt:
            def test_a(self, bot_user, class_bot_user):
                assert len(bot_user.leased) == 1
                assert class_bot_user.leased == []

            def test_b(self, class_bot_user):
                shared = class_bot_user()
                assert class_bot_user.leased == [shared]
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert len(farm.leases(pool, state="ended")) == 3


def test_each_fixture_of_a_test_tells_its_outcome_where_their_scopes_coincide(
    suite: Suite, farm: Farm, pool: str
) -> None:
    """A function has no class, and a file no package: the test or the run stands in."""
    for number in range(3):
        farm.add_user(f"user{number}", pool)
    suite.write(
        """
        import pytest
        from pytest_botfarm import leasing

        customer = pytest.fixture(leasing, name="customer")

        def test_it(
            bot_user, customer, class_bot_user, package_bot_user, session_bot_user
        ):
            bot_user(), customer(), class_bot_user()
            package_bot_user(), session_bot_user()
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["5 leases, *"])
    assert farm.outcomes(pool) == ["passed"] * 5


def test_scopes_of_one_test_have_accounts_of_their_own(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        def test_it(bot_user, session_bot_user):
            assert bot_user().id != session_bot_user().id
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["2 leases, *"])


def test_a_fixture_of_a_scope_can_use_the_account_of_the_scope(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.fixture(scope="module")
        def signed_in(module_bot_user):
            return module_bot_user()

        def test_a(signed_in):
            signed_in.password

        def test_b(signed_in, module_bot_user):
            assert module_bot_user.leased == [signed_in]
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert farm.outcomes(pool) == ["passed"]


def test_what_a_worker_holds_for_its_session_is_given_back_at_the_end(
    suite: Suite, farm: Farm, pool: str
) -> None:
    suite.write(
        """
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_it(session_bot_user, number):
            if not session_bot_user.leased:
                session_bot_user()
            assert len(session_bot_user.leased) == 1
        """
    )
    suite.run("-n", "2").assert_outcomes(passed=6)
    assert farm.outcomes(pool) == ["passed"] * 2


def test_pytest_shows_what_the_fixtures_are_for_in_80_columns(
    suite: Suite, pool: str
) -> None:
    result = suite.run("--fixtures", "-v")
    result.stdout.fnmatch_lines(["bot_user -- *", "    Lease test accounts: *"])
    for scope in SCOPES:
        result.stdout.fnmatch_lines(
            [
                f"{scope}_bot_user [[]{scope} scope[]] -- *",
                f"    As `bot_user`, leased once for all tests of a {scope}, until *",
            ]
        )
    _, _, own = result.stdout.str().partition("defined from pytest_botfarm.fixtures")
    own, _, _ = own.partition(" fixtures defined from ")
    lines = [line for line in own.splitlines() if line.startswith("    ")]
    assert len(lines) >= len(SCOPES) + 1
    assert max(map(len, lines)) <= 80


def test_a_package_can_have_the_fixture_end_with_it(
    suite: Suite, farm: Farm, pool: str
) -> None:
    for package in ("one", "two"):
        folder = suite.pytester.mkpydir(package)
        (folder / "conftest.py").write_text(
            "import pytest\n"
            "from pytest_botfarm import leasing\n"
            'package_bot_user = pytest.fixture(scope="package")(leasing)\n'
        )
        (folder / f"test_{package}.py").write_text(
            "def test_a(package_bot_user): package_bot_user()\n"
            "def test_b(package_bot_user): assert len(package_bot_user.leased) == 1\n"
        )
    suite.run().assert_outcomes(passed=4)
    first, second = farm.leases(pool, state="ended")
    assert first["holder"]["test_id"] == "one"
    assert first["ended_at"] < second["created_at"]

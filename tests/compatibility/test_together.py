"""All of them at once, and the oldest versions that are supported."""

from __future__ import annotations

import shutil

import pytest
from support.beside import OLDEST, Beside

EVERYTHING = """
    import asyncio
    import time
    from functools import partial

    import freezegun
    import httpx
    import pytest
    import requests
    import responses
    import time_machine
    import vcr
    from pytest_bdd import given, scenarios, then

    sleep = partial(time.sleep)
    scenarios("shop.feature")

    @given("a customer", target_fixture="customer")
    def _(bot_user):
        return bot_user()

    @then("it is the one that was leased")
    def _(customer, bot_user):
        assert bot_user.leased == [customer]

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.bot_user
    def test_mark(bot_user, httpx_mock):
        httpx_mock.add_response(status_code=204)
        assert httpx.get("http://shop.example/").status_code == 204
        assert bot_user().password

    @freezegun.freeze_time("2020-02-29")
    def test_by_name(request, respx_mock):
        assert request.getfixturevalue("bot_user")().password

    @responses.activate
    def test_mocks_of_requests(bot_user, tmp_path):
        responses.get("http://shop.example/", status=204)
        with vcr.use_cassette(str(tmp_path / "tape.yaml"), record_mode="none"):
            assert bot_user().password  # by no request that the empty tape lacks
        assert requests.get("http://shop.example/").status_code == 204

    @pytest.mark.repeat(1)
    @pytest.mark.bot_user
    @time_machine.travel("2040-02-29", tick=False)
    def test_longer_than_the_ttl(bot_user):
        sleep(6)

    @pytest.mark.enable_socket  # which the loop needs
    @pytest.mark.asyncio
    async def test_asyncio(bot_user):
        assert (await bot_user.acquire()).password

    @pytest.mark.enable_socket
    @pytest.mark.anyio
    async def test_anyio(bot_user):
        assert (await bot_user.acquire()).password

    attempts = []

    @pytest.fixture
    def flaky(bot_user):
        attempts.append(bot_user())
        print(attempts[-1].password)
        assert len(attempts) % 2 == 0, attempts[-1].password

    @pytest.mark.bot_user
    def test_flaky(subtests, flaky):
        pass
    """
FEATURE = """\
Feature: Shop
  @bot_user
  Scenario: Visit
    Given a customer
    Then it is the one that was leased
"""
BROWSER = """
    import shutil

    import pytest

    pytestmark = pytest.mark.enable_socket

    @pytest.fixture(scope="session")
    def browser_type_launch_args(browser_type_launch_args):
        chromium = {"executable_path": shutil.which("chromium")}
        return {**browser_type_launch_args, **chromium, "args": ["--no-sandbox"]}

    def test_playwright(bot_user, page):
        page.set_content(f"Welcome, {bot_user().login}")
        assert page.get_by_text(bot_user.leased[0].login).is_visible()
    """


def test_all_tools_at_once(suite: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people have them installed: each loads by itself, and hypothesis as well.

    Playwright keeps an event loop running to its worker's end, in which no other loop
    can run: the files are spread so that its tests have a worker to themselves.
    """
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    suite.write(EVERYTHING)
    folder = suite.pytester.path
    (folder / "shop.feature").write_text(FEATURE)
    browsers = 0
    if shutil.which("chromium"):
        suite.write(BROWSER, "test_browser")
        suite.farm.add_user("carol", suite.pool)
        browsers = 2
    result = suite.run(
        *("-n2", "--dist=loadfile", "--disable-socket", "--count=2", "--botfarm-ttl=5"),
        *("--reruns=1", "--timeout=60", "--strict-markers"),
        *("--junitxml=junit.xml", "--html=report.html", "--alluredir=allure"),
    )
    passed = 15 + browsers
    # pytest warns of a fixture that pytest-playwright brings.
    line = rf"=+ {passed} passed, (1 warning, )?2 rerun in .*"
    result.stdout.re_match_lines([line])
    ended = ["error"] * 2 + ["passed"] * passed
    assert sorted(map(str, suite.outcomes())) == ended
    results, fixtures = (
        [path.read_text() for path in folder.glob(f"allure/*-{kind}.json")]
        for kind in ("result", "container")
    )
    reports = [(folder / name).read_text() for name in ("junit.xml", "report.html")]
    assert len(results) == passed + 2  # one for each attempt
    for told in (*results, *reports):
        assert f"@{suite.pool}" in told
    for told in (*results, *fixtures, *reports):
        assert "password of" not in told
    for kind in (results, fixtures):  # which have it from the exception
        assert sum("AssertionError: ***" in told for told in kind) == 2


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_oldest_versions(suite: Beside, workers: str) -> None:
    suite.environment = OLDEST
    suite.farm.add_user("carol", suite.pool)
    suite.write(
        """
        import asyncio
        import os

        import pytest

        pytestmark = pytest.mark.bot_user

        def test_call(bot_user, session_bot_user):
            assert session_bot_user().password
            assert bot_user() is bot_user.leased[0]

        def test_asynchronous(bot_user):
            assert asyncio.run(bot_user.acquire()).password

        def test_fails():
            assert False

        def test_dies():
            if "PYTEST_XDIST_WORKER" in os.environ:
                os._exit(1)
        """
    )
    result = suite.run("-p", "xdist", "-n", workers)
    result.stdout.fnmatch_lines(["*- botfarm -*", "*@*: lease *"])
    dies = "crashed" if workers == "2" else "passed"
    failed = 2 if workers == "2" else 1
    result.assert_outcomes(passed=4 - failed, failed=failed)
    told = {(x["holder"]["test_id"], x["outcome"]) for x in suite.leases()}
    assert told >= {
        ("test_suite.py::test_call", "passed"),
        ("test_suite.py::test_asynchronous", "passed"),
        ("test_suite.py::test_fails", "failed"),
        ("test_suite.py::test_dies", dies),
    }

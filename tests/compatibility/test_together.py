"""All of them at once, and the oldest versions that are supported."""

from __future__ import annotations

import pytest
from support.beside import OLDEST, Beside

EVERYTHING = """
    import asyncio

    import freezegun
    import httpx
    import pytest

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

    @pytest.mark.enable_socket  # which the loop needs
    @pytest.mark.asyncio
    async def test_asyncio(bot_user):
        assert (await bot_user.acquire()).password

    @pytest.mark.enable_socket
    @pytest.mark.anyio
    async def test_anyio(bot_user):
        assert (await bot_user.acquire()).password

    attempts = []

    @pytest.mark.bot_user
    def test_flaky(subtests, bot_user):
        attempts.append(bot_user())
        assert len(attempts) % 2 == 0
    """


def test_all_tools_at_once(suite: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """As people have them installed: each loads by itself, and hypothesis as well."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    suite.write(EVERYTHING)
    result = suite.run(
        *("-n2", "--dist=worksteal", "--disable-socket", "--count=2"),
        *("--reruns=1", "--timeout=60", "--strict-markers"),
        *("--junitxml=junit.xml", "--html=report.html", "--alluredir=allure"),
    )
    result.stdout.re_match_lines([r"=+ 10 passed, 2 rerun in .*"])
    assert sorted(map(str, suite.outcomes())) == ["failed"] * 2 + ["passed"] * 10
    folder = suite.pytester.path
    results = [path.read_text() for path in folder.glob("allure/*-result.json")]
    reports = [(folder / name).read_text() for name in ("junit.xml", "report.html")]
    assert len(results) == 12  # one for each attempt
    for told in (*results, *reports):
        assert f"@{suite.pool}" in told
        assert "password of" not in told


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

"""What the how-tos show runs as it stands, beside the tools that they name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.beside import ROOT, Beside
from support.documents import write_files

QUICKSTART = ROOT / "examples" / "quickstart"


@pytest.fixture
def folder(suite: Beside, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a suite that tests the shop of the quickstart, with the shop's accounts."""
    monkeypatch.delenv("BOTFARM_URL")
    folder = suite.pytester.path
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(folder / "state"))
    shutil.copy(QUICKSTART / "botfarm.toml", folder)
    with subprocess.Popen(
        [sys.executable, QUICKSTART / "shop.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as shop:
        assert shop.stdout is not None
        monkeypatch.setenv("SHOP_URL", shop.stdout.readline().strip())
        yield folder


def test_apis_mocks_and_unittest(suite: Beside, folder: Path) -> None:
    write_files(ROOT / "docs" / "api-tests.md", folder)
    write_files(ROOT / "docs" / "unittest.md", folder)
    result = suite.run("-p", "respx", "-p", "recording")
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["8 leases, *"])


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_browsers(suite: Beside, folder: Path) -> None:
    """Selenium as documented, and pytest-playwright beside it."""
    write_files(ROOT / "docs" / "selenium.md", folder)
    suite.write(
        """
        import os
        import shutil

        import pytest

        @pytest.fixture(scope="session")
        def browser_type_launch_args(browser_type_launch_args):
            chromium = {"executable_path": shutil.which("chromium")}
            return {**browser_type_launch_args, **chromium, "args": ["--no-sandbox"]}

        @pytest.fixture
        def browser(launch_browser):  # instead of Selenium's
            yield (browser := launch_browser())
            browser.close()

        def test_playwright(bot_user, page):
            user = bot_user("stage", "regular")
            page.goto(os.environ["SHOP_URL"] + "/login")
            page.fill("[name=login]", user.login)
            page.fill("[name=password]", user.password)
            page.click("button")
            page.wait_for_selector(f"text=Welcome, {user.login}")
        """,
        "test_playwright",
    )
    result = suite.run("-p", "playwright")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["3 leases, *"])

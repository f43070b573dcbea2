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
    """Selenium and pytest-playwright, each in a folder of its own."""
    write_files(ROOT / "docs" / "selenium.md", folder / "selenium")
    write_files(ROOT / "docs" / "playwright.md", folder / "playwright")
    suite.write(
        """
        import shutil

        import pytest

        @pytest.fixture(scope="session")
        def browser_type_launch_args(browser_type_launch_args):
            chromium = {"executable_path": shutil.which("chromium")}
            return {**browser_type_launch_args, **chromium, "args": ["--no-sandbox"]}
        """,
        "conftest",
    )
    result = suite.run("-p", "playwright")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["4 leases, *"])

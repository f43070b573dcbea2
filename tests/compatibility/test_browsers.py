"""Accounts in a real browser, as the documents tell to use them."""

from __future__ import annotations

import shutil

import pytest
from support.beside import ROOT, Beside
from support.documents import write_files

pytestmark = pytest.mark.skipif(
    not shutil.which("chromium"), reason="there is no chromium on this machine"
)


def test_selenium_as_documented(suite: Beside) -> None:
    write_files(ROOT / "docs" / "selenium.md", suite.pytester.path)
    suite.run("-p", "xdist", "-n2", "-Werror").assert_outcomes(passed=2)
    assert suite.outcomes() == ["passed"] * 2

"""The example for Playwright signs in once for each account, in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.beside import NEWEST, OURS, ROOT
from support.provided import needs_set_up

PYTHON = ROOT / NEWEST / "bin" / "python"
EXAMPLE = ROOT / "examples" / "playwright"
ACCOUNTS = (EXAMPLE / "botfarm.toml").read_text().count("[[users]]")
LIMIT = 280.0
"""Seconds after which it hangs; some twenty would do on a machine of its own."""

pytestmark = pytest.mark.skipif(
    "CHROMIUM" not in os.environ and shutil.which("chromium") is None,
    reason="there is no Chromium: CHROMIUM names none, and none is on the path",
)


@pytest.fixture(scope="module", autouse=True)
def playwright() -> None:
    installed = PYTHON.parents[1].glob("lib/*/site-packages/playwright")
    needs_set_up(f"Playwright in {NEWEST}", is_there=any(installed))


def run(*command: str, state: Path) -> str:
    foreign = ("BOTFARM_", "PYTEST_", "DIARY_URL")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    alone = {  # of all plugins that are installed there
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": f"-p {OURS[NEWEST]}",
    }
    ended = subprocess.run(
        [str(PYTHON), *command],
        check=False,
        cwd=EXAMPLE,
        env={**env, **alone, "BOTFARM_STATE_DIR": str(state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_it_signs_in_once_for_each_account_and_not_in_every_test(
    tmp_path: Path,
) -> None:
    printed = run("compare.py", state=tmp_path)
    rows = re.findall(r"^(.+?) +(\d+) +(\d+) +[\d.]+$", printed, re.MULTILINE)
    (_, tests, each_time), (_, again, once) = rows
    assert int(tests) == int(again) == int(each_time), printed
    # One of the tests signs out.
    assert int(once) <= ACCOUNTS + 1 < int(tests), printed


def test_a_session_that_has_ended_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    for _ in range(2):  # the second run finds what the first has saved of another diary
        printed = run("-m", "pytest", "-k", "empty", state=tmp_path)
        assert "logins: 1" in printed, printed

"""The quickstart shows what it promises: leased accounts pass, a shared one fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.suites import as_users

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
LIMIT = 300.0
"""Seconds after which it hangs; a few would do on a machine with nothing else to do."""


def run_suite(*options: str) -> tuple[int, dict[str, int], str]:
    """The exit code, how many tests had which outcome, and all that was printed."""
    foreign = ("BOTFARM_", "PYTEST_", "PYTHONDONTWRITEBYTECODE", "SHOP_URL")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "4", *options],
        check=False,
        cwd=QUICKSTART,
        env={**env, **as_users()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    summary = ended.stdout.strip().splitlines()[-1]
    counts = re.findall(r"(\d+) (passed|failed|error|skipped)", summary)
    return ended.returncode, {name: int(n) for n, name in counts}, ended.stdout


def test_leased_accounts_pass_in_parallel() -> None:
    code, counts, printed = run_suite()

    assert code == 0, printed
    assert list(counts) == ["passed"], printed
    assert f"{counts['passed']} tests" in (QUICKSTART / "README.md").read_text()


def test_one_hard_coded_account_fails_in_parallel() -> None:
    code, counts, printed = run_suite("--one-account")

    assert code == 1, printed
    assert counts.get("failed", 0) + counts.get("error", 0) >= 5, printed
    assert "You were signed in elsewhere." in printed

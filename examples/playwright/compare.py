"""Runs the suite with a login in every test and with one for each account."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(*options: str) -> tuple[int, int, float]:
    """How many tests passed, how many logins they took, and how many seconds."""
    with tempfile.TemporaryDirectory() as farm:  # in which nobody has signed in yet
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            check=False,
            cwd=Path(__file__).parent,
            env={**os.environ, "BOTFARM_STATE_DIR": farm},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds = time.monotonic() - began
    passed = re.search(r"(\d+) passed", ended.stdout)
    logins = re.search(r"logins: (\d+)", ended.stdout)
    if ended.returncode or not passed or not logins:
        sys.exit(ended.stdout)
    return int(passed[1]), int(logins[1]), seconds


def main() -> None:
    print(f"{'':<20} tests  logins  seconds")
    for name, options in (
        ("login in every test", ["--login-each-time"]),
        ("login_once", []),
    ):
        tests, logins, seconds = run(*options)
        print(f"{name:<20} {tests:>5}  {logins:>6}  {seconds:>7.1f}", flush=True)


if __name__ == "__main__":
    main()

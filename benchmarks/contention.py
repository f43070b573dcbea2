"""More workers than accounts: how much of the accounts' time goes by unused.

Tests that do nothing for 50 ms with an account, twice as many workers as accounts. The
lower bound is what the accounts need if each goes from test to test without a gap: the
sum of the tests' times over the number of accounts. Measured is the time from the first
account that a test got until the last that was given back; the peers do the same job.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from _measuring import (
    ACCOUNTS,
    PYTEST,
    folder,
    median,
    quartiles,
    rounds,
    run,
    table,
)
from _peers import BASELINE, OURS, VARIANTS, Variant, write_suite

TESTS = 200
WORKERS = 2 * ACCOUNTS
SECONDS = 0.05
"""Of each test."""
ROUNDS = 5
LOWER_BOUND = TESTS * SECONDS / ACCOUNTS
LIMIT = 1.10

SUITE = f"""\
import time

import pytest


@pytest.mark.parametrize("number", range({TESTS}))
def test_with_an_account(account, number, note):
    note(time.time())
    time.sleep({SECONDS})
"""

RECORDER = """\
import os
import time
from pathlib import Path

import pytest

TIMES = []


@pytest.fixture
def note():
    return TIMES.append


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown():
    yield
    TIMES.append(time.time())


def pytest_unconfigure():
    if TIMES:
        worker = os.environ["PYTEST_XDIST_WORKER"]
        Path(f"times-{worker}").write_text("\\n".join(map(str, TIMES)))
"""


def measure(path: Path, variant: Variant) -> float:
    """Seconds from the first account that a test got to the last given back."""
    write_suite(path, variant, SUITE, RECORDER)
    command = [*PYTEST, "-n", str(WORKERS), *variant.options]
    run(command, path, {"BOTFARM_STATE_DIR": str(path / "state")})
    times = [
        float(line)
        for recorded in path.glob("times-*")
        for line in recorded.read_text().splitlines()
    ]
    if len(times) != 2 * TESTS:
        raise SystemExit(f"{len(times) // 2} tests ran, not {TESTS}")
    shutil.rmtree(path)
    return max(times) - min(times)


def main() -> None:
    variants = {name: it for name, it in VARIANTS.items() if name != BASELINE}
    with folder() as path:
        found = rounds(
            ROUNDS,
            {
                name: partial(measure, path / "suite", variant)
                for name, variant in variants.items()
            },
        )
    print(
        f"{TESTS} tests of {SECONDS * 1000:.0f} ms, {WORKERS} workers, {ACCOUNTS} "
        f"accounts: at least {LOWER_BOUND:.2f} s; the limit is {LIMIT:.2f} of that\n"
    )
    heading = ("", "seconds", "over the lower bound", "quartiles", "Botfarm / it")
    table(heading, *(_row(name, found) for name in found))


def _row(name: str, found: dict[str, list[float]]) -> tuple[str, ...]:
    over = [seconds / LOWER_BOUND for seconds in found[name]]
    return (
        name,
        f"{median(found[name]):.2f}",
        f"{median(over):.3f}",
        " to ".join(f"{it:.3f}" for it in quartiles(over)),
        f"{median(found[OURS]) / median(found[name]):.2f}",
    )


if __name__ == "__main__":
    main()

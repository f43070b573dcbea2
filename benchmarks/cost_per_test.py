"""What acquiring and releasing one account adds to a test, beside the peers.

Empty tests under `pytest -n 2`, whose fixture takes one of a few accounts: from
Botfarm in embedded mode, from pytest-lockable, from a pool of FileLocks, and none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from _measuring import (
    ACCOUNTS,
    PYTEST,
    folder,
    median,
    milliseconds,
    quartiles,
    rounds,
    run,
    table,
)
from _peers import BASELINE, OURS, VARIANTS, Variant, write_suite

TESTS = 300
WORKERS = 2
ROUNDS = 3

SUITE = f"""\
import pytest


@pytest.mark.parametrize("number", range({TESTS}))
def test_nothing(account, number):
    pass
"""

RECORDER = """\
import os
import time
from pathlib import Path

import pytest

TIMES = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        TIMES.append(str(time.perf_counter() - began))


def pytest_unconfigure():
    if TIMES:
        worker = os.environ["PYTEST_XDIST_WORKER"]
        Path(f"times-{worker}").write_text("\\n".join(TIMES))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one run of the suite."""

    test: float
    """Of the median test, everything that pytest does for it included."""
    run: float
    """Of the whole run, the start of workers and servers included."""


def measure(path: Path, variant: Variant) -> Cost:
    command = [*PYTEST, "-n", str(WORKERS), *variant.options]
    took = run(command, path, {"BOTFARM_STATE_DIR": str(path / "state")})
    times = [
        float(line)
        for recorded in path.glob("times-*")
        for line in recorded.read_text().splitlines()
    ]
    if len(times) != TESTS:
        raise SystemExit(f"{len(times)} tests ran, not {TESTS}")
    return Cost(median(times), took.wall)


def main() -> None:
    with folder() as path:
        for name, variant in VARIANTS.items():
            write_suite(path / name, variant, SUITE, RECORDER)
        costs = rounds(
            ROUNDS,
            {
                name: partial(measure, path / name, variant)
                for name, variant in VARIANTS.items()
            },
        )
    print(
        f"{TESTS} empty tests, pytest -n {WORKERS}, {ACCOUNTS} accounts: "
        f"medians of {ROUNDS} rounds, milliseconds over the suite without a lock"
    )
    print(f"(of which a test takes {_median_of(costs[BASELINE], 'test')} ms)\n")
    heading = ("", "the median test", "quartiles", "Botfarm / it", "the run / tests")
    table(heading, *(_row(name, costs) for name in VARIANTS if name != BASELINE))


def _median_of(costs: list[Cost], part: str) -> str:
    return milliseconds(median([getattr(cost, part) for cost in costs]))


def _row(name: str, costs: dict[str, list[Cost]]) -> tuple[str, ...]:
    added = added_to_test(costs[name], costs[BASELINE])
    ours = added_to_test(costs[OURS], costs[BASELINE])
    run_added = [
        (cost.run - none.run) / TESTS
        for cost, none in zip(costs[name], costs[BASELINE], strict=True)
    ]
    return (
        name,
        milliseconds(median(added)),
        " to ".join(map(milliseconds, quartiles(added))),
        f"{median(ours) / median(added):.1f}",
        milliseconds(median(run_added)),
    )


def added_to_test(costs: list[Cost], baseline: list[Cost]) -> list[float]:
    """Seconds that each round's median test took over that of the same round."""
    return [cost.test - none.test for cost, none in zip(costs, baseline, strict=True)]


if __name__ == "__main__":
    main()

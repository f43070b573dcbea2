"""What the benchmarks share: processes, rounds that interleave, figures and tables.

The machine is taken to be noisy. What is compared runs in turns, in one run of one
program, and each figure is a median; only ratios and differences mean anything.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Measured = TypeVar("Measured")

ACCOUNTS = 4
"""In every pool: more than the workers, so that no test waits for another."""
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
LIMIT = 120.0
"""Seconds that one process may take."""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one process and its children."""

    wall: float
    cpu: float
    stderr: str = field(default="", repr=False)


def run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
) -> Took:
    """Run a process to its end. Raises SystemExit with what it printed if it fails.

    No setting of Botfarm or pytest is inherited.
    """
    foreign = ("BOTFARM_", "PYTEST_", "XDG_STATE_HOME")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    cpu, began = _cpu_of_children(), time.perf_counter()
    ended = subprocess.run(
        command,
        cwd=folder,
        env=kept | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    wall = time.perf_counter() - began
    took = Took(wall, _cpu_of_children() - cpu, ended.stderr)
    if ended.returncode not in {0, 5}:  # 5: pytest found no tests
        raise SystemExit(f"{ended.stdout}{ended.stderr}\n{' '.join(command)} failed")
    return took


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="botfarm-benchmark-") as name:
        yield Path(name)


def write_pool(path: Path) -> None:
    """Write a pool file of accounts that differ in nothing but their names."""
    account = (
        '[[users]]\nlogin = "user{number}"\npassword = "secret{number}"\n'
        'env = "stage"\ndomain = "regular"\n'
    )
    accounts = (account.format(number=number) for number in range(ACCOUNTS))
    path.write_text("\n".join(accounts))


def rounds(
    count: int, variants: Mapping[Key, Callable[[], Measured]]
) -> dict[Key, list[Measured]]:
    """What each variant measured, in turns and in changing order.

    A first round, which fills caches, is not counted.
    """
    found: dict[Key, list[Measured]] = {name: [] for name in variants}
    for number in range(count + 1):
        names = list(variants)
        for name in names if number % 2 else reversed(names):
            measured = variants[name]()
            if number:
                found[name].append(measured)
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    first, _, third = statistics.quantiles(values, n=4)
    return first, third


def percentile(values: Sequence[float], of: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[of - 1]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which values the median lies with 95 % confidence.

    By their order alone, since noise is not distributed normally.
    """
    ordered, reach = sorted(values), 0.98 * math.sqrt(len(values))
    middle = len(values) / 2
    low, high = math.floor(middle - reach), math.ceil(middle + reach)
    return ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


def table(*rows: Sequence[str]) -> None:
    """Print rows as a Markdown table; the first is its heading."""
    heading, *others = rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (heading, rule, *others):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")

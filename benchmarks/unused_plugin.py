"""What the installed plugin adds to a run that leases nothing.

`pytest --collect-only` on an empty suite, with the plugin and with `-p no:botfarm`, in
turns; then the modules that the plugin alone has imported. Each run is a fork of this
process, which has imported pytest already: starting Python takes a hundred times the
difference, and would hide it in its noise. A run with `-n 2` starts its workers anew
whatever starts it, so that this one is measured as it is, and its noise is larger.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from _measuring import (
    PYTEST,
    Took,
    folder,
    interval,
    median,
    milliseconds,
    quartiles,
    rounds,
    run,
    table,
)

ROUNDS, SPREAD_ROUNDS = 600, 60
LIMIT = 0.003
"""Seconds that the unused plugin may add."""
HEAVY = ("httpx", "httpcore", "botfarm_server", "fastapi", "sqlalchemy", "uvicorn")
WITH, WITHOUT = "with the plugin", "-p no:botfarm"
COLLECT, SPREAD = ("--collect-only",), ("-n", "2")


def commands(*arguments: str) -> dict[str, tuple[str, ...]]:
    command = (*PYTEST, *arguments, "-p", "no:pytest_lockable")
    return {WITH: command, WITHOUT: (*command, "-p", "no:botfarm")}


RECORDER = """\
import sys
from pathlib import Path


def pytest_unconfigure():
    Path("modules").write_text("\\n".join(sys.modules))
"""


def imported(path: Path, command: tuple[str, ...]) -> set[str]:
    """Which modules such a run has imported at its end."""
    (path / "recorder.py").write_text(RECORDER)
    run([*command, "-p", "recorder"], path, {"PYTHONPATH": str(path)})
    return set((path / "modules").read_text().splitlines())


def forked(path: Path, command: tuple[str, ...]) -> Took:
    """What `pytest.main` takes in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.chdir(path)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            wall, cpu = time.perf_counter(), time.process_time()
            code = pytest.main(list(command[len(PYTEST[:3]) :]))
            took = time.perf_counter() - wall, time.process_time() - cpu
            os.write(writer, struct.pack("dd", *took))
        finally:
            os._exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else 1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        figures = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{' '.join(command)} failed")
    return Took(*struct.unpack("dd", figures))


def main() -> None:
    collect, spread = commands(*COLLECT), commands(*SPREAD)
    with folder() as path:
        (path / "pytest.ini").write_text("[pytest]\n")
        took = rounds(
            ROUNDS, {name: partial(forked, path, it) for name, it in collect.items()}
        )
        workers_too = rounds(
            SPREAD_ROUNDS, {name: partial(run, it, path) for name, it in spread.items()}
        )
        modules = imported(path, collect[WITH])
        more = modules - imported(path, collect[WITHOUT])
    print(
        f"pytest without tests: medians of {ROUNDS} pairs with --collect-only, of "
        f"{SPREAD_ROUNDS} with -n 2, milliseconds\n"
    )
    table(
        ("", WITHOUT, WITH, "difference", "quartiles", "ratio"),
        _row("wall time", "wall", took),
        _row("cpu time", "cpu", took),
        _row("wall time, -n 2", "wall", workers_too),
        _row("cpu time, -n 2", "cpu", workers_too),
    )
    low, high = interval(differences("wall", took))
    verdict = "under" if high < LIMIT else "over" if low > LIMIT else "not told from"
    print(
        f"\nIt adds {milliseconds(low)} to {milliseconds(high)} ms, with 95 % "
        f"confidence: {verdict} {milliseconds(LIMIT)} ms."
    )
    print(f"It alone imports: {', '.join(sorted(more))}.")
    heavy = [name for name in HEAVY if name in modules]
    print(f"Imported of {', '.join(HEAVY)}: {', '.join(heavy) or 'none'}.")


def differences(part: str, took: dict[str, list[Took]]) -> list[float]:
    """Seconds that each run took over the one beside it."""
    pairs = zip(took[WITH], took[WITHOUT], strict=True)
    return [getattr(ours, part) - getattr(bare, part) for ours, bare in pairs]


def _row(name: str, part: str, took: dict[str, list[Took]]) -> tuple[str, ...]:
    bare = median([getattr(it, part) for it in took[WITHOUT]])
    ours = median([getattr(it, part) for it in took[WITH]])
    added = differences(part, took)
    return (
        name,
        milliseconds(bare),
        milliseconds(ours),
        milliseconds(median(added)),
        " to ".join(map(milliseconds, quartiles(added))),
        f"{ours / bare:.3f}",
    )


if __name__ == "__main__":
    main()

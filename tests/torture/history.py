"""What every process of a run did and saw, a line of JSON for each event.

A line is written with one call to the system, so that a process that is killed leaves
whole lines behind. What was begun and never ended is unknown, not failed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_botfarm.client.clock import clock

OFFSET = "TORTURE_CLOCK_OFFSET"
"""The variable that has all processes of a run share one clock."""


def clock_offset() -> float:
    """Seconds from the clients' clock to the machine's time of day.

    It is read once for a run: the history goes by a clock that nobody sets, and is
    compared with the database's, which tells the time of day of the same machine.
    """
    given = os.environ.get(OFFSET)
    return float(given) if given else time.time() - clock()


@dataclass(frozen=True, slots=True)
class Event:
    process: str
    at: float
    kind: str
    facts: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


class History:
    """The history of one process; several tasks may write, and several processes
    into one folder.
    """

    def __init__(self, folder: Path, process: str) -> None:
        self.process = process
        self.offset = clock_offset()
        path = folder / f"{process}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def now(self) -> float:
        return clock() + self.offset

    def write(self, kind: str, **facts: Any) -> float:
        """Append an event; the instant that was noted with it."""
        at = self.now()
        line = json.dumps({"at": at, "kind": kind, **facts}, separators=(",", ":"))
        os.write(self._file, f"{line}\n".encode())
        return at

    def close(self) -> None:
        os.close(self._file)


def events(folder: Path) -> Iterator[Event]:
    """The events of all processes, each process's in its own order."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    facts = json.loads(line)
                    at, kind = facts.pop("at"), facts.pop("kind")
                    yield Event(path.stem, at, kind, facts)

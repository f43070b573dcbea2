"""How far a long command has come: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from botfarm_server.cli.output import in_words, note

WINDOW = 30.0
"""Seconds that the rate is taken over: long enough to be calm, short enough to tell
that a server has become slower."""
LINE_INTERVAL = 5.0
"""Seconds between two plain lines."""


class Pace:
    """Counts what is done, and tells the rate and the time that is left."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self._clock = clock
        self._points = deque([(clock(), 0)])

    def advance(self, count: int) -> None:
        self.done += count
        now = self._clock()
        self._points.append((now, self.done))
        # One point from before the window stays, so that there is always a span.
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW:
            self._points.popleft()

    @property
    def rate(self) -> float | None:
        """How many a second, or `None` as long as nothing is known."""
        (start, before), (end, after) = self._points[0], self._points[-1]
        return (after - before) / (end - start) if end > start else None

    @property
    def seconds_left(self) -> float | None:
        rate = self.rate
        return (self.total - self.done) / rate if rate else None

    def __str__(self) -> str:
        parts = [f"{self.done:,}/{self.total:,}"]
        rate = self.rate
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if self.done < self.total and self.seconds_left is not None:
            parts.append(f"{in_words(self.seconds_left)} left")
        return ", ".join(parts)


@contextmanager
def progress(phase: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show one phase of a command; what is given is called with each step's count."""
    pace = Pace(total)
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _plain_lines(phase, pace)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(phase, total=total, pace=pace)

        def advance(count: int) -> None:
            pace.advance(count)
            bar.update(task, completed=pace.done)

        yield advance


def _plain_lines(phase: str, pace: Pace) -> Callable[[int], None]:
    due = time.monotonic() + LINE_INTERVAL

    def advance(count: int) -> None:
        nonlocal due
        pace.advance(count)
        if time.monotonic() >= due or pace.done == pace.total:
            due = time.monotonic() + LINE_INTERVAL
            note(f"{phase} {pace}")

    return advance

"""Points in the server at which a test, or chance, makes something happen.

`hit` stands where the wrapped piece is. A test arms a point by a file in the server's
control folder; a run gives each point a rate. The packages know nothing of this.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

from .evidence import Operation
from .history import History

Point = Literal[
    "after-commit",
    "before-commit",
    "before-queue-lock",
    "after-queue-lock",
    "after-read",
    "after-look",
    "before-ending",
]
"""`after-commit`: before the answer leaves. `after-read`: free users were read, and
none is taken yet. `after-look` and `before-ending`: between the expiry loop's look
and its update, before and after it locked the rows.
"""
AT_RANDOM: tuple[Point, ...] = (
    "after-commit",
    "after-queue-lock",
    "after-look",
    "before-ending",
)
"""What a run hits by chance."""

LONGEST_DELAY = {"after-queue-lock": 0.3, "before-ending": 0.3}
"""Seconds; these two hold the lock that everybody waits for."""
USUAL_DELAY = 1.0
CRASHES = 0.1
"""The part of the random hits that kill the server; the others delay it."""
PAUSE = 0.01

under_way: ContextVar[Operation | None] = ContextVar("under_way", default=None)
"""What the current request is; None in the server's own loops."""


class Failpoints:
    """The failpoints of one server process."""

    def __init__(
        self,
        control: Path,
        history: History,
        *,
        rates: Mapping[str, float],
        seed: int,
    ) -> None:
        self._control = control
        self._history = history
        self._rates = rates
        self._random = random.Random(seed)
        self._hits = 0

    def is_on(self, switch: str) -> bool:
        """Whether a test has switched something on."""
        return (self._control / f"{switch}.on").exists()

    async def hit(self, point: Point) -> None:
        if (held := self._obeyed(point)) is not None:
            while _exists(held):
                await asyncio.sleep(PAUSE)
        elif (
            (rate := self._rates.get(point))
            and self._random.random() < rate
            and self.is_on("failpoints")
        ):
            await self._disturb(point)

    def _obeyed(self, point: Point) -> Path | None:
        """Crash if a test wants that; the file that holds the call if it wants that."""
        armed = self._control / f"{point}.armed"
        try:
            order = json.loads(armed.read_text(encoding="utf-8"))
            if order["operation"] != under_way.get():
                return None
            held = armed.with_suffix(".held")
            armed.rename(held)
        except FileNotFoundError:
            return None  # it is not armed, or another call was faster
        if order["action"] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        return held

    async def _disturb(self, point: Point) -> None:
        self._hits += 1
        crashes = self._random.random() < CRASHES
        kind = f"failpoint {point} {'crash' if crashes else 'delay'}"
        self._history.write(
            "fault",
            n=self._hits,
            fault=kind,
            target=self._history.process,
            stalls=None,
        )
        if crashes:
            os.kill(os.getpid(), signal.SIGKILL)
        longest = LONGEST_DELAY.get(point, USUAL_DELAY)
        await asyncio.sleep(self._random.uniform(0.01, longest))
        self._history.write("healed", n=self._hits)


def _exists(path: Path) -> bool:
    return path.exists()


class Control:
    """The test's side of a server's control folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def arm(
        self,
        point: Point,
        action: Literal["hold", "crash"],
        operation: Operation | None,
    ) -> None:
        """Have the next call of this kind (None: the loop) stopped at the point."""
        order = json.dumps({"action": action, "operation": operation})
        draft = self.folder / f"{point}.draft"
        draft.write_text(order, encoding="utf-8")
        draft.rename(self.folder / f"{point}.armed")

    def is_held(self, point: Point) -> bool:
        return (self.folder / f"{point}.held").exists()

    def let_go(self, point: Point) -> None:
        (self.folder / f"{point}.held").unlink()

    def switch(self, name: str, *, on: bool) -> None:
        path = self.folder / f"{name}.on"
        if on:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def set_number(self, name: str, value: float) -> None:
        """A number that the server reads again and again."""
        draft = self.folder / f"{name}.draft"
        draft.write_text(str(value), encoding="utf-8")
        draft.rename(self.folder / f"{name}.number")

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()

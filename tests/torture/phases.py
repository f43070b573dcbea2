"""Where a client process is, so that it can be killed there and nowhere else."""

from __future__ import annotations

import os
import signal
from typing import Literal, get_args

Phase = Literal["waiting", "holding", "renewing", "releasing"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class Phases:
    def __init__(self) -> None:
        self._last: str | None = None

    def die_when(self, phase: str) -> None:
        """Kill this process the next time that it reaches a phase."""
        self._last = phase

    def reached(self, phase: Phase) -> None:
        if phase == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

"""Waiting for what another process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE = 0.02


def eventually(condition: Callable[[], object], *, within: float = 30.0) -> bool:
    """Whether `condition` comes true within so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        threading.Event().wait(PAUSE)
    return bool(condition())

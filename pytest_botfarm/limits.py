"""Until when the running test may wait: pytest-timeout would end it, or the process."""

from __future__ import annotations

import pytest

from .client.clock import clock

LEAST_MARGIN, MARGIN = 2.0, 0.05
"""Seconds, and part of the timeout, that are left to give up and to tell of it, which
on a busy machine takes more than one second. A timeout of less than twice the first
leaves half of itself.
"""


class Limit:
    """A timeout of the running test, which began just now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        margin = max(min(LEAST_MARGIN, seconds / 2), seconds * MARGIN)
        self.ends = clock() + seconds - margin
        """The instant by which a wait gives up."""

    @property
    def advice(self) -> str:
        """How a test may wait longer whose wait it has cut short."""
        return (
            f"It gave up before the test's own timeout of {self.seconds:g} s.\n"
            "Allow the test more time (--timeout, or @pytest.mark.timeout)"
        )


LIMIT = pytest.StashKey[Limit]()
"""Where the config has that of the running test."""

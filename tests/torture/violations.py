"""What the checker finds, and the intervals that it reasons with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .evidence import Fault

TOLERANCE = 0.05
"""Seconds between the history's clock, which nobody sets, and the database's, which
the machine may slew meanwhile."""
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


class Stalls:
    """The times in which faults may have kept every server from its work.

    Or some server or client, where kinds of faults are named that do this.
    """

    AFTERMATH = 3.0
    """Seconds until connections are back: a pause before each new try."""

    def __init__(self, faults: Iterable[Fault], besides: Collection[str] = ()) -> None:
        self._spans = merged(
            (
                fault.start,
                FOREVER
                if fault.end is None
                else max(fault.end, fault.start + (fault.stalls or 0.0))
                + self.AFTERMATH,
            )
            for fault in faults
            if fault.stalls is not None or fault.kind in besides
        )

    def within(self, start: float, end: float) -> float:
        """How much of the time from `start` to `end` was disturbed."""
        return sum(
            max(0.0, min(end, stop) - max(start, begin)) for begin, stop in self._spans
        )


def merged(spans: Iterable[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    result: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result

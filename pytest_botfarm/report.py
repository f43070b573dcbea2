"""What a run tells of its leases: in failed tests, in the header, at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from .options import is_configured

if TYPE_CHECKING:
    from .client.models import Outcome
    from .session import Holding

SECTION = "botfarm"
ATTRIBUTE = "botfarm"
"""Of a test report: pytest-xdist carries it from the worker to the controller, report
by report, so that a worker's crash takes no more than its last test's figures along."""


class Record:
    """What became of the leases of one test, and of the test."""

    def __init__(self) -> None:
        self.outcome: Outcome = "unknown"
        self.holdings: list[Holding] = []
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.is_over = False
        """Whether all was given back."""

    def note_outcome(self, report: pytest.TestReport) -> None:
        self.outcome = _outcome(report) or self.outcome

    def describe(self) -> str:
        """Which accounts the test had, for the section of a failed test."""
        lines = []
        for holding in self.holdings:
            lease = holding.lease
            if lease is None:
                wants = " and ".join(str(want) for want in holding.wants)
                lines.append(f"{wants}: not leased (lease {holding.id})")
                continue
            lines += [
                f"{user.login} ({user.env}/{user.domain}): lease {lease.id}, "
                f"fence {user.fence}, waited {lease.waited:.2f} s"
                + (", was dirty" if user.dirty else "")
                for user in holding.users
            ]
        return "\n".join(lines)

    def figures(self) -> dict[str, Any]:
        """Plain values, since they go through pytest-xdist's serialisation."""
        waits = [holding.lease.waited for holding in self.holdings if holding.lease]
        return {
            "leases": len(waits),
            "longest_wait": max(waits, default=0.0),
            "lost": list(self.lost),
            "notes": list(self.notes),
        }


class SharedRecord(Record):
    """Of all tests of a class, a module, a package or a session."""

    def note_outcome(self, report: pytest.TestReport) -> None:
        self.outcome = max(
            self.outcome, _outcome(report) or "unknown", key=_WORSE.index
        )


_WORSE: Sequence[Outcome] = ("unknown", "skipped", "passed", "failed", "error")
"""What the tests of a scope came to is the worst that one of them came to."""


def _outcome(report: pytest.TestReport) -> Outcome | None:
    if report.when == "setup" and report.failed:
        return "error"
    return report.outcome if report.when == "call" or report.skipped else None


RECORD = pytest.StashKey[Record]()


def add_to_report(item: pytest.Item, report: pytest.TestReport) -> None:
    """Tell what the test had where it failed, and the figures of what is over."""
    noded = [(node, node.stash.get(RECORD, None)) for node in item.listchain()]
    records = [(node, record) for node, record in noded if record is not None]
    for _, record in records:
        record.note_outcome(report)
    text = "\n".join(filter(None, (record.describe() for _, record in records)))
    if report.failed and text:
        report.sections.append((SECTION, text))
    over = [(node, record) for node, record in records if record.is_over]
    if report.when == "teardown" and over:
        setattr(report, ATTRIBUTE, [record.figures() for _, record in over])
        for node, _ in over:
            del node.stash[RECORD]  # a rerun, or the next set-up, begins anew


class Summary:
    """Adds up the figures of all tests, in whichever process they ran."""

    def __init__(self) -> None:
        self.leases = 0
        self.lost = 0
        self.longest_wait = 0.0
        self.longest_waiter = ""
        self.lines: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for figures in getattr(report, ATTRIBUTE, ()):
            self._add(report.nodeid, figures)

    def _add(self, nodeid: str, figures: Mapping[str, Any]) -> None:
        self.leases += figures["leases"]
        if figures["longest_wait"] > self.longest_wait:
            self.longest_wait = figures["longest_wait"]
            self.longest_waiter = nodeid
        self.lost += len(figures["lost"])
        self.lines += [f"lost in {nodeid}: {lost}" for lost in figures["lost"]]
        self.lines += figures["notes"]

    def write(self, terminal: pytest.TerminalReporter, notes: list[str]) -> None:
        lines = [*self.lines, *notes]
        if not self.leases and not lines:
            return
        terminal.section("botfarm")
        if self.leases:
            longest = f"longest wait {self.longest_wait:.2f} s"
            if self.longest_waiter:
                longest += f" ({self.longest_waiter})"
            leases = "1 lease" if self.leases == 1 else f"{self.leases} leases"
            terminal.write_line(f"{leases}, {longest}, {self.lost} lost")
        for line in lines:
            terminal.write_line(line, yellow=True)


def header(config: pytest.Config) -> str | None:
    """One line on where accounts come from; none where that was never said."""
    if not is_configured(config):
        return None
    from .settings import read_settings  # noqa: PLC0415  # most runs need none

    try:
        settings = read_settings(config)
    except pytest.UsageError as error:
        return f"botfarm: {error}"
    source = settings.url or f"embedded, pool {settings.pool and settings.pool.name}"
    return f"botfarm: {source} (lease {settings.ttl:g} s, wait {settings.wait:g} s)"

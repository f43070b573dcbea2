"""What a run tells of its leases: in failed tests, in the header, at the end."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from .client.errors import BotfarmError
from .fixtures import FAULT, FIGURES
from .settings import read_settings

if TYPE_CHECKING:
    from uuid import UUID

    from .client.models import Outcome
    from .holding import Holding

SECTION = "botfarm"
LOGIN, LEASE, WAITED = PROPERTIES = "botfarm.login", "botfarm.lease", "botfarm.waited"
"""What a report in JUnit's format tells of each account."""
MAIN = "main"
"""The worker of a run without pytest-xdist."""
WORTH_TELLING = 0.01
"""Seconds of a wait from which on its test is named."""
ALLURE = "allure_listener"
"""The name of allure-pytest's plugin where it writes a report."""


class LeaseFigures(TypedDict):
    """What is told of one lease. Instants are seconds since 1970."""

    id: str
    test: str
    worker: str
    pools: list[str]
    users: list[tuple[str, str]]
    """Login, and env with domain."""
    asked: float
    answered: float
    ended: float | None
    lost: float | None
    kept: float | None
    """Until when, for a person to look at."""
    waited: float
    outcome: str
    quarantined: dict[str, str]


class Record:
    """What became of the leases of a test or of all tests of a scope, and of these."""

    def __init__(self, test_id: str, fixture: str | None) -> None:
        self.test_id = test_id
        self.fixture = fixture
        self.outcome: Outcome = "unknown"
        self.holdings: list[Holding] = []
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.given_back: Sequence[UUID] = ()
        """What an earlier run of the test had kept."""
        self.is_over = False
        """Whether all was given back."""
        self._told = 0, False

    def serves(self, item: pytest.Item) -> bool:
        """Whether a test asks for the fixture that has this record, or has done so."""
        # What it asked for while it ran, by getfixturevalue, pytest tells there alone.
        asked = getattr(getattr(item, "_request", None), "fixturenames", ())
        return self.fixture in {*getattr(item, "fixturenames", ()), *asked}

    def note(self, text: str) -> None:
        """Tell something in the report of a failed test, and in the summary."""
        if text not in self.notes:
            self.notes.append(text)

    def note_outcome(self, report: pytest.TestReport) -> None:
        self.outcome = max(
            self.outcome, _outcome(report) or "unknown", key=_WORSE.index
        )

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
                f"{user}: lease {lease.id}, "
                f"fence {user.fence}, waited {lease.waited:.2f} s"
                + (", was dirty" if user.dirty else "")
                for user in lease.users
            ]
            keeping = holding.keeping
            goes_on = holding.kept or holding.ended is None
            if keeping is not None and goes_on and keeping.is_for(self.outcome):
                lines.append(f"  {keeping.intention(lease)}")
        return "\n".join([*lines, *self.notes])

    def properties(self) -> Iterator[tuple[str, str]]:
        """The same, one by one, for reports that programs read."""
        for holding in self.holdings:
            for user in holding.users:
                yield LOGIN, user.login
                yield LEASE, str(holding.id)
                if holding.lease:
                    yield WAITED, f"{holding.lease.waited:.2f}"

    def news(self) -> Iterator[dict[str, Any]]:
        """The figures, where they are others than at the call before.

        A test that ends its process has told by then what its set-up leased.
        """
        granted = sum(holding.lease is not None for holding in self.holdings)
        state = granted, self.is_over
        if state != self._told:
            self._told = state
            yield self.figures()

    def figures(self) -> dict[str, Any]:
        """Plain values, since they go through pytest-xdist's serialisation."""
        return {
            "leases": [
                _figures_of(self, holding)
                for holding in self.holdings
                if holding.answered is not None
            ],
            "lost": list(self.lost) if self.is_over else [],
            "notes": list(self.notes) if self.is_over else [],
            "kept": {str(it.id): it.kept for it in self.holdings if it.kept},
            "given_back": list(map(str, self.given_back)) if self.is_over else [],
        }


_WORSE: Sequence[Outcome] = ("unknown", "skipped", "passed", "failed", "error")
"""What tests came to is the worst that one of them, or of their subtests, came to."""


def _outcome(report: pytest.TestReport) -> Outcome | None:
    if report.when == "setup" and report.failed:
        return "error"
    return report.outcome if report.when == "call" or report.skipped else None


def _figures_of(record: Record, holding: Holding) -> LeaseFigures:
    # What fills a holding has imported it.
    from .client.clock import wall_time  # noqa: PLC0415

    def told(instant: float | None) -> float | None:
        return None if instant is None else wall_time(instant)

    asked, answered = holding.asked or 0.0, holding.answered or 0.0
    # The way there and back is not waiting, nor is the first connection.
    waited = holding.lease.waited if holding.lease else answered - asked
    return {
        "id": str(holding.id),
        "test": record.test_id,
        "worker": "",
        "pools": sorted({str(replace(want, count=1)) for want in holding.wants}),
        "users": [(user.login, f"{user.env}/{user.domain}") for user in holding.users],
        "asked": wall_time(answered - waited),
        "answered": wall_time(answered),
        "ended": told(holding.ended if holding.lease else holding.answered),
        "lost": told(holding.loss.at if holding.loss else None),
        "kept": told(holding.kept_until),
        "waited": waited,
        "outcome": record.outcome if record.is_over else "unknown",
        "quarantined": dict(holding.quarantined),
    }


RECORDS = pytest.StashKey[list[Record]]()
"""Of all fixtures of a node: it may be that of several scopes."""


def add_to_report(item: pytest.Item, report: pytest.TestReport) -> None:
    """Tell what the test had, and the figures of what is new or over."""
    records = [
        (node, record)
        for node in item.listchain()
        for record in node.stash.get(RECORDS, ())
    ]
    used = [record for node, record in records if node is item or record.serves(item)]
    for record in used:
        record.note_outcome(report)
    over = [(node, record) for node, record in records if record.is_over]
    if report.when == "teardown" and report.failed:
        for _, record in over:
            if record in used or record.lost:
                record.outcome = "error"  # it was not when the lease was given back
    _describe_accounts(item, report, used)
    if figures := [news for _, record in records for news in record.news()]:
        setattr(report, FIGURES, figures)
    if report.when == "teardown":
        for node, record in over:  # a rerun, or the next set-up, begins anew
            node.stash[RECORDS].remove(record)


def _describe_accounts(
    item: pytest.Item, report: pytest.TestReport, records: Sequence[Record]
) -> None:
    text = "\n".join(filter(None, (record.describe() for record in records)))
    # Passed tests, too: `-rP` shows the section, and pytest-html does.
    if text and (report.failed or report.when == "call"):
        report.sections.append((SECTION, text))
    properties = [pair for record in records for pair in record.properties()]
    for told in (item.user_properties, report.user_properties):
        # Those of an earlier phase, or of an earlier run of the test, go.
        others = [pair for pair in told if pair[0] not in PROPERTIES]
        told[:] = [*others, *properties]
    logins = [value for name, value in properties if name == LOGIN]
    if logins and item.config.pluginmanager.has_plugin(ALLURE):
        import allure  # noqa: PLC0415  # it is there, and not before

        # Left out of what tells a test's history, which goes on with any account.
        allure.dynamic.parameter("account", ", ".join(logins), excluded=True)


def add_fault(
    report: pytest.TestReport, faults: Container[str], error: BaseException
) -> None:
    """Note that a test ended for one of the faults of the whole run."""
    # Marks raise a failure of pytest's, with the same words.
    kinds = (BotfarmError, pytest.UsageError, pytest.fail.Exception)
    if isinstance(error, kinds) and (text := str(error)) in faults:
        setattr(report, FAULT, text)


class Summary:
    """Adds up the figures of all tests, in whichever process they ran, and tells what
    is wrong with the whole run once.
    """

    def __init__(self) -> None:
        self.leases: dict[tuple[str, float], LeaseFigures] = {}
        """By their ids, which several tests may have had, and by when they had them."""
        self.lines: list[str] = []
        self._lost = 0
        self._kept: dict[str, str] = {}
        self._faults: dict[str, str] = {}
        """Which test told each first."""

    def add(self, report: pytest.TestReport) -> None:
        for figures in getattr(report, FIGURES, ()):
            self._add(report, figures)
        fault = getattr(report, FAULT, None)
        if fault is not None:
            self._tell_once(report, fault)

    def note_crash(self, worker_id: str) -> None:
        """End what a worker had when it died."""
        from .client.clock import clock, wall_time  # noqa: PLC0415  # as in a holding

        for lease in self.leases.values():
            if lease["worker"] == worker_id and not lease["ended"]:
                lease["ended"] = wall_time(clock())
                lease["outcome"] = "crashed"

    def _tell_once(self, report: pytest.TestReport, fault: str) -> None:
        first = self._faults.setdefault(fault, report.nodeid)
        if first != report.nodeid:
            report.longrepr = f"No account, for the reason that {first} tells."
            report.sections = [it for it in report.sections if it[0] != SECTION]

    def _add(self, report: pytest.TestReport, figures: Mapping[str, Any]) -> None:
        for lease in figures["leases"]:
            lease["worker"] = getattr(report, "worker_id", MAIN)
            self.leases[lease["id"], lease["answered"]] = lease
        self._lost += len(figures["lost"])
        self.lines += [f"lost in {report.nodeid}: {lost}" for lost in figures["lost"]]
        # Several tests and workers may have noticed the same.
        self.lines += [it for it in figures["notes"] if it not in self.lines]
        for lease_id in figures["given_back"]:
            self._kept.pop(lease_id, None)
            for lease in self.leases.values():
                if lease["id"] == lease_id:
                    lease["kept"] = None
        self._kept |= figures["kept"]

    def write(self, terminal: pytest.TerminalReporter, notes: list[str]) -> None:
        # What is true of the run, each of its tests may have noted.
        told = dict.fromkeys([*self.lines, *self._kept.values(), *notes])
        lines = list(told)
        if not self.leases and not lines:
            return
        terminal.section("botfarm")
        leases = list(self.leases.values())
        if leases:
            terminal.write_line(f"{_waits(leases)}, {self._lost} lost")
        pools = sorted({pool for lease in leases for pool in lease["pools"]})
        for pool in pools if len(pools) > 1 else ():
            of_pool = [lease for lease in leases if pool in lease["pools"]]
            terminal.write_line(f"  {pool}: {_waits(of_pool)}")
        for line in lines:
            terminal.write_line(line, yellow=True)


def _waits(leases: Sequence[LeaseFigures]) -> str:
    """How many leases there were, and how long they were waited for, also in vain."""
    from statistics import median  # noqa: PLC0415  # only where there was a lease

    held = sum(bool(lease["users"]) for lease in leases)
    text = "1 lease" if held == 1 else f"{held} leases"
    if missed := len(leases) - held:
        text += f", {missed} not leased"
    longest = max(leases, key=lambda lease: lease["waited"])
    text += f", longest wait {longest['waited']:.2f} s"
    if longest["waited"] >= WORTH_TELLING:
        text += f" ({longest['test']})"
    if len(leases) > 1:
        text += f", median {median(lease['waited'] for lease in leases):.2f} s"
    return text


def header(config: pytest.Config) -> str:
    """One line on where accounts come from."""
    settings = read_settings(config)
    source = settings.url or f"embedded, pool {settings.pool and settings.pool.name}"
    return f"botfarm: {source} (lease {settings.ttl:g} s, wait {settings.wait:g} s)"

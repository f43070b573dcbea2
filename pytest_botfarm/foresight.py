"""What is known before the first test runs: whether there are accounts enough."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from .client.errors import BotfarmError
from .client.models import Want
from .client.wire import wants_body
from .configured import FORESEES, RENDEZVOUS, session_of
from .fixtures import FIXTURES, MARK
from .session import LeaseSession
from .wants import wishes_of_marks
from .xdist import REFUSED, tell

if TYPE_CHECKING:
    from .client.models import Prospect
    from .settings import Settings
    from .wants import Wish

PATIENCE = 2.0
"""Seconds for which the server is tried. The tests tell what is wrong with it."""
FACTORY = "pytest_botfarm_make_user"
"""The hook that makes accounts, so that a pool need not exist."""
NO_RUNS = ("setupplan", "showfixtures", "show_fixtures_per_test")
"""Options of pytest that collect tests and run none."""
MOST_TESTS = 3
"""How many tests a report names; the others are counted."""


@dataclass
class Ask:
    """What some tests ask for before they start, each for itself."""

    wants: Sequence[Want]
    is_marked: bool
    """Whether marks say so, and not only that the pool is the default."""
    problem: str | None = None
    """Why nothing can be asked for, where neither mark nor option says what."""
    tests: list[str] = field(default_factory=list)


@dataclass
class Demand:
    """What all tests want of a pool."""

    pool: Want
    accounts: int
    needs: list[int] = field(default_factory=list)
    """How many accounts each of the tests wants at once."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A pool that cannot serve all workers that want it."""

    pool: str
    accounts: str
    each: str
    """What the tests want at least, where that is more than one account."""
    workers: int
    without: int
    """How many of the workers find none while the others have theirs."""

    @property
    def foretold(self) -> str:
        """What the run says before its tests."""
        return (
            f"{self.accounts} in {self.pool}{self.each} for {self.workers} workers: "
            f"{self.without} of them will wait"
        )

    @property
    def told(self) -> str:
        """What it says behind them. Whether any worker waited, the waits tell."""
        return (
            f"{self.pool} had {self.accounts}{self.each} for {self.workers} workers: "
            f"too few for {self.without} of them"
        )


def foresee(session: pytest.Session) -> None:
    """Compare what the tests want with what there is.

    What can never be granted is an error of the collection, told once for all tests;
    a pool smaller than the number of workers is a line. A server that does not answer
    is left to the tests.
    """
    config = session.config
    workerinput = getattr(config, "workerinput", None)
    workers = 1 if workerinput is None else workerinput["workercount"]
    leases = session_of(config)
    settings = _settings_to_check(config, leases)
    if settings is None:
        return
    asks = asks_of(session.items, settings, workers)
    _report(config, [(ask, ask.problem) for ask in asks])
    asks = [ask for ask in asks if ask.problem is None]
    if settings.pool_limit is not None and _can_make_accounts(config):
        return
    try:
        prospects = _check(leases, asks)
    except BotfarmError:
        return
    pairs = list(zip(asks, prospects, strict=True))
    _report(config, [(ask, it.refusal) for ask, it in pairs if ask.is_marked])
    if workerinput is not None:
        for shortage in shortages(demands_of(asks, prospects), workers):
            tell(workerinput[RENDEZVOUS], "foretell", shortage.foretold)
            tell(workerinput[RENDEZVOUS], "note", shortage.told)


def _settings_to_check(config: pytest.Config, leases: LeaseSession) -> Settings | None:
    """None where it is not for this process to look ahead, or nothing can be known."""
    workerinput = getattr(config, "workerinput", None)
    if any(config.getoption(name, None) for name in NO_RUNS):
        return None
    if workerinput is not None and not workerinput.get(FORESEES):
        return None
    try:
        return leases.settings
    except pytest.UsageError:
        return None


def _can_make_accounts(config: pytest.Config) -> bool:
    factory = getattr(config.hook, FACTORY, None)
    return factory is not None and bool(factory.get_hookimpls())


def _check(leases: LeaseSession, asks: Sequence[Ask]) -> Sequence[Prospect]:
    if not asks:
        return ()
    wants = [ask.wants for ask in asks]
    return leases.aside(lambda protocol: protocol.check(wants, patience=PATIENCE))


# What tests ask for


def asks_of(
    items: Iterable[pytest.Item], settings: Settings, workers: int
) -> Sequence[Ask]:
    """The distinct asks of the tests that will run, as far as it can be known."""
    asks: dict[str, Ask] = {}
    for item in items:
        if FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) or _may_skip(item):
            continue
        try:
            wishes = wishes_of_marks(item.nodeid, item.iter_markers(MARK))
        except pytest.UsageError:
            continue  # a hook added the mark: no fault but of this test, which tells it
        is_marked, problem = bool(wishes), None
        try:
            wants = _of_marks(wishes, settings) if is_marked else _of_calls(settings)
        except pytest.UsageError as error:
            wants, problem = (), str(error)
        # The default pool, which a call may well not mean, is no error; so with one
        # worker there is nothing that could be told of it.
        if problem or (wants and (is_marked or workers > 1)):
            key = json.dumps([is_marked, wants_body(wants), problem], sort_keys=True)
            asks.setdefault(key, Ask(wants, is_marked, problem))
            asks[key].tests.append(item.nodeid)
    return list(asks.values())


def _of_marks(wishes: Iterable[Wish], settings: Settings) -> Sequence[Want]:
    return [wish.with_defaults(settings).want() for wish in wishes]


def _of_calls(settings: Settings) -> Sequence[Want]:
    if settings.env is None or settings.domain is None:
        return ()
    return [Want(settings.env, settings.domain)]


def _may_skip(item: pytest.Item) -> bool:
    """Whether the test may be skipped, or is expected to fail."""
    if item.get_closest_marker("skip") or item.get_closest_marker("xfail"):
        return True
    # A condition that is text is evaluated where the test runs.
    for mark in item.iter_markers("skipif"):
        conditions = mark.args or (mark.kwargs.get("condition"),)
        if any(condition is not False for condition in conditions):
            return True
    places = getattr(item, "obj", None), getattr(item, "cls", None)
    return any(getattr(place, "__unittest_skip__", False) for place in places)


# What is told


def _report(config: pytest.Config, refusals: Iterable[tuple[Ask, str | None]]) -> None:
    """Each an error of the file that has the first of the tests.

    With `--last-failed` the next run then knows what to run again.
    """
    for ask, refusal in refusals:
        if refusal is None:
            continue
        named = ", ".join(ask.tests[:MOST_TESTS])
        if (more := len(ask.tests) - MOST_TESTS) > 0:
            named += f" and {more} more"
        file = ask.tests[0].partition("::")[0]
        told = f"{refusal}\nThe mark bot_user asks for it in {named}."
        report = pytest.CollectReport(file, "failed", told, [])
        setattr(report, REFUSED, True)
        config.hook.pytest_collectreport(report=report)


def demands_of(asks: Sequence[Ask], prospects: Sequence[Prospect]) -> list[Demand]:
    """The demand for each pool that has any accounts."""
    demands: dict[str, Demand] = {}
    for ask, prospect in zip(asks, prospects, strict=True):
        wanted: dict[str, int] = {}
        for want, accounts in zip(ask.wants, prospect.matching, strict=True):
            pool = replace(want, count=1)
            demands.setdefault(str(pool), Demand(pool, accounts))
            wanted[str(pool)] = wanted.get(str(pool), 0) + want.count
        for name, count in wanted.items():
            demands[name].needs += [count] * len(ask.tests)
    return [demand for demand in demands.values() if demand.accounts]


def shortages(demands: Iterable[Demand], workers: int) -> Iterator[Shortage]:
    """The pools that cannot serve all workers that will want them."""
    for demand in demands:
        wanting, least = min(workers, len(demand.needs)), min(demand.needs)
        without = wanting - demand.accounts // least
        if without > 0:
            accounts = counted(demand.accounts, "account")
            each = f", at least {least} a test," if least > 1 else ""
            yield Shortage(str(demand.pool), accounts, each, wanting, without)


def counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"

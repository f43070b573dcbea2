"""What a server process tells Prometheus: what it has counted, and what there is.

Nothing of it names a login, a test, a token or a project: each label has few values,
whatever callers send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args
from uuid import UUID

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from botfarm_server.domain.census import Census, LiveState
from botfarm_server.domain.models import EndedState, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WAITS = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
"""Seconds that tests wait for users, up to twice what the plugin lets them."""
HAND_ONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds: milliseconds are promised, and a second is what a lost word costs."""


@dataclass(frozen=True, slots=True)
class Process:
    """What can be read off a server process at any moment."""

    version: str
    database: str
    """Its kind."""
    connections: int
    """Most that it may have to the database."""
    connections_in_use: Callable[[], int]
    waiting_calls: Callable[[], int]


class Metrics:
    """What one app has counted since it was made; several in a process count apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._granted = self._counter(
            "botfarm_leases_granted",
            "Leases granted by this process, by whether they had to wait.",
            "waited",
        )
        self._waits = Histogram(
            "botfarm_lease_wait_seconds",
            "How long leases waited that had to, until they were granted.",
            buckets=WAITS,
            registry=self._registry,
        )
        self._hand_ons = Histogram(
            "botfarm_hand_on_seconds",
            "From the grant of a waiter until its call here has heard of it.",
            buckets=HAND_ONS,
            registry=self._registry,
        )
        self._ended = self._counter(
            "botfarm_leases_ended",
            "Leases ended by this process, by how and by the outcome of their tests.",
            "state",
            "outcome",
        )
        self._renewals = self._counter(
            "botfarm_renewals",
            "Leases in heartbeats that came here, renewed or found to be lost.",
            "result",
        )
        self._errors = self._counter(
            "botfarm_errors", "Calls answered with an error, by its code.", "error"
        )
        self._requests = self._counter(
            "botfarm_http_requests",
            "Calls answered, by operation and class of status.",
            "operation",
            "status",
        )
        self._looked = Gauge(
            "botfarm_expiry_last_success_timestamp_seconds",
            "When this process last looked for expired leases to the end.",
            registry=self._registry,
        )
        # A rate sees the first of a kind only where there was a zero before it.
        for waited in ("false", "true"):
            self._granted.labels(waited)
        for result in ("renewed", "lost"):
            self._renewals.labels(result)
        for state in get_args(EndedState):
            self._ended.labels(state, "none")

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, labels, registry=self._registry)

    def watch(self, process: Process) -> None:
        """Tell of the process as well."""
        ProcessCollector(registry=self._registry)
        for name, told, read in (
            (
                "botfarm_waiting_calls",
                "Calls that wait for leases at this process.",
                process.waiting_calls,
            ),
            (
                "botfarm_database_connections_in_use",
                "Connections to the database that are in use at this moment.",
                process.connections_in_use,
            ),
            (
                "botfarm_database_connections",
                "Most connections to the database that this process may have.",
                lambda: process.connections,
            ),
        ):
            Gauge(name, told, registry=self._registry).set_function(read)
        build = {"version": process.version, "database": process.database}
        Gauge(
            "botfarm_build_info",
            "The version that runs, over which kind of database.",
            [*build],
            registry=self._registry,
        ).labels(**build).set(1)

    def granted(self, waits: Iterable[float], *, at_once: int) -> None:
        """Count grants: without a wait, and after so many seconds each."""
        self._granted.labels("false").inc(at_once)
        for seconds in waits:
            self._granted.labels("true").inc()
            self._waits.observe(seconds)

    def handed_on(self, seconds: float) -> None:
        self._hand_ons.observe(seconds)

    def ended(self, state: EndedState, outcome: Outcome | None) -> None:
        self._ended.labels(state, outcome or "none").inc()

    def renewed(self, number: int, *, lost: int) -> None:
        self._renewals.labels("renewed").inc(number)
        self._renewals.labels("lost").inc(lost)

    def refused(self, error: str) -> None:
        self._errors.labels(error).inc()

    def answered(self, operation: str, status: int) -> None:
        self._requests.labels(operation, f"{status // 100}xx").inc()

    def looked(self) -> None:
        self._looked.set_to_current_time()

    def exposition(self, census: Census | None, project_id: UUID | None) -> bytes:
        """All of it as text; to callers of a project, what there is of it alone.

        What a process has counted tells of all projects, so that those do not get it.
        """
        families: list[Metric] = [
            GaugeMetricFamily(
                "botfarm_database_up",
                "Whether the database could be read for this answer.",
                value=census is not None,
            )
        ]
        if census is not None:
            families += _gauges(census.known_to(project_id))
        if project_id is None:
            families += self._registry.collect()
        return generate_latest(_Families(families))


class _Families:
    """What `generate_latest` takes in the place of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            # When each counter was made is told by none but the client library.
            family.samples = [
                it for it in family.samples if not it.name.endswith("_created")
            ]
            yield family


def _gauges(census: Census) -> list[Metric]:
    """What there is, with a zero for what there is none of."""
    pool = ("env", "domain")
    users = GaugeMetricFamily(
        "botfarm_users", "Users, by pool and state.", labels=(*pool, "state")
    )
    leases = GaugeMetricFamily(
        "botfarm_leases", "Leases that have not ended.", labels=("state",)
    )
    waiters = GaugeMetricFamily(
        "botfarm_waiters", "Leases that wait for a pool.", labels=pool
    )
    oldest = GaugeMetricFamily(
        "botfarm_oldest_waiter_seconds",
        "How long the oldest of them has waited.",
        labels=pool,
    )
    for it in census.by_pool():
        labels = (it.pool.env, it.pool.domain)
        for state, number in it.users.items():
            users.add_metric((*labels, state), number)
        waiters.add_metric(labels, it.waiters)
        oldest.add_metric(labels, it.oldest)
    for live in get_args(LiveState):
        number = sum(it.number for it in census.leases if it.state == live)
        leases.add_metric((live,), number)
    return [users, leases, waiters, oldest]

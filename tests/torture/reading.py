"""Evidence out of the histories in a folder, and out of the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from botfarm_server.store.dialects import database_url
from botfarm_server.store.engine import Database
from botfarm_server.store.tables import grants, leases, users

from .evidence import (
    Ask,
    Belief,
    Call,
    Evidence,
    Fault,
    GrantRow,
    LeaseRow,
    Rules,
    Sample,
    Seen,
    TakenBack,
    Told,
    Use,
    UserRow,
    WantRow,
)
from .history import Event, events


def evidence_of(folder: Path, rules: Rules) -> Evidence:
    """All that the histories of a run tell; the database is added by `add_rows`."""
    reader = _Reader()
    for event in events(folder):
        handler = getattr(reader, f"on_{event.kind}", None)
        if handler is not None:
            handler(event)
    return reader.evidence(rules)


class _Reader:
    """Puts beginnings and ends together; what only began is kept as unknown."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int], tuple[Event, Event | None]] = {}
        self._failed: dict[tuple[str, int], float] = {}
        self._asks: dict[str, tuple[Event, Event | None]] = {}
        self._beliefs: dict[str, _OpenBelief] = {}
        self._uses: dict[tuple[str, int], tuple[Event, Event | None]] = {}
        self._faults: dict[tuple[str, int], tuple[Event, Event | None]] = {}
        self._seen: list[Seen] = []
        self._samples: list[Sample] = []
        self._killed: dict[str, float] = {}
        self._taken_back: list[TakenBack] = []

    def on_call(self, event: Event) -> None:
        self._calls[event.process, event["n"]] = (event, None)

    def on_answer(self, event: Event) -> None:
        began, _ = self._calls[event.process, event["n"]]
        self._calls[event.process, event["n"]] = (began, event)

    def on_failed(self, event: Event) -> None:
        self._failed[event.process, event["n"]] = event.at

    def on_ask(self, event: Event) -> None:
        self._asks[event["lease"]] = (event, None)

    def on_asked(self, event: Event) -> None:
        began, _ = self._asks[event["lease"]]
        self._asks[event["lease"]] = (began, event)

    def on_held(self, event: Event) -> None:
        self._beliefs[event["lease"]] = _OpenBelief(event)

    def on_extended(self, event: Event) -> None:
        self._beliefs[event["lease"]].deadline = event["deadline"]

    def on_over(self, event: Event) -> None:
        belief = self._beliefs[event["lease"]]
        belief.ended = min(belief.ended, event.at)

    def on_use(self, event: Event) -> None:
        self._uses[event.process, event["n"]] = (event, None)

    def on_used(self, event: Event) -> None:
        began, _ = self._uses[event.process, event["n"]]
        self._uses[event.process, event["n"]] = (began, event)

    def on_seen(self, event: Event) -> None:
        self._seen.append(Seen(**event.facts))

    def on_fault(self, event: Event) -> None:
        self._faults[event.process, event["n"]] = (event, None)

    def on_healed(self, event: Event) -> None:
        began, _ = self._faults[event.process, event["n"]]
        self._faults[event.process, event["n"]] = (began, event)

    def on_sample(self, event: Event) -> None:
        self._samples.append(Sample(at=event.at, **event.facts))

    def on_killed(self, event: Event) -> None:
        self._killed[event["victim"]] = event.at

    def on_taking_back(self, event: Event) -> None:
        self._taken_back.append(TakenBack(**event.facts))

    def evidence(self, rules: Rules) -> Evidence:
        return Evidence(
            rules=rules,
            calls=[
                _call(*both, self._failed.get(name))
                for name, both in self._calls.items()
            ],
            asks=[
                Ask(
                    process=began.process,
                    lease=began["lease"],
                    start=began.at,
                    wait=began["wait"],
                    end=ended.at if ended else None,
                    outcome=ended["outcome"] if ended else None,
                )
                for began, ended in self._asks.values()
            ],
            beliefs=[
                belief.closed(self._killed.get(belief.held.process))
                for belief in self._beliefs.values()
            ],
            uses=[
                Use(
                    process=began.process,
                    lease=began["lease"],
                    user=began["user"],
                    fence=began["fence"],
                    stamp=began["stamp"],
                    accepted=ended["accepted"] if ended else None,
                )
                for began, ended in self._uses.values()
            ],
            seen=self._seen,
            faults=[
                Fault(
                    kind=began["fault"],
                    target=began["target"],
                    start=began.at,
                    end=ended.at if ended else None,
                    stalls=began["stalls"],
                )
                for began, ended in self._faults.values()
            ],
            samples=self._samples,
            killed=self._killed,
            taken_back=self._taken_back,
        )


class _OpenBelief:
    def __init__(self, held: Event) -> None:
        self.held = held
        self.deadline: float = held["deadline"]
        self.ended = float("inf")

    def closed(self, killed: float | None) -> Belief:
        ends = [self.deadline, self.ended, killed or float("inf")]
        return Belief(
            process=self.held.process,
            lease=self.held["lease"],
            users=self.held["users"],
            start=self.held.at,
            end=min(ends),
        )


def _call(began: Event, ended: Event | None, failed: float | None) -> Call:
    return Call(
        process=began.process,
        operation=began["operation"],
        lease=began["lease"],
        start=began.at,
        end=ended.at if ended else None,
        status=ended["status"] if ended else None,
        code=ended["code"] if ended else None,
        told=[Told(**told) for told in ended["told"]] if ended else (),
        server=began["server"],
        waits=began["waits"],
        failed=failed,
    )


async def add_rows(evidence: Evidence, url: str) -> None:
    """Read what the database holds at the end."""
    database = Database(database_url(url), pool_size=2)
    try:
        async with database.read() as connection:
            lease_rows = (await connection.execute(select(leases))).all()
            grant_rows = (await connection.execute(select(grants))).all()
            user_rows = (await connection.execute(select(users))).all()
    finally:
        await database.dispose()
    evidence.leases = [_lease_row(row) for row in lease_rows]
    evidence.grants = [
        GrantRow(row.fence, str(row.lease_id), str(row.user_id)) for row in grant_rows
    ]
    kept = {grant.fence for grant in evidence.grants}
    known = {lease.id for lease in evidence.leases}
    # What was noted is so once it is committed: the rows are gone then.
    evidence.taken_back = [
        it
        for it in evidence.taken_back
        if it.lease in known and kept.isdisjoint(it.users.values())
    ]
    evidence.users = [
        UserRow(
            id=str(row.id),
            env=row.env,
            domain=row.domain,
            labels=row.labels,
            fence=row.fence,
            lease=str(row.lease_id) if row.lease_id else None,
        )
        for row in user_rows
    ]


def _lease_row(row: Any) -> LeaseRow:
    return LeaseRow(
        id=str(row.id),
        number=row.number,
        state=row.state,
        wants=_wants(row.wants),
        created=row.created_at.timestamp(),
        granted=_seconds(row.granted_at),
        expires=_seconds(row.expires_at),
        ended=_seconds(row.ended_at),
        fence=row.fence,
        party=f"{row.run_id} {row.worker_id}",
        reason=row.end_reason,
    )


def _wants(stored: Sequence[dict[str, Any]]) -> list[WantRow]:
    return [
        WantRow(want["env"], want["domain"], want["labels"], want["count"])
        for want in stored
    ]


def _seconds(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()

"""Made-up evidence of a run in which nothing was violated, to be broken by tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .evidence import (
    Ask,
    Belief,
    Call,
    Evidence,
    GrantRow,
    LeaseRow,
    Rules,
    Seen,
    Told,
    Use,
    UserRow,
    WantRow,
)

STAGE = WantRow("stage", "regular")
ALICE = "alice"


def sound() -> Evidence:
    """One user and three leases in turn: released, expired, released.

    The second and the third had to wait. Times are seconds from the beginning.
    """
    first = LeaseRow("first", 1, "released", [STAGE], 10.0, 10.0, 15.0, 12.0, 1)
    second = LeaseRow("second", 2, "expired", [STAGE], 11.0, 12.0, 17.0, 17.5, 2)
    third = LeaseRow("third", 3, "released", [STAGE], 11.5, 18.6, 23.0, 20.0, 3)
    leases = [replace(it, party=it.id) for it in (first, second, third)]
    return Evidence(
        rules=Rules(loop_interval=0.5, lock_delay=1.0, slack=1.0),
        leases=leases,
        grants=[
            GrantRow(lease.fence, lease.id, ALICE) for lease in leases if lease.fence
        ],
        users=[UserRow(ALICE, "stage", "regular", {}, fence=3)],
        asks=[
            Ask("client", lease.id, lease.created, 20.0, lease.granted, "held")
            for lease in leases
        ],
        calls=[
            Call("client", "ask", "first", 9.9, 10.1, 200, None, [told("first", 1)]),
            Call("client", "end", "first", 11.9, 12.1, 204, None, [over("first")]),
            Call("client", "ask", "second", 11.0, 12.1, 200, None, [told("second", 2)]),
            Call("client", "renew", None, 13.0),
            Call("client", "end", "second", 17.8, 18.0, 410, "lease_ended"),
            Call("client", "ask", "third", 11.5, 18.7, 200, None, [told("third", 3)]),
            Call("client", "end", "third", 19.9, 20.1, 204, None, [over("third")]),
        ],
        beliefs=[
            Belief("client", "first", {ALICE: 1}, 10.1, 11.9),
            Belief("client", "second", {ALICE: 2}, 12.1, 16.5),
            Belief("client", "third", {ALICE: 3}, 18.7, 19.9),
        ],
        uses=[
            Use("client", "first", ALICE, 1, 11.0, accepted=True),
            Use("client", "second", ALICE, 2, 16.4),
            Use("client", "third", ALICE, 3, 19.0, accepted=True),
        ],
        seen=[
            Seen(ALICE, 1, "first", accepted=True),
            Seen(ALICE, 3, "third", accepted=True),
            Seen(ALICE, 2, "second", accepted=False),
        ],
    )


def told(lease: str, fence: int) -> Told:
    return Told(lease, "held", {ALICE: fence})


def over(lease: str) -> Told:
    return Told(lease, "ended")


def change(items: list[Any], index: int, **changes: Any) -> None:
    """Break one of the rows."""
    items[index] = replace(items[index], **changes)

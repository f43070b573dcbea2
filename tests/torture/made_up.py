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


HOARD, RARE = WantRow("preprod", "regular"), WantRow("preprod", "canary")


def with_a_knot() -> Evidence:
    """Besides, two parties that have what the other one wants; the younger is refused.

    The last four leases are what each has, and what each waits for.
    """
    evidence = sound()
    evidence.leases += [
        LeaseRow("one has", 4, "released", [HOARD], 30.0, 30.0, 95.0, 33.0, 4, "one"),
        LeaseRow("two has", 5, "released", [RARE], 30.2, 30.2, 95.0, 32.0, 5, "two"),
        LeaseRow("one asks", 6, "released", [RARE], 30.5, 32.0, 95.0, 33.0, 6, "one"),
        LeaseRow(
            "two asks",
            7,
            "cancelled",
            [HOARD],
            31.0,
            ended=31.5,
            party="two",
            reason="deadlock",
        ),
    ]
    evidence.grants += [
        GrantRow(4, "one has", "carol"),
        GrantRow(5, "two has", "dave"),
        GrantRow(6, "one asks", "dave"),
    ]
    evidence.users += [
        UserRow("carol", "preprod", "regular", {}, fence=4),
        UserRow("dave", "preprod", "canary", {}, fence=6),
    ]
    evidence.asks += [
        Ask("client", lease.id, lease.created, 20.0, lease.granted, "held")
        for lease in evidence.leases[3:6]
    ]
    return evidence


def told(lease: str, fence: int) -> Told:
    return Told(lease, "held", {ALICE: fence})


def over(lease: str) -> Told:
    return Told(lease, "ended")


def change(items: list[Any], index: int, **changes: Any) -> None:
    """Break one of the rows."""
    items[index] = replace(items[index], **changes)

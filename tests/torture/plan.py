"""What the nemesis will do and when, drawn from a seed alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .phases import PHASES

DatabaseKind = Literal["postgresql", "sqlite"]
TargetKind = Literal["client", "server", "pair", "link", "database"]
"""A pair is a client and a server with the proxy between them; a link is that of a
server to its database.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how often, on what, and for how many seconds."""

    weight: float
    target: TargetKind
    seconds: tuple[float, float]
    only: DatabaseKind | None = None
    stalls: float | None = None
    """As in `Fault`."""


LOCK_OUTLIVES = 16.0
"""Seconds until PostgreSQL ends a transaction whose server is cut off."""

KINDS: Mapping[str, Kind] = {
    "kill-client": Kind(1, "client", (0.1, 1.0)),
    "kill-client-in-phase": Kind(2, "client", (0.1, 1.0)),
    "pause-client": Kind(1, "client", (6.0, 9.0)),
    "kill-server": Kind(0.6, "server", (0.1, 2.0), stalls=0.0),
    "pause-server": Kind(0.3, "server", (6.0, 9.0), stalls=LOCK_OUTLIVES),
    "skew-clock": Kind(5, "server", (1.0, 6.0)),
    "exhaust-pool": Kind(0.5, "server", (2.0, 8.0)),
    "drop": Kind(4, "pair", (0.3, 6.0)),
    "delay": Kind(8, "pair", (0.5, 4.0)),
    "cut": Kind(12, "pair", (0.5, 4.0)),
    "duplicate": Kind(12, "pair", (0.5, 4.0)),
    "refuse": Kind(5, "pair", (0.3, 3.0)),
    "database-drop": Kind(0.4, "link", (0.5, 4.0), "postgresql", LOCK_OUTLIVES),
    "database-delay": Kind(1, "link", (0.5, 3.0), "postgresql", 0.0),
    "database-cut": Kind(5, "link", (0.0, 0.0), "postgresql"),
    "deafen-listen": Kind(4, "link", (0.0, 0.0), "postgresql"),
    "lose-listen": Kind(6, "database", (0.0, 0.0), "postgresql"),
    "terminate-connections": Kind(6, "database", (0.0, 0.0), "postgresql"),
    "stop-database": Kind(0.3, "database", (0.1, 3.0), "postgresql", 0.0),
    "long-transaction": Kind(1.5, "database", (3.0, 10.0)),
    "disk-full": Kind(4, "server", (0.5, 3.0), "sqlite", 0.0),
}

LONGEST_DELAY = 0.3
"""Seconds by which a proxy holds up what passes."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    number: int
    at: float
    """Seconds from the first possible fault."""
    kind: str
    target: tuple[int, ...]
    """The number of the client or server, or both for a pair."""
    seconds: float
    delay: float
    phase: str


def kinds_for(database: DatabaseKind, wanted: Sequence[str] | None) -> list[str]:
    """The kinds that this database can suffer, of those that are wanted.

    Raises:
        ValueError: one of them does not exist, or not for this database.

    """
    possible = [name for name, kind in KINDS.items() if kind.only in {None, database}]
    if wanted is None:
        return possible
    if unknown := [name for name in wanted if name not in possible]:
        raise ValueError(
            f"there is no fault {', '.join(unknown)} on {database}; there are "
            f"{', '.join(possible)}"
        )
    return list(wanted)


def draw(
    seed: int,
    *,
    kinds: Sequence[str],
    seconds: float,
    rate: float,
    servers: int,
    clients: int,
) -> list[PlannedFault]:
    """Faults for so many seconds, at `rate` a second. The first ones are one of each
    kind, so that no run is without.
    """
    if not kinds:
        return []
    chance = random.Random(seed)
    first = list(kinds)
    chance.shuffle(first)
    weights = [KINDS[name].weight for name in kinds]
    plan: list[PlannedFault] = []
    at = 0.0
    while True:
        at += chance.expovariate(rate)
        if at > seconds:
            return plan
        name = first.pop() if first else chance.choices(kinds, weights)[0]
        client, server = chance.randrange(clients), chance.randrange(servers)
        plan.append(
            PlannedFault(
                number=len(plan) + 1,
                at=round(at, 3),
                kind=name,
                target=_target(KINDS[name].target, client, server),
                seconds=round(chance.uniform(*KINDS[name].seconds), 3),
                delay=round(chance.uniform(0.01, LONGEST_DELAY), 3),
                phase=chance.choice(PHASES),
            )
        )


def draw_each(
    seed: int,
    *,
    kinds: Sequence[str],
    each: float,
    rate: float,
    servers: int,
    clients: int,
) -> list[PlannedFault]:
    """Every kind on its own for `each` seconds, one after the other is healed."""
    plan: list[PlannedFault] = []
    start = 0.0
    for index, name in enumerate(kinds):
        alone = draw(
            seed * 1_009 + index,
            kinds=[name],
            seconds=each,
            rate=rate,
            servers=servers,
            clients=clients,
        )
        for fault in alone:
            at = round(start + fault.at, 3)
            plan.append(replace(fault, number=len(plan) + 1, at=at))
        start = max([start + each, *(it.at + it.seconds for it in plan)])
    return plan


def _target(kind: TargetKind, client: int, server: int) -> tuple[int, ...]:
    match kind:
        case "client":
            return (client,)
        case "server" | "link":
            return (server,)
        case "pair":
            return client, server
        case "database":
            return ()

"""Knots: holders that wait for each other, so that none of them can go on.

A party is whoever acts as one: a worker of a run that one token tells of, or a lease on
its own where its holder has no such names. A party that holds users while it waits
gives them back only once it has what it waits for.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from botfarm_server.domain.demand import Demand
from botfarm_server.domain.matching import Group
from botfarm_server.domain.models import Candidate, Lease, LeaseId, TokenId, Want

Party = tuple[TokenId | None, str, str] | LeaseId

MOST_STEPS = 1_000_000
"""Steps of one look, of some tenths of a microsecond each: all wait for it, behind the
lock. A thousand parties that wait in a ring take fewer."""


def party_of(lease: Lease) -> Party:
    """Who acts as one with the holder of this lease.

    Another token may use the same names, and where none is needed all are as one.
    """
    run_id, worker_id = lease.holder.run_id, lease.holder.worker_id
    if run_id is None or worker_id is None:
        return lease.id
    return lease.token_id, run_id, worker_id


@dataclass(frozen=True, slots=True)
class Claim:
    """A waiter whose party has users itself, held or kept for it."""

    lease_id: LeaseId
    number: int
    """Its place in the order of arrival: the youngest has the highest."""
    party: Party
    wants: Sequence[Want]
    within_reach: Sequence[Candidate]
    """Users that it could get without any claim being met first, besides those that all
    can: what is kept for it."""


def find_knots(
    claims: Sequence[Claim],
    possessions: Mapping[Party, Sequence[Candidate]],
    within_reach: Sequence[Candidate] = (),
    *,
    most_steps: int = MOST_STEPS,
) -> list[list[Claim]]:
    """The knots among `claims`, each with its youngest claim last.

    `possessions` are the users in rotation that the claims' parties have, and
    `within_reach` those that any claim could get: free ones that are not kept from all,
    resting ones, and those whose holders do not wait. It is taken for granted that
    whoever gets all that it waits for ends, and gives back what it has; whatever could
    still happen then is assumed to happen. What remains waits for ever, since a party
    that it depends on waits for it.

    Claims that have no user in common are looked at apart, the fewest first. Those for
    which the steps do not suffice are left out until fewer wait: what is found is a
    knot nonetheless.
    """
    work = _Work(most_steps)
    farm = _Farm(claims, possessions, within_reach)
    knots: list[frozenset[Party]] = []
    with suppress(_TooMuchWorkError):
        for part in farm.parts(work):
            knots += part.knots(work)
    knot_of = {party: knot for knot in knots for party in knot}
    found: defaultdict[frozenset[Party], list[Claim]] = defaultdict(list)
    for claim in sorted(claims, key=lambda it: it.number):
        if claim.party in knot_of:
            found[knot_of[claim.party]].append(claim)
    return list(found.values())


class _TooMuchWorkError(Exception):
    """A look would take too long."""


@dataclass
class _Work:
    left: int

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _TooMuchWorkError


@dataclass
class _Wait:
    """Claims of any parties that ask for the same, out of the same."""

    wants: Mapping[int, int]
    """How many of which users it asks for; sets of users are numbers, as in `Group`."""
    within_reach: int
    parties: set[Party] = field(default_factory=set)

    @property
    def users(self) -> int:
        """All that it could take."""
        return _union(self.wants)


class _Farm:
    def __init__(
        self,
        claims: Sequence[Claim],
        possessions: Mapping[Party, Sequence[Candidate]],
        within_reach: Sequence[Candidate],
    ) -> None:
        had = [user for users in possessions.values() for user in users]
        kept = [user for claim in claims for user in claim.within_reach]
        group = Group(list({it.id: it for it in (*had, *kept, *within_reach)}.values()))
        self._owned = {
            party: group.those(users) for party, users in possessions.items()
        }
        reach_of_all = group.those(within_reach)
        waits: dict[tuple[frozenset[tuple[int, int]], int], _Wait] = {}
        for claim in claims:
            wants: defaultdict[int, int] = defaultdict(int)
            for want in claim.wants:
                wants[group.meeting(want)] += want.count
            reach = group.those(claim.within_reach) | reach_of_all
            key = frozenset(wants.items()), reach
            waits.setdefault(key, _Wait(wants, reach)).parties.add(claim.party)
        self._waits = list(waits.values())

    def parts(self, work: _Work) -> list[_Part]:
        """Waits with the parties that have what they could take; the fewest first."""
        everything = _union(self._owned.values())
        parts: list[tuple[int, list[_Wait]]] = []
        for wait in self._waits:
            work.take(1 + len(parts) + len(wait.parties))
            its = [self._owned.get(party, 0) for party in wait.parties]
            users, waits = (wait.users & everything) | _union(its), [wait]
            apart = []
            for part in parts:
                if part[0] & users:
                    users |= part[0]
                    # The shorter list is added to the longer one.
                    longer, shorter = sorted((part[1], waits), key=len, reverse=True)
                    longer += shorter
                    waits = longer
                else:
                    apart.append(part)
            parts = [*apart, (users, waits)]
        part_of = {
            user: number
            for number, (users, _) in enumerate(parts)
            for user in _each(users)
        }
        owned: list[dict[Party, int]] = [{} for _ in parts]
        for party, users in self._owned.items():
            for number in {part_of[it] for it in _each(users) if it in part_of}:
                owned[number][party] = users
        found = [
            _Part(waits, its) for (_, waits), its in zip(parts, owned, strict=True)
        ]
        return sorted(found, key=lambda part: len(part.waits))


@dataclass
class _Part:
    """Waits, and all parties that have a user which one of them could take."""

    waits: Sequence[_Wait]
    owned: Mapping[Party, int]

    def knots(self, work: _Work) -> list[frozenset[Party]]:
        """The parties of each knot."""
        going = self._free_to_go(work)
        stuck = {it: users for it, users in self.owned.items() if it not in going}
        needed = dict.fromkeys(stuck, 0)
        for wait in self.waits:
            work.take(1 + len(wait.parties))
            users = wait.users
            for party in wait.parties:
                if party in stuck:
                    needed[party] |= users
        return _Dependence(stuck, needed, work).knots()

    def _free_to_go(self, work: _Work) -> set[Party]:
        """The parties of which some claim can be met, one after the other.

        A wait that cannot be met by what there is names users of whom too few are
        there. Until there are more of them, it is not looked at again.
        """
        everything = _union(self.owned.values())
        going: set[Party] = set()
        # What could not be met by all users together is refused when it asks again.
        for wait in self.waits:
            there = everything | wait.within_reach
            if Demand(wait.wants).lack(there, work.take) is not None:
                going |= wait.parties
        # Their numbers keep waits from being compared.
        ahead = [
            (number, wait, Demand(wait.wants)) for number, wait in enumerate(self.waits)
        ]
        given_back, gone = 0, set[Party]()
        lacking: defaultdict[tuple[int, int], list[tuple[int, int, _Wait, Demand]]] = (
            defaultdict(list)
        )
        while ahead or going - gone:
            for number, wait, demand in ahead:
                if wait.parties <= going:
                    continue
                lack = demand.lack(given_back | wait.within_reach, work.take)
                if lack is None:
                    going |= wait.parties
                else:
                    key = lack.users, lack.users & wait.within_reach
                    heapq.heappush(lacking[key], (lack.needed, number, wait, demand))
            for party in going - gone:
                given_back |= self.owned.get(party, 0)
            gone = set(going)
            ahead = []
            work.take(len(lacking))
            for (users, reach), those in lacking.items():
                number_there = (users & given_back | reach).bit_count()
                while those and those[0][0] <= number_there:
                    ahead.append(heapq.heappop(those)[1:])
        return going


@dataclass
class _Dependence:
    """Parties that are stuck, what they own, and what they need of it."""

    owned: Mapping[Party, int]
    needed: Mapping[Party, int]
    work: _Work

    def knots(self) -> list[frozenset[Party]]:
        """The sets of parties that all need each other, and nobody else."""
        owner = {bit: party for party, its in self.owned.items() for bit in _each(its)}
        found = []
        left = dict.fromkeys(self.owned)
        start = next(iter(left), None)
        while start is not None:
            reached = self._reached(start, owner)
            back = self._that_reach(start, reached)
            if reached and len(back) == len(reached):
                found.append(frozenset(reached))
                # Who is merely behind a knot is freed with it.
                over = {*reached, *self._that_reach(start, left)}
                ahead = None
            else:
                over = {start, *back}
                ahead = next((it for it in reversed(reached) if it not in over), None)
            for party in over:
                left.pop(party, None)
            start = ahead if ahead in left else next(iter(left), None)
        return found

    def _reached(self, start: Party, owner: Mapping[int, Party]) -> list[Party]:
        """Those on which a party depends, in the order in which they are found."""
        every = _union(self.owned.values())
        found, seen = [], 0
        ahead = self.needed[start] & every
        while ahead:
            self.work.take(1)
            party = owner[ahead & -ahead]
            found.append(party)
            seen |= self.owned[party]
            ahead = (ahead | self.needed[party] & every) & ~seen
        return found

    def _that_reach(self, start: Party, among: Collection[Party]) -> set[Party]:
        """Those that depend on a party, itself included if it does."""
        found: set[Party] = set()
        users, before = self.owned[start], -1
        # Found last, a party is most often nearest to where they come round again.
        rest = list(reversed(list(among)))
        while len(rest) != before:
            before = len(rest)
            behind = []
            self.work.take(before)
            for party in rest:
                if self.needed[party] & users:
                    found.add(party)
                    users |= self.owned[party]
                else:
                    behind.append(party)
            rest = behind
        return found


def _union(sets: Iterable[int]) -> int:
    every = 0
    for users in sets:
        every |= users
    return every


def _each(users: int) -> Iterable[int]:
    while users:
        lowest = users & -users
        yield lowest
        users ^= lowest

"""Knots: holders that wait for each other, so that none of them can go on.

A party is whoever acts as one: a worker of a run, or a lease on its own where its
holder has no such names. A party that holds users while it waits gives them back only
once it has what it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from botfarm_server.domain.matching import assign, matches
from botfarm_server.domain.models import Candidate, Holder, LeaseId, Want

Party = tuple[str, str] | LeaseId


def party_of(holder: Holder, lease_id: LeaseId) -> Party:
    """Who acts as one with the holder of this lease."""
    if holder.run_id is None or holder.worker_id is None:
        return lease_id
    return holder.run_id, holder.worker_id


@dataclass(frozen=True, slots=True)
class Claim:
    """A waiter whose party has users itself, held or kept for it."""

    lease_id: LeaseId
    number: int
    """Its place in the order of arrival: the youngest has the highest."""
    party: Party
    wants: Sequence[Want]
    within_reach: Sequence[Candidate]
    """Users that it could get without any claim being met first: free ones that are
    not kept from it, resting ones, and those whose holders do not wait."""


def find_knots(
    claims: Sequence[Claim], possessions: Mapping[Party, Sequence[Candidate]]
) -> list[list[Claim]]:
    """The knots among `claims`, each with its youngest claim last.

    `possessions` are the users in rotation that the claims' parties have. It is taken
    for granted that whoever gets all that it waits for ends, and gives back what it
    has; whatever could still happen then is assumed to happen. What remains waits for
    ever, since a party that it depends on waits for it.
    """
    free_to_go = _free_to_go(claims, possessions)
    stuck = [claim for claim in claims if claim.party not in free_to_go]
    needed = {
        claim.party: {
            party
            for other in stuck
            if other.party == claim.party
            for party in _owners(other, possessions)
            if party not in free_to_go
        }
        for claim in stuck
    }
    reachable = {party: _reachable(party, needed) for party in needed}
    knots: dict[frozenset[Party], list[Claim]] = {}
    for claim in sorted(stuck, key=lambda it: it.number):
        reached = reachable[claim.party]
        # Who is merely behind a knot is freed with it.
        if reached and all(claim.party in reachable[other] for other in reached):
            knots.setdefault(frozenset(reached), []).append(claim)
    return list(knots.values())


def _free_to_go(
    claims: Sequence[Claim], possessions: Mapping[Party, Sequence[Candidate]]
) -> set[Party]:
    """The parties of which some claim can be met, one after the other."""
    everything = [user for users in possessions.values() for user in users]
    going: set[Party] = set()
    # What could not be met by all users together is refused when it asks again.
    for claim in claims:
        if not assign(claim.wants, [*claim.within_reach, *everything]).complete:
            going.add(claim.party)
    went_on = True
    while went_on:
        went_on = False
        given_back = [user for party in going for user in possessions.get(party, ())]
        for claim in claims:
            if claim.party not in going:
                available = [*claim.within_reach, *given_back]
                if assign(claim.wants, available).complete:
                    going.add(claim.party)
                    went_on = True
    return going


def _owners(
    claim: Claim, possessions: Mapping[Party, Sequence[Candidate]]
) -> Iterable[Party]:
    """The parties that have a user which the claim could take."""
    return (
        party
        for party, users in possessions.items()
        if any(matches(want, user) for want in claim.wants for user in users)
    )


def _reachable(start: Party, needed: Mapping[Party, set[Party]]) -> set[Party]:
    found: set[Party] = set()
    ahead = [start]
    while ahead:
        for party in needed.get(ahead.pop(), ()):
            if party not in found:
                found.add(party)
                ahead.append(party)
    return found

"""The rules again, by trying everything: slow, and too simple to be wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from botfarm_server.domain.deadlock import Claim, Party
from botfarm_server.domain.models import Candidate, Want


def meets(want: Want, user: Candidate) -> bool:
    """Whether a user is what a want describes, for users of one project."""
    return (user.env, user.domain) == (want.env, want.domain) and set(
        want.labels.items()
    ) <= set(user.labels.items())


def most_met(wants: Sequence[Want], users: Sequence[Candidate]) -> int:
    """How many of the users that `wants` ask for there can be at once."""
    places: list[Want | None] = [want for want in wants for _ in range(want.count)]
    # A user may be left out, and a place may stay empty: so both are as many.
    chairs = [*places, *[None] * max(0, len(users) - len(places))]
    guests = [*users, *[None] * max(0, len(places) - len(users))]
    return max(
        sum(
            place is not None and guest is not None and meets(place, guest)
            for place, guest in zip(chairs, order, strict=True)
        )
        for order in itertools.permutations(guests)
    )


def can_be_met(wants: Sequence[Want], users: Sequence[Candidate]) -> bool:
    """Whether some choice of the users meets all wants at once."""
    places = [want for want in wants for _ in range(want.count)]
    return any(
        all(map(meets, places, chosen))
        for chosen in itertools.permutations(users, len(places))
    )


def parties_that_may_go_on(
    claims: Sequence[Claim], possessions: Mapping[Party, Sequence[Candidate]]
) -> set[Party]:
    """Those that get what they wait for in at least one of all possible futures.

    In a future one party after the other gets what one of its claims asks for, out of
    what is within its reach and what others gave back, and then gives all back.
    """
    seen: set[frozenset[Party]] = set()
    futures: list[frozenset[Party]] = [frozenset()]
    while futures:
        gone = futures.pop()
        if gone in seen:
            continue
        seen.add(gone)
        given_back = [user for party in gone for user in possessions.get(party, ())]
        futures.extend(
            gone | {claim.party}
            for claim in claims
            if claim.party not in gone
            and can_be_met(claim.wants, [*claim.within_reach, *given_back])
        )
    return set().union(*seen)


def everybody(claims: Iterable[Claim]) -> set[Party]:
    return {claim.party for claim in claims}

"""The rules of granting and of knots, against slow and obvious models of them.

With `BOTFARM_EXAMPLES_TIMES=50` they look fifty times as far.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.obvious import (
    can_be_met,
    everybody,
    most_met,
    parties_that_may_go_on,
)
from support.thorough import thoroughly

from botfarm_server.domain.deadlock import Claim, Party, find_knots
from botfarm_server.domain.demand import Demand, Lack
from botfarm_server.domain.matching import Group, assign, matches
from botfarm_server.domain.models import Candidate, LeaseId, UserId, Want

far = thoroughly(examples=120)

LABELS: list[dict[str, str]] = [{}, {"a": "x"}, {"b": "x"}, {"a": "x", "b": "x"}]


def up_to(size: int) -> Iterator[tuple[dict[str, str], ...]]:
    for length in range(size + 1):
        yield from itertools.product(LABELS, repeat=length)


@pytest.mark.parametrize("asked", list(up_to(2))[1:], ids=str)
def test_an_assignment_meets_as_many_wants_as_any_could(
    asked: tuple[dict[str, str], ...],
) -> None:
    for counts in itertools.product([1, 2], repeat=len(asked)):
        wants = [
            Want("stage", "regular", labels=labels, count=count)
            for labels, count in zip(asked, counts, strict=True)
        ]
        for existing in up_to(3):
            users = [
                Candidate(UserId(UUID(int=number)), "stage", "regular", None, labels)
                for number, labels in enumerate(existing)
            ]
            found = assign(wants, users)
            assert len(found.taken) == most_met(wants, users)
            assert found.complete == can_be_met(wants, users)


some_labels = st.sampled_from([*LABELS, {"c": "x"}, {"a": "y"}])
projects = st.sampled_from([None, UUID(int=1), UUID(int=2)])
some_users = st.lists(
    st.tuples(st.sampled_from(["regular", "canary"]), projects, some_labels),
    max_size=8,
).map(
    lambda drawn: [
        # Its id may be that of a project.
        Candidate(UserId(UUID(int=number)), "stage", *its)
        for number, its in enumerate(drawn)
    ]
)
some_wants = st.lists(
    st.builds(
        Want,
        st.just("stage"),
        st.sampled_from(["regular", "regular", "canary"]),
        projects,
        some_labels,
        st.integers(1, 3),
        st.sampled_from([None, None, UserId(UUID(int=1))]),
    ),
    min_size=1,
    max_size=4,
)


@far
@given(some_users, some_wants)
def test_a_group_finds_those_that_meet_a_want(
    users: list[Candidate], wants: list[Want]
) -> None:
    group = Group(users)
    for want in wants:
        meeting = [user for user in users if matches(want, user)]
        assert group.users(group.meeting(want)) == meeting
        assert group.those(meeting) == group.meeting(want)


@far
@given(some_users, some_wants, st.data())
def test_a_demand_lacks_something_until_an_assignment_is_complete(
    users: list[Candidate], wants: list[Want], data: st.DataObject
) -> None:
    """However they come, and not before there is enough of what it lacked."""
    group = Group(users)
    asked: Counter[int] = Counter()
    for want in wants:
        asked[group.meeting(want)] += want.count
    demand = Demand(asked)
    there: list[Candidate] = []
    lacked: list[Lack] = []
    for user in [*data.draw(st.permutations(users)), None]:
        lack = demand.lack(group.those(there), lambda _: None)
        assert (lack is None) == assign(wants, there).complete
        lacked += [] if lack is None else [lack]
        enough = [
            (it.users & group.those(there)).bit_count() >= it.needed for it in lacked
        ]
        assert all(enough) == (lack is None)
        if user is not None:
            there.append(user)


KINDS = ["a", "b", "c", "d"]
kinds = st.sampled_from(KINDS)


def of_kind(kind: str, count: int) -> Want:
    return Want("stage", "regular", labels={"kind": kind}, count=count)


# Mostly for one user of one kind, so that several parties depend on each other.
narrow_wants = st.one_of(
    st.builds(lambda kind: [of_kind(kind, 1)], kinds),
    st.builds(lambda kind: [of_kind(kind, 1)], kinds),
    st.builds(lambda kind, count: [of_kind(kind, count)], kinds, st.integers(1, 2)),
    st.builds(lambda one, two: [of_kind(one, 1), of_kind(two, 1)], kinds, kinds),
    st.just([Want("stage", "regular")]),
)


@st.composite
def farms(
    draw: st.DrawFn,
) -> tuple[list[Claim], dict[Party, list[Candidate]]]:
    """Parties that wait, with their users, and users that nobody of them has."""
    size = draw(st.integers(1, 4))
    possessions: dict[Party, list[Candidate]] = {}
    users = (
        Candidate(UserId(UUID(int=number)), "stage", "regular", None, {"kind": kind})
        for number, kind in enumerate(
            [*KINDS[:size], *draw(st.lists(kinds, max_size=2))]
        )
    )
    free: list[Candidate] = []
    for party, user in enumerate(users):
        # The first of each party is its own, further ones are anybody's or free.
        owner = party if party < size else draw(st.integers(0, size))
        if owner == size:
            free.append(user)
        else:
            possessions.setdefault((None, "run", str(owner)), []).append(user)
    waiting = [*range(size), *draw(st.lists(st.integers(0, size - 1), max_size=1))]
    numbers = draw(st.permutations(range(len(waiting))))
    claims = [
        Claim(
            LeaseId(UUID(int=number)),
            number,
            (None, "run", str(party)),
            draw(narrow_wants),
            free,
        )
        for party, number in zip(waiting, numbers, strict=True)
    ]
    return claims, possessions


Farm = tuple[list[Claim], dict[Party, list[Candidate]]]


def with_free(claims: Sequence[Claim], users: Sequence[Candidate]) -> list[Claim]:
    """The same claims, once these users are free as well."""
    return [replace(it, within_reach=[*it.within_reach, *users]) for it in claims]


def users_of_parties(
    parties: set[Party], possessions: Mapping[Party, Sequence[Candidate]]
) -> list[Candidate]:
    return [user for party in parties for user in possessions.get(party, ())]


def refused(
    claims: Sequence[Claim], possessions: Mapping[Party, Sequence[Candidate]]
) -> set[Party]:
    """Those that ask for more than there is: they are told so, and do not wait."""
    everything = [user for users in possessions.values() for user in users]
    return everybody(
        it for it in claims if not can_be_met(it.wants, [*it.within_reach, *everything])
    )


@far
@given(farms())
def test_nobody_of_a_knot_can_go_on_in_any_future(farm: Farm) -> None:
    claims, possessions = farm
    may_go_on = parties_that_may_go_on(claims, possessions)
    for knot in find_knots(claims, possessions):
        assert not everybody(knot) & may_go_on
        assert not everybody(knot) & refused(claims, possessions)
        assert knot == sorted(knot, key=lambda it: it.number)


@far
@given(farms())
def test_whoever_can_never_go_on_waits_for_a_knot(farm: Farm) -> None:
    claims, possessions = farm
    told = refused(claims, possessions)
    # Who is refused ends, and gives back what it has.
    rest = with_free(
        [it for it in claims if it.party not in told],
        users_of_parties(told, possessions),
    )
    stuck = everybody(rest) - parties_that_may_go_on(rest, possessions)
    knots = find_knots(claims, possessions)
    assert bool(knots) == bool(stuck)
    tied = [party for knot in knots for party in everybody(knot)]
    assert len(tied) == len(set(tied))
    assert set(tied) <= stuck


@far
@given(farms())
def test_the_farm_goes_on_once_the_youngest_of_each_knot_gave_way(farm: Farm) -> None:
    claims, possessions = farm
    for _ in range(len(claims) + 1):
        knots = find_knots(claims, possessions)
        if not knots:
            break
        # Its test fails, and gives back what it has.
        losers = {knot[-1].party for knot in knots}
        claims = with_free(
            [it for it in claims if it.party not in losers],
            users_of_parties(losers, possessions),
        )
        possessions = {k: v for k, v in possessions.items() if k not in losers}
    assert not find_knots(claims, possessions)
    told = refused(claims, possessions)
    rest = with_free(
        [it for it in claims if it.party not in told],
        users_of_parties(told, possessions),
    )
    assert parties_that_may_go_on(rest, possessions) == everybody(rest)


@far
@given(farms())
def test_a_knot_holds_nobody_that_is_merely_behind_it(farm: Farm) -> None:
    """Were a knot alone on the farm, each of its members would be waited for."""
    claims, possessions = farm
    for knot in find_knots(claims, possessions):
        for member in everybody(knot):
            rest = [it for it in knot if it.party != member]
            its = possessions[member]
            assert any(
                can_be_met([Want(w.env, w.domain, labels=w.labels)], [user])
                for it in (rest or knot)
                for w in it.wants
                for user in its
            )

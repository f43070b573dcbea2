"""Which waiting holders are a knot, and which can still go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from botfarm_server.domain.deadlock import Claim, Party, find_knots, party_of
from botfarm_server.domain.models import Candidate, Holder, LeaseId, UserId, Want

REGULAR, CANARY = Want("stage", "regular"), Want("stage", "canary")


def user(domain: str = "regular", **labels: str) -> Candidate:
    return Candidate(UserId(uuid4()), "stage", domain, None, labels)


def claim(
    party: str, number: int, *wants: Want, within_reach: Sequence[Candidate] = ()
) -> Claim:
    return Claim(LeaseId(uuid4()), number, ("run", party), wants, within_reach)


def knots(
    claims: Sequence[Claim], **possessions: Sequence[Candidate]
) -> list[list[int]]:
    having: Mapping[Party, Sequence[Candidate]] = {
        ("run", name): users for name, users in possessions.items()
    }
    return [[it.number for it in knot] for knot in find_knots(claims, having)]


def test_a_worker_that_waits_for_its_own_user_is_the_simplest_knot() -> None:
    assert knots([claim("a", 1, REGULAR)], a=[user()]) == [[1]]


def test_two_that_wait_for_each_other_are_a_knot_with_the_youngest_last() -> None:
    claims = [claim("b", 7, REGULAR), claim("a", 3, CANARY)]
    assert knots(claims, a=[user("regular")], b=[user("canary")]) == [[3, 7]]


def test_a_user_within_reach_of_one_is_enough_for_all() -> None:
    spare = user("canary")
    claims = [claim("a", 1, CANARY, within_reach=[spare]), claim("b", 2, REGULAR)]
    assert knots(claims, a=[user("regular")], b=[user("canary")]) == []


def test_one_of_two_needed_is_not_enough() -> None:
    two = Want("stage", "canary", count=2)
    claims = [claim("a", 1, two, within_reach=[user("canary")]), claim("b", 2, REGULAR)]
    assert knots(claims, a=[user("regular")], b=[user("canary")]) == [[1, 2]]


def test_who_is_merely_behind_a_knot_is_not_part_of_it() -> None:
    claims = [
        claim("a", 1, CANARY),
        claim("b", 2, REGULAR),
        claim("c", 9, REGULAR, CANARY),
    ]
    having = {"a": [user("regular")], "b": [user("canary")], "c": [user("other")]}
    assert knots(claims, **having) == [[1, 2]]


def test_two_knots_are_told_apart() -> None:
    admin, guest = (Want("stage", "regular", labels={"role": it}) for it in "ag")
    claims = [claim("a", 1, admin), claim("b", 2, guest)]
    assert knots(claims, a=[user(role="a")], b=[user(role="g")]) == [[1], [2]]


def test_labels_decide_who_could_help() -> None:
    admin = Want("stage", "regular", labels={"role": "admin"})
    claims = [claim("a", 1, admin, within_reach=[user(role="guest")])]
    assert knots(claims, a=[user(role="admin")]) == [[1]]


def test_a_worker_goes_on_when_any_of_its_waits_can_end() -> None:
    claims = [
        claim("a", 1, REGULAR),
        claim("a", 2, CANARY, within_reach=[user("canary")]),
    ]
    assert knots(claims, a=[user("regular")]) == []


def test_what_could_never_be_met_is_no_knot_but_refused() -> None:
    claims = [claim("a", 1, Want("stage", "regular", count=2)), claim("b", 2, CANARY)]
    assert knots(claims, a=[user("canary")], b=[user("regular")]) == []


def test_a_lease_without_names_is_a_party_of_its_own() -> None:
    first, second = LeaseId(UUID(int=1)), LeaseId(UUID(int=2))
    assert party_of(Holder(run_id="run"), first) != party_of(Holder("run"), second)
    assert party_of(Holder("run", "gw0"), first) == party_of(
        Holder("run", "gw0", "another test"), second
    )

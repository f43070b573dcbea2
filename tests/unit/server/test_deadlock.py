"""Which waiting holders are a knot, and which can still go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from types import FrameType
from uuid import UUID, uuid4

import pytest

from botfarm_server.domain.deadlock import Claim, Party, find_knots, party_of
from botfarm_server.domain.models import (
    Candidate,
    Holder,
    Lease,
    LeaseId,
    TokenId,
    UserId,
    Want,
)

REGULAR, CANARY = Want("stage", "regular"), Want("stage", "canary")


def user(domain: str = "regular", **labels: str) -> Candidate:
    return Candidate(UserId(uuid4()), "stage", domain, None, labels)


def claim(
    party: str, number: int, *wants: Want, within_reach: Sequence[Candidate] = ()
) -> Claim:
    return Claim(LeaseId(uuid4()), number, (None, "run", party), wants, within_reach)


def knots(
    claims: Sequence[Claim], **possessions: Sequence[Candidate]
) -> list[list[int]]:
    having: Mapping[Party, Sequence[Candidate]] = {
        (None, "run", name): users for name, users in possessions.items()
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


def test_what_is_within_reach_of_all_is_so_of_each() -> None:
    having: Mapping[Party, Sequence[Candidate]] = {(None, "run", "a"): [user()]}
    assert find_knots([claim("a", 1, REGULAR)], having, [user("canary")])
    assert not find_knots([claim("a", 1, REGULAR)], having, [user()])


def test_a_user_that_is_kept_for_a_claim_counts_once() -> None:
    """Its party has it, and it is within the claim's reach."""
    kept = user()
    claims = [
        claim("a", 1, Want("stage", "regular", count=2), within_reach=[kept]),
        claim("b", 2, REGULAR),
    ]
    assert knots(claims, a=[kept], b=[user()]) == [[1, 2]]


def lease_of(run_id: str | None, worker_id: str | None, token: int | None) -> Lease:
    return Lease(
        LeaseId(uuid4()),
        "waiting",
        [REGULAR],
        Holder(run_id, worker_id, f"a test with {token}"),
        ttl=60.0,
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        token_id=None if token is None else TokenId(UUID(int=token)),
    )


@pytest.mark.parametrize("token", [None, 1])
def test_a_worker_of_a_run_is_one_party_for_each_token(token: int | None) -> None:
    first = party_of(lease_of("run", "gw0", token))
    assert first == party_of(lease_of("run", "gw0", token))
    for other in (("run", "gw1", token), ("2", "gw0", token), ("run", "gw0", 2)):
        assert first != party_of(lease_of(*other))


def test_a_lease_without_names_is_a_party_of_its_own() -> None:
    for run_id, worker_id in (("run", None), (None, "gw0")):
        first, second = (lease_of(run_id, worker_id, 1) for _ in range(2))
        assert party_of(first) != party_of(second)


def chain(length: int) -> tuple[list[Claim], Mapping[Party, Sequence[Candidate]]]:
    """Workers that wait for the users of all before them, the greediest first.

    Each with several waits, of one want for each user. They end one by one.
    """
    having: Mapping[Party, Sequence[Candidate]] = {
        (None, "run", f"gw{number}"): [user()] for number in range(1, length)
    }
    claims = [
        claim(f"gw{waiter}", turn * length + waiter, *[REGULAR] * waiter)
        for turn in range(2)
        for waiter in range(length - 1, 0, -1)
    ]
    return claims, having


def ring(length: int) -> tuple[list[Claim], Mapping[Party, Sequence[Candidate]]]:
    """Workers that wait for two that come next, each with a user of its own kind."""
    wants = [Want("stage", "regular", labels={"n": str(n)}) for n in range(length)]
    claims = [
        claim(f"gw{n}", n, *(wants[(n + ahead) % length] for ahead in (1, 2)))
        for n in range(length)
    ]
    return claims, {(None, "run", f"gw{n}"): [user(n=str(n))] for n in range(length)}


def lines_run(call: Callable[[], object]) -> int:
    """How many lines a call runs through."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(("farm", "count"), [(chain, 0), (ring, 1)])
def test_a_look_grows_with_the_wants_of_those_that_wait(
    farm: Callable[[int], tuple[list[Claim], Mapping[Party, Sequence[Candidate]]]],
    count: int,
) -> None:
    """A chain of twice the length has four times the wants; a ring has twice."""
    small, large = farm(16), farm(64)
    within_reach = [user()]
    assert len(find_knots(*large, within_reach)) == count
    wants_of_small, wants_of_large = (
        sum(len(claim.wants) for claim in claims) for claims, _ in (small, large)
    )
    times = wants_of_large / wants_of_small
    few = lines_run(lambda: find_knots(*small, within_reach))
    assert lines_run(lambda: find_knots(*large, within_reach)) < 1.5 * times * few


def test_waits_alike_of_one_worker_are_decided_once() -> None:
    def look(waits: int) -> int:
        claims = [claim("a", number, REGULAR) for number in range(waits)]
        claims.append(claim("b", waits, CANARY))
        having: Mapping[Party, Sequence[Candidate]] = {
            (None, "run", "a"): [user("canary")],
            (None, "run", "b"): [user()],
        }
        left = 10_000
        while find_knots(claims, having, most_steps=left - 1):
            left -= 1
        return left

    assert look(100) == look(1)


def test_what_a_look_has_no_steps_for_is_left_out_and_no_knot_is_made_up() -> None:
    """Whoever waits for other users is found all the same."""
    claims, theirs = ring(50)
    having = dict(theirs)
    having[None, "run", "own"] = [user("canary")]
    claims.append(claim("own", 100, CANARY))
    sizes = set()
    for most_steps in range(0, 2_000, 10):
        found = find_knots(claims, having, most_steps=most_steps)
        sizes.add(tuple(len(knot) for knot in found))
    assert sizes == {(), (1,), (50, 1)}

    claims, theirs = chain(20)
    for most_steps in range(0, 2_000, 10):
        assert not find_knots(claims, theirs, [user()], most_steps=most_steps)

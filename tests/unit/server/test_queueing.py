"""Who is granted what, against a slow and obvious statement of the rules."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from botfarm_server.domain.matching import assign
from botfarm_server.domain.models import Candidate, LeaseId, UserId, Want
from botfarm_server.domain.queueing import Waiter, plan_grants, users_needed

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PATIENCE = 10.0


def user(number: int, label: str | None = None) -> Candidate:
    labels = {"kind": label} if label else {}
    return Candidate(UserId(uuid.UUID(int=number)), "stage", "regular", None, labels)


def waiter(
    number: int, *, count: int = 1, label: str | None = None, age: float = 0.0
) -> Waiter:
    labels = {"kind": label} if label else {}
    want = Want("stage", "regular", labels=labels, count=count)
    since = NOW - timedelta(seconds=age)
    return Waiter(LeaseId(uuid.UUID(int=number)), [want], since)


def granted(waiters: Sequence[Waiter], users: Sequence[Candidate]) -> list[int]:
    plan = plan_grants(waiters, users, now=NOW, patience=PATIENCE)
    return [grant.lease_id.int for grant in plan.grants]


def test_the_oldest_is_granted_first() -> None:
    assert granted([waiter(1), waiter(2)], [user(1)]) == [1]


def test_a_preferred_user_is_taken_where_no_other_has_fewer_labels() -> None:
    first = replace(waiter(1), prefers=[user(3).id, user(4).id])
    users = [user(1), user(2), user(3), user(4, "x")]
    plan = plan_grants([first], users, now=NOW, patience=PATIENCE)
    assert list(plan.grants[0].users) == [user(3).id]
    plan = plan_grants([first], [user(2), user(4, "x")], now=NOW, patience=PATIENCE)
    assert list(plan.grants[0].users) == [user(2).id]


def test_a_waiter_for_several_is_passed_while_it_is_patient() -> None:
    assert granted([waiter(1, count=2, age=9.9), waiter(2)], [user(1)]) == [2]


def test_what_an_impatient_waiter_could_use_is_kept() -> None:
    plan = plan_grants(
        [waiter(1, count=2, age=10.0), waiter(2)],
        [user(1)],
        now=NOW,
        patience=PATIENCE,
    )
    assert (list(plan.grants), list(plan.left)) == ([], [])


def test_no_more_is_kept_than_was_asked_for() -> None:
    rare = waiter(1, count=2, label="rare", age=11.0)
    users = [user(1, "rare"), user(2), user(3)]
    assert granted([rare, waiter(2), waiter(3), waiter(4)], users) == [2, 3]


waiters_strategy = st.lists(
    st.builds(
        lambda count, label, age: (count, label, age),
        st.integers(1, 3),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from([0.0, 9.0, 11.0]),
    ),
    max_size=6,
)
users_strategy = st.lists(st.sampled_from([None, "x", "y"]), max_size=6)


@given(waiters_strategy, users_strategy)
def test_no_user_is_granted_twice_and_nobody_is_overtaken(
    asked: list[tuple[int, str | None, float]], labels: list[str | None]
) -> None:
    waiters = [
        waiter(number, count=count, label=label, age=age)
        for number, (count, label, age) in enumerate(asked)
    ]
    users = [user(number, label) for number, label in enumerate(labels)]
    plan = plan_grants(waiters, users, now=NOW, patience=PATIENCE)
    taken = [user_id for grant in plan.grants for user_id in grant.users]
    assert len(taken) == len(set(taken))
    assert not set(taken) & {it.id for it in plan.left}
    by_id = {it.id: it for it in waiters}
    for grant in plan.grants:
        assert len(grant.users) == by_id[grant.lease_id].wants[0].count
    # A waiter without a grant cannot be met from what is left, nor from that together
    # with what any one later waiter was granted.
    winners = {grant.lease_id for grant in plan.grants}
    for loser in (it for it in waiters if it.id not in winners):
        assert not assign(loser.wants, plan.left).complete


@given(waiters_strategy, users_strategy, st.sets(st.integers(0, 5), max_size=3))
def test_the_first_matching_users_suffice(
    asked: list[tuple[int, str | None, float]],
    labels: list[str | None],
    preferred: set[int],
) -> None:
    """The plan is the same with every user as with the few that the store reads."""
    prefers = [UserId(uuid.UUID(int=number)) for number in preferred]
    waiters = [
        replace(
            waiter(number, count=count, label=label, age=age),
            prefers=prefers if number % 2 else (),
        )
        for number, (count, label, age) in enumerate(asked)
    ]
    in_order = sorted(labels, key=lambda label: label is not None)
    users = [user(number, label) for number, label in enumerate(in_order)]
    needed = users_needed(waiters)
    seen = {
        it.id
        for one in waiters
        for want in one.wants
        for it in [
            it
            for it in users
            if assign([Want("stage", "regular", labels=want.labels)], [it]).complete
        ][:needed]
    }
    few = [it for it in users if it.id in {*seen, *prefers}]
    every = plan_grants(waiters, users, now=NOW, patience=PATIENCE)
    assert plan_grants(waiters, few, now=NOW, patience=PATIENCE).grants == every.grants

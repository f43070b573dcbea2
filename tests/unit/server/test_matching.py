"""Which users meet which wants."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from botfarm_server.domain.matching import Group, assign, matches
from botfarm_server.domain.models import Candidate, UserId, Want


def user(number: int, *, domain: str = "regular", **labels: str) -> Candidate:
    return Candidate(UserId(uuid.UUID(int=number)), "stage", domain, None, labels)


def want(count: int = 1, *, domain: str = "regular", **labels: str) -> Want:
    return Want("stage", domain, labels=labels, count=count)


def test_a_want_matches_on_any_subset_of_labels() -> None:
    admin = user(1, role="admin", plan="free")
    assert matches(want(), admin)
    assert matches(want(role="admin"), admin)
    assert not matches(want(role="admin", plan="paid"), admin)
    assert not matches(want(domain="canary"), admin)


def test_a_want_for_one_user_matches_no_other() -> None:
    only = Want("stage", "regular", user_id=user(1).id)
    assert matches(only, user(1))
    assert not matches(only, user(2))


def test_users_are_taken_in_the_order_given() -> None:
    taken = assign([want()], [user(3), user(1), user(2)]).taken
    assert list(taken) == [user(3).id]


def test_an_earlier_want_gives_way_to_one_with_fewer_choices() -> None:
    admin, plain = user(1, role="admin"), user(2)
    assignment = assign([want(), want(role="admin")], [admin, plain])
    assert assignment.complete
    assert assignment.taken == {plain.id: 0, admin.id: 1}


def test_as_many_users_as_there_are_can_be_asked_for() -> None:
    users = [user(number, size="s" if number % 3 else "l") for number in range(3_000)]
    wants = [want(100) for _ in range(20)] + [want(1_000, size="l")]
    assignment = assign(wants, users)
    assert assignment.complete
    assert len(assignment.taken) == 3_000
    assert not assign([want(3_001)], users).complete


def test_of_the_users_that_would_do_the_first_are_taken() -> None:
    both, last = user(1, a="x", b="x"), user(3, b="x", c="x")
    between = user(2, a="x", c="x")
    wants = [want(a="x"), want(b="x")]
    assert assign(wants, [both, between, last]).taken == {between.id: 0, both.id: 1}


labels = st.fixed_dictionaries(
    {}, optional={"a": st.sampled_from("xy"), "b": st.sampled_from("xy")}
)


def exists_by_trying_all(wants: Sequence[Want], users: Sequence[Candidate]) -> bool:
    slots = [it for it in wants for _ in range(it.count)]
    return any(
        all(matches(slot, chosen) for slot, chosen in zip(slots, order, strict=True))
        for order in itertools.permutations(users, len(slots))
    )


@given(
    st.lists(st.tuples(labels, st.integers(1, 2)), min_size=1, max_size=3),
    st.lists(labels, max_size=5),
)
def test_an_assignment_is_found_whenever_one_exists(
    asked: list[tuple[dict[str, str], int]], existing: list[dict[str, str]]
) -> None:
    wants = [want(count, **given_labels) for given_labels, count in asked]
    users = [user(number, **it) for number, it in enumerate(existing)]
    assignment = assign(wants, users)
    assert assignment.complete == exists_by_trying_all(wants, users)
    by_id = {it.id: it for it in users}
    for user_id, index in assignment.taken.items():
        assert matches(wants[index], by_id[user_id])
    for index, it in enumerate(wants):
        assert list(assignment.taken.values()).count(index) <= it.count


@given(
    st.lists(st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")), max_size=9),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
    st.integers(1, 9),
)
def test_of_a_group_those_are_found_that_match_and_the_first_of_them(
    labels: list[dict[str, str]], wanted: dict[str, str], limit: int
) -> None:
    users = [user(number, **its) for number, its in enumerate(labels)]
    group = Group(users)
    having = group.having(wanted)
    matching = [
        it for it in users if matches(Want("stage", "regular", labels=wanted), it)
    ]
    assert group.users(having) == matching
    assert group.users(group.first(having, limit)) == matching[:limit]

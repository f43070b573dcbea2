"""A farm that lives by the rules alone, watched by a literal reading of them.

A later waiter never takes a user with which an earlier one could have been granted in
full. A waiter may be passed for at most `patience` seconds; then what it could use is
kept for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.obvious import can_be_met, meets, most_met
from support.thorough import thoroughly

from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    first_expiry,
    has_lapsed,
    lapsed_state,
    leaves_dirty,
    renewed_expiry,
    rests_until,
)
from botfarm_server.domain.models import Candidate, Holder, Lease, LeaseId, UserId, Want
from botfarm_server.domain.queueing import Plan, Waiter, plan_grants

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMES = LeaseTimes(claim_window=15.0, poll_grace=15.0, lock_delay=15.0, patience=10.0)
KINDS: list[dict[str, str]] = [{}, {"kind": "x"}, {"kind": "y"}]


def judge(
    waiters: Sequence[Waiter], free: Sequence[Candidate], plan: Plan, now: datetime
) -> None:
    """Look at each waiter in turn, with what those before it have left."""
    grants = {grant.lease_id: grant for grant in plan.grants}
    left = list(free)
    for waiter in waiters:
        grant = grants.get(waiter.id)
        # Whoever comes later gets what is left here, and nothing else.
        assert (grant is not None) == can_be_met(waiter.wants, left)
        gone: set[UserId] = set()
        if grant is not None:
            gone = set(grant.users)
            for number, want in enumerate(waiter.wants):
                own = [it for it in left if grant.users.get(it.id) == number]
                assert len(own) == want.count
                assert all(meets(want, user) for user in own)
        elif now - waiter.since >= timedelta(seconds=10):
            kept = plan.kept.get(waiter.id, ())
            gone = {user.id for user in kept}
            # All that it could use, and no more.
            most = most_met(waiter.wants, left)
            assert len(kept) == most == most_met(waiter.wants, kept)
        else:
            assert waiter.id not in plan.kept
        assert gone <= {user.id for user in left}
        left = [user for user in left if user.id not in gone]
    assert list(plan.left) == left


def a_user(number: int, labels: dict[str, str]) -> Candidate:
    return Candidate(UserId(UUID(int=number)), "stage", "regular", None, labels)


ASKED = [
    [Want("stage", "regular")],
    [Want("stage", "regular", count=2)],
    [Want("stage", "regular", labels=KINDS[1])],
    [Want("stage", "regular"), Want("stage", "regular", labels=KINDS[1])],
]


@pytest.mark.parametrize("ages", list(itertools.product([9.9, 10.0], repeat=3)))
def test_every_small_plan_is_as_the_rules_say(ages: tuple[float, ...]) -> None:
    farms = [
        [a_user(number, labels) for number, labels in enumerate(its)]
        for size in range(1, 5)
        for its in itertools.product(KINDS[:2], repeat=size)
    ]
    for asked in itertools.product(ASKED, repeat=3):
        waiters = [
            Waiter(LeaseId(UUID(int=number)), wants, START - timedelta(seconds=age))
            for number, (wants, age) in enumerate(zip(asked, ages, strict=True))
        ]
        for free in farms:
            plan = plan_grants(waiters, free, now=START, patience=10.0)
            judge(waiters, free, plan, START)


@dataclass
class Holding:
    """A lease by the model: plain seconds, and the users that it has."""

    users: list[UserId]
    ttl: float | None
    ends_at: float | None


class Farm(RuleBasedStateMachine):
    """What the server does around the rules, with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.users: dict[UserId, Candidate] = {}
        self.resting: dict[UserId, float] = {}
        self.waiters: list[Waiter] = []
        self.holdings: dict[LeaseId, Holding] = {}
        self.ttls: dict[LeaseId, float | None] = {}
        self.asked = 0

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    def open(self, kinds: list[dict[str, str]]) -> None:
        for number, labels in enumerate(kinds):
            user_id = UserId(UUID(int=number))
            self.users[user_id] = a_user(number, labels)

    def free(self) -> list[Candidate]:
        """In order of preference: those with fewer labels first."""
        held = {user for it in self.holdings.values() for user in it.users}
        return sorted(
            (
                user
                for user in self.users.values()
                if user.id not in held
                and self.resting.get(user.id, self.seconds) <= self.seconds
            ),
            key=lambda it: len(it.labels),
        )

    @rule(
        asked=st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(1, 2)), min_size=1, max_size=2
        ),
        ttl=st.sampled_from([None, 5.0, 60.0]),
    )
    def ask(self, asked: list[tuple[dict[str, str], int]], ttl: float | None) -> None:
        wants = [
            Want("stage", "regular", labels=labels, count=count)
            for labels, count in asked
        ]
        if len(self.waiters) < 5 and can_be_met(wants, list(self.users.values())):
            self.asked += 1
            lease_id = LeaseId(UUID(int=self.asked))
            self.ttls[lease_id] = ttl
            self.waiters.append(Waiter(lease_id, wants, self.now))
            self.hand_on()

    @rule(choice=st.integers(0, 4))
    @precondition(lambda self: self.waiters)
    def leave(self, choice: int) -> None:
        del self.waiters[choice % len(self.waiters)]
        self.hand_on()

    @rule(choices=st.lists(st.integers(0, 4), min_size=1, max_size=3))
    @precondition(lambda self: self.holdings)
    def release(self, choices: list[int]) -> None:
        names = list(self.holdings)
        for choice in choices:
            self.holdings.pop(names[choice % len(names)], None)
        assert rests_until(self.now, "released", TIMES) is None
        self.hand_on()

    @rule(choice=st.integers(0, 4))
    @precondition(lambda self: self.holdings)
    def renew(self, choice: int) -> None:
        names = list(self.holdings)
        holding = self.holdings[names[choice % len(names)]]
        told = renewed_expiry(self.now, holding.ttl)
        holding.ends_at = None if holding.ttl is None else self.seconds + holding.ttl
        assert told == self.at(holding.ends_at)

    @rule(seconds=st.sampled_from([1.0, 4.0, 10.0, 15.0]))
    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        for lease_id, holding in list(self.holdings.items()):
            lapsed = holding.ends_at is not None and holding.ends_at <= self.seconds
            assert has_lapsed(self.lease(lease_id, holding), self.now) == lapsed
            if lapsed:
                del self.holdings[lease_id]
                state = lapsed_state("held")
                assert leaves_dirty(state, None, clean=True)
                assert rests_until(self.now, state, TIMES) == self.at(
                    self.seconds + 15.0
                )
                self.resting |= dict.fromkeys(holding.users, self.seconds + 15.0)
        self.hand_on()

    def at(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else START + timedelta(seconds=seconds)

    def lease(self, lease_id: LeaseId, holding: Holding) -> Lease:
        return Lease(
            id=lease_id,
            state="held",
            wants=[],
            holder=Holder(),
            ttl=holding.ttl,
            created_at=START,
            expires_at=self.at(holding.ends_at),
        )

    def hand_on(self) -> None:
        free = self.free()
        plan = plan_grants(self.waiters, free, now=self.now, patience=TIMES.patience)
        judge(self.waiters, free, plan, self.now)
        for grant in plan.grants:
            ttl = self.ttls[grant.lease_id]
            ends_at = self.seconds + (15.0 if ttl is None else min(ttl, 15.0))
            assert first_expiry(self.now, ttl, TIMES) == self.at(ends_at)
            self.holdings[grant.lease_id] = Holding(list(grant.users), ttl, ends_at)
        granted = {grant.lease_id for grant in plan.grants}
        self.waiters = [it for it in self.waiters if it.id not in granted]

    @invariant()
    def one_holder_each(self) -> None:
        held = [user for it in self.holdings.values() for user in it.users]
        assert len(held) == len(set(held))

    @invariant()
    def nobody_waits_beside_what_it_needs(self) -> None:
        """Of those whose turn it is: for a later one it may be kept."""
        if self.waiters:
            assert not can_be_met(self.waiters[0].wants, self.free())

    def teardown(self) -> None:
        """Everybody gets what it waits for, once the others give back."""
        for _ in range(len(self.waiters) + 1):
            self.holdings.clear()
            self.resting.clear()
            self.hand_on()
        assert not self.waiters


TestFarm = Farm.TestCase
TestFarm.settings = thoroughly(examples=60, steps=25)

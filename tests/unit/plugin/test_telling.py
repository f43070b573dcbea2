"""Whom a test waits for, in one line."""

from __future__ import annotations

from uuid import uuid4

from pytest_botfarm.client.models import (
    Blocker,
    Holder,
    Matching,
    Quarantined,
    Waiting,
    Want,
)
from pytest_botfarm.telling import waiting_line


def test_accounts_that_nobody_holds_are_counted_with_why_nobody_gets_them() -> None:
    quarantined = Quarantined(4, {"alice": "locked out"})
    holder = Holder(test_id="test_over")
    held = Blocker(uuid4(), "bob", holder, held_for=9.0, expires_in=120.0)
    said = [
        waiting_line(
            Holder(test_id="test_waits"),
            [Want("stage", "regular")],
            Waiting(uuid4(), 1, 5.0, blockers, Matching(0, len(blockers), 2, it)),
        ).partition("regular: ")[2]
        for blockers, it in (((held,), quarantined), ((), Quarantined(0, {})))
    ]
    assert said == [
        "bob is held by test_over; 2 resting; 4 in quarantine",
        "2 resting",
    ]


def test_an_account_that_is_kept_is_not_said_to_be_held_by_a_test() -> None:
    asker, holder = (
        Holder("run", "gw1", "test_waits"),
        Holder("run", "gw0", "test_over"),
    )
    blockers = tuple(
        Blocker(
            user_id=uuid4(),
            login=login,
            holder=holder,
            held_for=9.0,
            expires_in=120.0,
            kept=kept,
        )
        for login, kept in (("alice", True), ("bob", False))
    )
    waiting = Waiting(uuid4(), place=1, waited=5.0, blockers=blockers)
    assert waiting_line(asker, [Want("stage", "regular")], waiting) == (
        "botfarm: test_waits has waited 5 s for stage/regular: alice is kept to be "
        "looked at, 2 min more, after test_over (worker gw0, run run) (`botfarm leases "
        "break` gives it back), bob is held by test_over (worker gw0, run run)"
    )

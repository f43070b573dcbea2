"""When leases are renewed and when they are lost, on a clock that only a test moves."""

from __future__ import annotations

from uuid import uuid4

import pytest

from pytest_botfarm.client.lifetimes import Lifetime, Lifetimes, Loss
from pytest_botfarm.client.models import Lease, Lost, PassedOn, Renewed


def lease(granted: float = 0.0, expires_in: float | None = 15.0) -> Lease:
    return Lease(uuid4(), 3, 60.0, 0.0, (), granted, expires_in)


@pytest.fixture
def lifetimes() -> Lifetimes:
    return Lifetimes(jitter=lambda low, high: high)


def watched(lifetimes: Lifetimes, lease: Lease) -> Lifetime:
    lifetime = lifetimes.watch(lease)
    assert lifetime is not None
    return lifetime


def test_the_first_beat_comes_five_seconds_after_the_grant(
    lifetimes: Lifetimes,
) -> None:
    life = watched(lifetimes, lease(granted=100.0))
    assert lifetimes.due(104.9) == {}
    assert lifetimes.due(105.0) == {life.id: 3}


def test_the_first_beat_of_a_short_lease_comes_after_a_third_of_it(
    lifetimes: Lifetimes,
) -> None:
    watched(lifetimes, lease(expires_in=6.0))
    assert lifetimes.next_event() == 2.0


def test_later_beats_come_every_third_of_the_ttl(lifetimes: Lifetimes) -> None:
    life = watched(lifetimes, lease())
    lifetimes.renewed({life.id: Renewed(life.id, 60.0)}, asked=5.0)
    assert lifetimes.next_event() == 25.0
    assert life.deadline == 63.0


def test_one_due_lease_has_all_renewed(lifetimes: Lifetimes) -> None:
    old, new = watched(lifetimes, lease(0.0)), watched(lifetimes, lease(4.0))
    assert lifetimes.due(5.0).keys() == {old.id, new.id}


def test_a_failed_heartbeat_is_repeated_and_loses_nothing(lifetimes: Lifetimes) -> None:
    life = watched(lifetimes, lease())
    lifetimes.failed(5.0)
    assert lifetimes.due(6.4) == {}
    assert lifetimes.due(6.5) == {life.id: 3}
    assert life.loss is None


def test_a_heartbeat_stays_away_as_long_as_a_server_asks_and_its_leases_live(
    lifetimes: Lifetimes,
) -> None:
    life = watched(lifetimes, lease())
    lifetimes.failed(5.0, retry_after=4.0)
    assert lifetimes.next_event() == 10.5
    lifetimes.failed(5.0, retry_after=30.0)
    assert lifetimes.next_event() == life.deadline - 1.5


def test_a_lease_is_lost_when_its_deadline_passes_unrenewed(
    lifetimes: Lifetimes,
) -> None:
    life = watched(lifetimes, lease())
    lifetimes.lose_overdue(13.4, "silence")
    losses = [life.loss]
    lifetimes.lose_overdue(13.5, "silence")
    losses.append(life.loss)
    assert losses == [None, Loss(13.5, "silence")]
    assert lifetimes.next_event() is None


def test_a_lease_is_lost_when_the_server_says_so(lifetimes: Lifetimes) -> None:
    life = watched(lifetimes, lease())
    users = (PassedOn(uuid4(), "alice@example.com", None),)
    lost = Lost(life.id, "revoked", "An admin broke it.", 2.0, users)
    lifetimes.renewed({life.id: lost}, asked=5.0)
    assert life.loss is not None
    assert (life.loss.at, life.loss.users) == (3.0, users)
    assert lifetimes.due(99.0) == {}


def test_a_lost_lease_is_not_renewed_by_a_late_answer(lifetimes: Lifetimes) -> None:
    life = watched(lifetimes, lease())
    lifetimes.lose_overdue(20.0, "silence")
    lifetimes.renewed({life.id: Renewed(life.id, 60.0)}, asked=12.0)
    assert life.loss is not None
    assert lifetimes.next_event() is None


def test_a_lease_that_was_released_meanwhile_is_not_lost(lifetimes: Lifetimes) -> None:
    life = watched(lifetimes, lease())
    lifetimes.forget(life.id)
    lost = Lost(life.id, "released", "It was released.", 0.1, ())
    lifetimes.renewed({life.id: lost}, asked=5.0)
    assert life.loss is None


def test_a_lease_without_expiry_needs_no_heartbeat(lifetimes: Lifetimes) -> None:
    assert lifetimes.watch(lease(expires_in=None)) is None
    life = watched(lifetimes, lease())
    lifetimes.renewed({life.id: Renewed(life.id, None)}, asked=5.0)
    assert lifetimes.next_event() is None
    assert lifetimes.earliest_deadline() is None

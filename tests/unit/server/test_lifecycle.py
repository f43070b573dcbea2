"""When a lease is over, and what becomes of its users."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from botfarm_server.domain.lifecycle import LeaseTimes, rests_until
from botfarm_server.domain.models import EndedState

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMES = LeaseTimes(lock_delay=15.0, cooldown=2.0)


@pytest.mark.parametrize(
    ("state", "ttl", "seconds"),
    [
        ("released", 60.0, 2.0),
        ("expired", 60.0, 15.0),
        ("revoked", 60.0, 25.0),
        ("revoked", 5.0, 15.0),
        ("revoked", None, 15.0),
    ],
)
def test_users_rest_until_their_holder_must_have_heard_unless_it_has_left(
    state: EndedState, ttl: float | None, seconds: float
) -> None:
    assert rests_until(NOW, state, TIMES, ttl=ttl) == NOW + timedelta(seconds=seconds)
    cooled = NOW + timedelta(seconds=TIMES.cooldown)
    assert rests_until(NOW, state, TIMES, ttl=ttl, left=True) == cooled

"""The clock that deadlines and reports are kept by."""

from __future__ import annotations

import time

import pytest

from pytest_botfarm.client.clock import clock, wall_time


def test_the_time_of_day_is_known_though_a_test_stops_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert wall_time(clock()) == pytest.approx(now, abs=60)

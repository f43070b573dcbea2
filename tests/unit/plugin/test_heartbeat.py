"""The thread that renews leases, and what it must survive."""

from __future__ import annotations

import logging
from threading import Event
from uuid import uuid4

import pytest
from support.waiting import eventually

from pytest_botfarm.client.clock import clock
from pytest_botfarm.client.models import Lease
from pytest_botfarm.client.sync import Client
from pytest_botfarm.heartbeat import Heartbeat


@pytest.mark.parametrize("error", [pytest.UsageError, OSError, KeyError])
def test_a_beat_that_fails_in_whatever_way_is_a_failed_beat_and_losses_are_noticed(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    beaten = Event()

    def make_client() -> Client:
        beaten.set()
        raise error("the token file is gone")

    lease = Lease(
        uuid4(),
        fence=1,
        ttl=1.0,
        waited=0.0,
        users=(),
        granted=clock(),
        expires_in=1.0,
    )
    heartbeat = Heartbeat(make_client)
    with caplog.at_level(logging.WARNING):
        lifetime = heartbeat.watch(lease)
        assert lifetime is not None
        assert beaten.wait(10)
        assert eventually(lambda: lifetime.loss is not None)
        heartbeat.stop()
    assert lifetime.loss is not None
    assert "the token file is gone" in lifetime.loss.reason
    assert "a Botfarm heartbeat failed and is repeated" in caplog.text

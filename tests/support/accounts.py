"""Accounts without a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

from pytest_botfarm.client.errors import ServerNotReachableError
from pytest_botfarm.client.models import Lease, LeasedUser
from pytest_botfarm.client.sync import Client
from pytest_botfarm.kept_state import KeptState
from pytest_botfarm.users import BotUser

PROJECT = UUID("6f1c2d3e-0000-4000-8000-000000000001")
NOBODY = "http://127.0.0.1:9"
"""Where no server listens."""


def lost() -> str:
    """At once, where a client by itself would look for some seconds."""
    raise ServerNotReachableError(url=NOBODY, reason="it is gone")


def account(note: Callable[[str], None] = print, **changes: Any) -> BotUser:
    """One whose server cannot be reached any more; `changes` are facts of its own."""
    facts: dict[str, Any] = {
        "id": uuid4(),
        "login": "alice@example.com",
        "password": "correct horse",
        "secrets": {"totp": "seed of alice"},
        "state": None,
        "state_is_apart": False,
        "project_id": PROJECT,
        "env": "stage",
        "domain": "regular",
        "labels": {"role": "admin", "plan": "free"},
        "fence": 3,
        "dirty": False,
        "want": 0,
    }
    user = LeasedUser(**{**facts, **changes})
    lease = Lease(uuid4(), user.fence, 60.0, 0.0, (user,), 0.0, 15.0)
    kept = KeptState(user, lease, lambda: closing(Client(NOBODY, locate=lost)), note)
    return BotUser(user, lambda *_: None, kept)

"""Each error as the OpenAPI document shows it, made from its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any
from uuid import UUID

from botfarm_server.api.errors import STATUS, internal_failure, told
from botfarm_server.api.examples import (
    CALLER_ID,
    LEASE_ID,
    LOGIN,
    OTHER_LEASE_ID,
    RESERVATION_ID,
    USER_ID,
)
from botfarm_server.domain.errors import BotfarmError, ForbiddenError
from botfarm_server.domain.models import KnotMember, LeaseId, Want

_LEASE, _OTHER_LEASE = (LeaseId(UUID(it)) for it in (LEASE_ID, OTHER_LEASE_ID))
_FACTS: Mapping[str, Any] = {
    "asked": 3,
    "ended_ago": 4.5,
    "env": "stage",
    "errors": [("wants", "Field required")],
    "existing": 2,
    "expected": "0009",
    "found": "0008",
    "has_key": False,
    "key": "k1",
    "knot": [
        KnotMember(
            _LEASE, "test_a", "gw0", "7", "ci-1", ["alice"], ["bob"], ["test_a"]
        ),
        KnotMember(
            _OTHER_LEASE, "test_b", "gw1", "7", "ci-1", ["bob"], ["alice"], ["test_b"]
        ),
    ],
    "lease_id": _LEASE,
    "limit": 100,
    "login": LOGIN,
    "name": "CI of the shop",
    "pool": Want("stage", "regular"),
    "pools": [{"env": "stage", "domain": "canary", "users": 4}],
    "reason": "another test holds it",
    "reservation_id": UUID(RESERVATION_ID),
    "reserved": 1,
    "retry_after": 30,
    "seconds": 10.0,
    "state": "expired",
    "token_id": UUID(CALLER_ID),
    "user_id": UUID(USER_ID),
    "wants": [Want("stage", "regular", count=3)],
}
"""By the names of the fields that an error cannot do without."""
_FACTS_OF: Mapping[type[BotfarmError], Mapping[str, Any]] = {
    ForbiddenError: {
        "reason": "This takes a token of role admin, and yours is of role lease."
    }
}
"""Those that are something else than what others have under the same name."""


def error_examples() -> dict[str, dict[str, Any]]:
    """By code, in the form of the document's components."""
    examples = {error.code: {"value": told(error)} for error in _errors()}
    return {**examples, "internal_error": {"value": internal_failure("3f9a0c61b2d4")}}


def _errors() -> Iterator[BotfarmError]:
    for kind in STATUS:
        needed = [
            it.name
            for it in fields(kind)
            if it.default is MISSING and it.default_factory is MISSING
        ]
        facts = {**_FACTS, **_FACTS_OF.get(kind, {})}
        yield kind(**{name: facts[name] for name in needed})

"""Answers, as the OpenAPI document shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botfarm_server.api.examples import (
    CALLER_ID,
    LEASE_ID,
    LOGIN,
    MOMENT,
    OTHER_LEASE_ID,
    PROJECT_ID,
    RESERVATION_ID,
    USER_ID,
)

Json = dict[str, Any]

_POOL = {"env": "stage", "domain": "regular"}
_LABELS = {"role": "admin"}
_HOLDER = {
    "run_id": "build 7",
    "worker_id": "gw0",
    "test_id": "tests/test_a.py::test_b",
    "host": "ci-1",
    "job_url": "https://ci.example.com/jobs/7",
}
_TOLD_TOKEN = {
    "id": CALLER_ID,
    "name": "CI of the shop",
    "role": "lease",
    "project_id": PROJECT_ID,
    "created_at": MOMENT,
    "expires_at": "2030-05-01T12:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}
ANSWERS: Mapping[str, Json] = {
    "AcquiredOut": {
        "message": "User acquired",
        "user_id": USER_ID,
        "lease_id": LEASE_ID,
        "fence": 17,
        "locktime": MOMENT,
        "expires_in": 600.0,
    },
    "AuditEventOut": {
        "id": 1041,
        "at": MOMENT,
        "action": "user.update",
        "by": {
            "kind": "token",
            "token_id": CALLER_ID,
            "name": "ops",
            "role": "admin",
            "address": "192.0.2.7",
        },
        "subject": {
            "kind": "user",
            "id": USER_ID,
            "name": LOGIN,
            "project_id": PROJECT_ID,
        },
        "before": {"labels": {}},
        "after": {"labels": _LABELS},
        "reason": None,
    },
    "CheckOut": {"leases": [{"matching": [4], "error": None}]},
    "HealthOut": {"status": "healthy"},
    "HeldOut": {
        "state": "held",
        "id": LEASE_ID,
        "fence": 17,
        "ttl": 60.0,
        "expires_in": 15.0,
        "waited": 0.4,
        "users": [
            {
                "id": USER_ID,
                "login": LOGIN,
                "password": "…",
                "secrets": {"totp": "…"},
                "state": None,
                "state_is_apart": False,
                "project_id": PROJECT_ID,
                **_POOL,
                "labels": _LABELS,
                "fence": 17,
                "dirty": False,
                "want": 0,
            }
        ],
    },
    "ImportOut": {"created": 2, "updated": 1, "unchanged": 40},
    "KeptOut": {"id": LEASE_ID, "expires_in": 1800.0},
    "LeaseOut": {
        "id": LEASE_ID,
        "state": "held",
        "wants": [{**_POOL, "project_id": PROJECT_ID, "labels": _LABELS, "count": 1}],
        "holder": _HOLDER,
        "users": [{"id": USER_ID, "login": LOGIN, **_POOL, "fence": 17}],
        "ttl": 60.0,
        "fence": 17,
        "created_at": MOMENT,
        "granted_at": "2030-01-31T12:00:00.400000Z",
        "ended_at": None,
        "expires_in": 41.2,
        "waited": 0.4,
        "held_for": 18.8,
        "outcome": None,
        "end_reason": None,
        "kept_at": None,
        "idle": False,
    },
    "MessageOut": {"message": "User released"},
    "NewTokenOut": {**_TOLD_TOKEN, "token": "bf_lease_…"},
    "PoolCountsOut": {
        "pools": [
            {
                **_POOL,
                "free": 1,
                "held": 3,
                "resting": 0,
                "quarantined": 1,
                "waiters": 2,
                "oldest_waiter": 12.5,
            }
        ]
    },
    "PoolsOut": {"pools": [{**_POOL, "users": 4}]},
    "ReadyOut": {"ready": True, "detail": "The database is reachable and migrated."},
    "ReleasedOut": {
        "released": 1,
        "freed": [
            {
                "id": LEASE_ID,
                "test_id": _HOLDER["test_id"],
                "logins": [LOGIN],
                "quarantined": {},
            }
        ],
    },
    "RenewOut": {
        "leases": [
            {"id": LEASE_ID, "state": "held", "expires_in": 60.0},
            {
                "id": OTHER_LEASE_ID,
                "state": "expired",
                "detail": f"Lease {OTHER_LEASE_ID} ended 4.5 s ago (expired). Its "
                "users may have other holders now.",
                "ended_ago": 4.5,
                "users": [
                    {"user_id": USER_ID, "login": LOGIN, "holder": None},
                ],
            },
        ]
    },
    "ReservationOut": {
        "id": RESERVATION_ID,
        "expires_in": 600.0,
    },
    "TokenOut": _TOLD_TOKEN,
    "UserOut": {
        "id": USER_ID,
        "login": LOGIN,
        "project_id": PROJECT_ID,
        **_POOL,
        "created_at": MOMENT,
        "locktime": None,
        "labels": _LABELS,
        "state": "free",
        "lease_id": None,
        "fence": 17,
        "dirty": False,
        "quarantine_reason": None,
        "quarantined_by": None,
        "idle": False,
    },
    "StateOut": {"state": "session=…"},
    "VerifiedPasswordOut": {"matches": True},
    "WaitingOut": {
        "state": "waiting",
        "id": OTHER_LEASE_ID,
        "place": 1,
        "waited": 20.0,
        "ask_again_within": 15.0,
        "blockers": [
            {
                "user_id": USER_ID,
                "login": LOGIN,
                "lease_id": LEASE_ID,
                "holder": _HOLDER,
                "held_for": 18.8,
                "expires_in": 41.2,
                "kept": False,
            }
        ],
        "matching": {
            "free": 0,
            "held": 1,
            "resting": 0,
            "quarantined": {
                "count": 1,
                "first": [{"login": "bob@example.com", "reason": "locked out"}],
            },
        },
    },
}
"""By the names of their schemas."""


METRICS = """\
# HELP botfarm_users Users, by pool and state.
# TYPE botfarm_users gauge
botfarm_users{domain="regular",env="stage",state="free"} 3.0
botfarm_users{domain="regular",env="stage",state="held"} 1.0
"""
"""The beginning of one."""


def answer_example(schema: Json) -> Any:
    """An answer of a schema of the document; a list has one."""
    if schema.get("type") == "array":
        return [answer_example(schema["items"])]
    return ANSWERS[schema["$ref"].rpartition("/")[2]]

"""Bodies and parameters of calls, as the OpenAPI document shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USER_ID = "0b0f5b0e-6c1d-4a55-9d0b-3f1f5f0c7a01"
LEASE_ID = "5f1c7a3e-9a1b-4f5e-8f43-3c1c4b8f2d10"
OTHER_LEASE_ID = "5f1c7a3e-9a1b-4f5e-8f43-3c1c4b8f2d11"
PROJECT_ID = "6f3c8f5e-0000-4000-8000-000000000001"
RESERVATION_ID = "9c0e6a52-2f4e-4a7d-8a53-5d4a6f1b3c20"
CALLER_ID = "7d3a1f64-5b0c-4c8e-b1d9-2a6e8f4c5b30"
"""Of those that the examples tell of; the caller's is its token's."""
LOGIN = "alice@example.com"
MOMENT = "2030-01-31T12:00:00Z"
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "leases_ask": {
        "wants": [{"env": "stage", "domain": "regular", "labels": {"role": "admin"}}],
        "ttl": 60,
        "wait": 20,
        "holder": {
            "run_id": "build 7",
            "worker_id": "gw0",
            "test_id": "tests/test_a.py::test_b",
        },
    },
    "pools_check": {
        "leases": [{"wants": [{"env": "stage", "domain": "regular", "count": 2}]}]
    },
    "leases_renew": {"leases": [{"id": LEASE_ID, "fence": 17}]},
    "leases_end": {"outcome": "passed", "fence": 17},
    "leases_keep": {"fence": 17, "seconds": 1800, "outcome": "failed"},
    "leases_end_holder": {
        "run_id": "build 7",
        "worker_id": "gw0",
        "outcome": "crashed",
        "clean": False,
    },
    "leases_drop": {"fence": 17},
    "leases_save": {"fence": 17, "state": "session=…", "expires_in": 3600},
    "users_create": {
        "login": LOGIN,
        "password": "…",
        "env": "stage",
        "domain": "regular",
        "labels": {"role": "admin"},
    },
    "reservations_reserve": {"env": "stage", "domain": "regular", "limit": 20},
    "users_change": {"labels": {"role": "admin"}},
    "users_import_all": {
        "users": [
            {
                "login": LOGIN,
                "password": "…",
                "env": "stage",
                "domain": "regular",
            }
        ],
        "dry_run": True,
    },
    "users_acquire": {"ttl": 600},
    "users_quarantine": {"reason": "locked out", "author": "alice"},
    "users_verify_password": {"password": "…"},
    "users_restore": {"reason": "unlocked again"},
    "leases_break_lease": {"reason": "its machine is gone", "holder_is_dead": True},
    "tokens_create": {"name": "CI of the shop", "role": "lease", "expires_in": 7776000},
}
"""A body for each operation that takes one."""
_PARAMETERS: Mapping[str, Any] = {
    "action": "user.create",
    "cursor": 1041,
    "domain": "regular",
    "env": "stage",
    "label": ["role=admin"],
    "lease_id": LEASE_ID,
    "limit": 100,
    "login": LOGIN,
    "project_id": PROJECT_ID,
    "reservation_id": RESERVATION_ID,
    "run_id": "build 7",
    "since": MOMENT,
    "state": "held",
    "subject": LOGIN,
    "subject_id": USER_ID,
    "subject_kind": "user",
    "token_id": CALLER_ID,
    "until": "2030-02-01T12:00:00Z",
    "user_id": USER_ID,
    "who": "CI of the shop",
    "worker_id": "gw0",
}
_PARAMETERS_OF: Mapping[tuple[str, str], Any] = {
    ("users_find", "cursor"): "WyJzdGFnZSIsICJhbGljZUBleGFtcGxlLmNvbSJd"
}
"""Those that are something else than what others have under the same name."""


def parameter_example(operation: str, name: str) -> Any:
    return _PARAMETERS_OF.get((operation, name), _PARAMETERS[name])

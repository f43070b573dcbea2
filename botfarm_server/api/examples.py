"""A body for each operation that takes one, as the OpenAPI document shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    "leases_renew": {
        "leases": [{"id": "5f1c7a3e-9a1b-4f5e-8f43-3c1c4b8f2d10", "fence": 17}]
    },
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
        "login": "alice@example.com",
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
                "login": "alice@example.com",
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

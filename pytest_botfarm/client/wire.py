"""The models as the JSON of the protocol, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .errors import ServerError, server_error
from .models import (
    Blocker,
    Freed,
    Holder,
    Lease,
    LeasedUser,
    Lost,
    Matching,
    NewUser,
    PassedOn,
    PoolSize,
    Prospect,
    Quarantined,
    Renewed,
    Waiting,
    Want,
)

Json = Mapping[str, Any]

MALFORMED = (ValueError, KeyError, TypeError, AttributeError)
"""What reading an answer raises if it has not the protocol's form."""


REFUSED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What no text may contain that people read: it would move their cursor."""


def readable(text: str) -> str:
    """A text of somebody else's as the server takes it."""
    return REFUSED.sub("\N{REPLACEMENT CHARACTER}", text)


def count_of(content: bytes) -> int:
    """How many an answer lists."""
    answer = json.loads(content)
    if not isinstance(answer, list):
        raise TypeError("not a list")
    return len(answer)


def decode(content: bytes) -> Json:
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    return answer


def wants_body(wants: Sequence[Want]) -> Sequence[Json]:
    return [
        {
            "env": want.env,
            "domain": want.domain,
            "project_id": want.project_id and str(want.project_id),
            "labels": dict(want.labels),
            "count": want.count,
        }
        for want in wants
    ]


def lease_body(
    wants: Sequence[Want],
    holder: Holder,
    *,
    ttl: float,
    wait: float,
    prefer: Sequence[UUID] = (),
) -> Json:
    return {
        "wants": wants_body(wants),
        "ttl": ttl,
        "wait": wait,
        "holder": {
            "run_id": holder.run_id,
            "worker_id": holder.worker_id,
            "test_id": holder.test_id,
            "host": holder.host,
            "job_url": holder.job_url,
        },
        "prefer": [str(user_id) for user_id in prefer],
    }


def reservation_body(reservation_id: UUID, want: Want, *, limit: int) -> Json:
    return {
        "id": str(reservation_id),
        "env": want.env,
        "domain": want.domain,
        "project_id": want.project_id and str(want.project_id),
        "limit": limit,
    }


def new_user_body(want: Want, new: NewUser, *, reservation_id: UUID) -> Json:
    project_id = new.project_id or want.project_id
    return {
        "login": new.login,
        "password": new.password,
        "project_id": project_id and str(project_id),
        "env": want.env,
        "domain": want.domain,
        "labels": {**want.labels, **new.labels},
        "secrets": dict(new.secrets),
        "reservation_id": str(reservation_id),
    }


def holder_of(answer: Json) -> Holder:
    return Holder(
        run_id=answer["run_id"],
        worker_id=answer["worker_id"],
        test_id=answer["test_id"],
        host=answer["host"],
        job_url=answer["job_url"],
    )


def leased_user_of(answer: Json) -> LeasedUser:
    project_id = answer["project_id"]
    return LeasedUser(
        id=UUID(answer["id"]),
        login=answer["login"],
        password=answer["password"],
        secrets=dict(answer["secrets"]),
        state=answer.get("state"),  # servers of the first version have none
        state_is_apart=answer.get("state_is_apart", False),
        project_id=None if project_id is None else UUID(project_id),
        env=answer["env"],
        domain=answer["domain"],
        labels=dict(answer["labels"]),
        fence=answer["fence"],
        dirty=answer["dirty"],
        want=answer["want"],
    )


def state_of(answer: Json) -> str | None:
    state: str | None = answer["state"]
    return state


@dataclass(frozen=True, slots=True)
class Times:
    """When the first and the last call for a lease were sent, and the last answered."""

    asked_first: float
    asked: float
    answered: float


def lease_of(answer: Json, *, times: Times) -> Lease:
    """The lease of a `200`.

    `expires_in` counts from an instant after the last call was sent and after the
    grant, which came `waited` seconds after the first call or later; so the later of
    these is a safe start. With the last call alone, one that waited long for its
    grant would bring home an expired lease.
    """
    granted = max(times.asked, times.asked_first + float(answer["waited"]))
    expires_in = answer["expires_in"]
    return Lease(
        id=UUID(answer["id"]),
        fence=int(answer["fence"]),
        ttl=None if answer["ttl"] is None else float(answer["ttl"]),
        waited=float(answer["waited"]),
        users=tuple(leased_user_of(user) for user in answer["users"]),
        granted=min(granted, times.answered),
        expires_in=None if expires_in is None else float(expires_in),
    )


def waiting_of(answer: Json) -> Waiting:
    return Waiting(
        id=UUID(answer["id"]),
        place=int(answer["place"]),
        waited=float(answer["waited"]),
        blockers=tuple(
            Blocker(
                user_id=UUID(blocker["user_id"]),
                login=blocker["login"],
                holder=holder_of(blocker["holder"]),
                held_for=float(blocker["held_for"]),
                expires_in=blocker["expires_in"],
                kept=blocker["kept"],
            )
            for blocker in answer["blockers"]
        ),
        matching=_matching_of(answer.get("matching")),
    )


def _matching_of(answer: Json | None) -> Matching | None:
    if answer is None:
        return None
    return Matching(
        free=int(answer["free"]),
        held=int(answer["held"]),
        resting=int(answer["resting"]),
        quarantined=quarantined_of(answer["quarantined"]),
    )


def passed_on_of(answer: Json) -> PassedOn:
    holder = answer["holder"]
    return PassedOn(
        user_id=UUID(answer["user_id"]),
        login=answer["login"],
        holder=None if holder is None else holder_of(holder),
    )


def renewal_of(answer: Json) -> Renewed | Lost:
    if answer["state"] == "held":
        return Renewed(UUID(answer["id"]), answer["expires_in"])
    return Lost(
        id=UUID(answer["id"]),
        state=answer["state"],
        detail=answer["detail"],
        ended_ago=answer["ended_ago"],
        users=tuple(passed_on_of(user) for user in answer["users"]),
    )


def pools_of(answer: Json) -> list[PoolSize]:
    return [
        PoolSize(str(pool["env"]), str(pool["domain"]), int(pool["users"]))
        for pool in answer["pools"]
    ]


def freed_of(answer: Json) -> list[Freed]:
    return [
        Freed(
            test_id=lease["test_id"],
            logins=list(lease["logins"]),
            quarantined=dict(lease["quarantined"]),
        )
        for lease in answer["freed"]
    ]


def quarantined_of(answer: Json) -> Quarantined:
    return Quarantined(
        count=int(answer["count"]),
        first={user["login"]: user["reason"] for user in answer["first"]},
    )


def prospects_of(answer: Json) -> list[Prospect]:
    return [
        Prospect(
            matching=tuple(int(count) for count in lease["matching"]),
            refusal=lease["error"] and str(refusal_of(200, lease["error"])),
        )
        for lease in answer["leases"]
    ]


def error_of(status: int, content: bytes) -> ServerError:
    """The error of an answer, also of one without the protocol's error shape."""
    try:
        return refusal_of(status, decode(content))
    except MALFORMED:
        return refusal_of(status, {})


def refusal_of(status: int, answer: Json) -> ServerError:
    """The error that an answer of this status is, or has in it."""
    facts = dict(answer)
    if "users" in facts:
        facts["users"] = tuple(passed_on_of(user) for user in facts["users"])
    if "pools" in facts:
        facts["pools"] = tuple(pools_of(facts))
    if "quarantined" in facts:
        facts["quarantined"] = quarantined_of(facts["quarantined"])
    code = str(facts.pop("error", ""))
    detail = str(facts.pop("detail", f"The server answered with status {status}."))
    return server_error(code, detail, status=status, facts=facts)

"""What is hostile is refused in words: never a failure, never a hang."""

from __future__ import annotations

import base64
import json
import uuid

import pytest

from botfarm_server.api.bodies import MOST_NAMES
from botfarm_server.api.errors import MOST_FLAWS
from botfarm_server.api.schemas.fields import MAXIMUM_FENCE, MAXIMUM_LABELS, MAXIMUM_TTL
from botfarm_server.api.schemas.kept_states import MAXIMUM_STATE_BYTES
from botfarm_server.api.schemas.leases import MAXIMUM_WAIT
from botfarm_server.api.schemas.users import MAXIMUM_SECRET_LENGTH
from botfarm_server.api.schemas.wants import MAXIMUM_COUNT, MAXIMUM_WANTS

from .calls import (
    LEASE,
    MAXIMUM_BODY,
    USERS,
    WANT,
    Call,
    answer_to,
    lease,
    listing,
    user,
)
from .conftest import Start

AUDIT = "/api/v1/audit"
STATE = f"{LEASE}/users/{uuid.UUID(int=2)}/state"
INVALID = (422, "invalid_request")


def want(**changes: object) -> Call:
    return lease(wants=[{**WANT, **changes}])


def cursor(text: str) -> Call:
    return listing(f"cursor={base64.urlsafe_b64encode(text.encode()).decode()}")


LOGINS = {
    "a login with NUL": "ali\x00ce",
    "a login with half a surrogate pair": "ali\ud800ce",
    "a login with a control character": "ali\x1bce",
    "a login with a line break": "ali\nce",
    "a login that turns the order of letters": "ali\u202ece",
    "a login with an invisible character": "ali\u200bce",
    "a login with a variation selector": "alice\ufe0f",
    "a login with a space at its end": "alice ",
    "a login that is not normalised": "rene\u0301",
    "a login in wide letters": "\uff41lice",
    "a login with a Cyrillic letter among Latin ones": "\u0430lice",
    "a login with a Greek letter among Latin ones": "alic\u03b5",
    "a login that is too long": "a" * 256,
    "a login that is empty": "",
}
ODD = {
    "NUL": "%00",
    "a control character": "ali%1Bce",
    "an invisible character": "ali%E2%80%8Bce",
    "too long a text": "a" * 256,
    "nothing": "",
}
"""Texts of a query."""
REAL_NAMES = ["Renée", "иван@example.com", "Ωμέγα-1", "山田太郎", "محمد", "o'neill+1"]
CALLS: dict[str, Call] = {
    "a holder that moves the cursor": lease(holder={"host": "\x1b[2J"}),
    "a holder with a long name": lease(holder={"test_id": "a" * 2_001}),
    "an unknown field of a holder": lease(holder={"hots": "here"}),
    "an unknown field of a want": want(coun=1),
    "no want": lease(wants=[]),
    "too many wants": lease(wants=[WANT] * (MAXIMUM_WANTS + 1)),
    "too many users": want(count=MAXIMUM_COUNT + 1),
    "a huge count": want(count=10**30),
    "a fraction of a user": want(count=1.5),
    "too many users over all wants": lease(wants=[{**WANT, "count": 99}] * 2),
    "too many labels": want(
        labels={str(number): "x" for number in range(MAXIMUM_LABELS + 1)}
    ),
    "a long label": want(labels={"role": "a" * 256}),
    "a label without a name": want(labels={"": "admin"}),
    "a label with a control character": want(labels={"role": "\x07"}),
    "a label that is no text": want(labels={"role": ["admin"]}),
    "too long a wait": lease(wait=MAXIMUM_WAIT + 1),
    "a wait of no number": lease(wait=float("nan")),
    "an endless wait": lease(wait=float("inf")),
    "too long a TTL": lease(ttl=MAXIMUM_TTL + 1),
    "too short a TTL": lease(ttl=1),
    "too many users to prefer": lease(prefer=[str(uuid.UUID(int=1))] * 101),
    "a fence beyond the column": (
        "DELETE",
        LEASE,
        {"fence": MAXIMUM_FENCE + 1},
    ),
    "a long secret": user(secrets={"key": "x" * (MAXIMUM_SECRET_LENGTH + 1)}),
    "secrets that are large together": user(
        secrets={str(number): "\U0001f600" * 8_193 for number in range(2)}
    ),
    "too many secrets": user(secrets={str(number): "x" for number in range(21)}),
    "a large state": (
        "PUT",
        STATE,
        {"fence": 1, "state": "x" * (MAXIMUM_STATE_BYTES + 1)},
    ),
    **{
        f"{what} as {name} in the audit log": ("GET", f"{AUDIT}?{name}={text}", None)
        for name in ("who", "subject")
        for what, text in ODD.items()
    },
    "a time before all times": (
        "GET",
        f"{AUDIT}?since=0001-01-01T00:00:00%2B01:00",
        None,
    ),
    "a time after all times": ("GET", f"{AUDIT}?until=9999-12-31T23:59:59-01:00", None),
    "a page that is too large": listing("limit=1001"),
    "thousands of unknown names": (
        "POST",
        "/api/v1/leases/renew",
        {"leases": [dict.fromkeys("abcde", 0)] * (MOST_NAMES // 5)},
    ),
    "too many labels in a query": listing("&".join(["label=a=b"] * 21)),
    "NUL in a query": listing("login=%00"),
    "a cursor that is nested deeply": cursor("[" * 1_400),
    "a cursor with NUL": cursor(json.dumps(["stage", "\x00"])),
    "a cursor with half a surrogate pair": cursor(json.dumps(["stage", "\ud800"])),
    "a cursor of other letters": listing("cursor=%C3%A9"),
    "a path with NUL": ("GET", f"{USERS}/%00", None),
    "an id that is none": ("GET", f"{USERS}/{'9' * 5_000}", None),
    "JSON that is nested deeply": ("POST", USERS, b"[" * 60_000),
    "a number of many digits": ("POST", USERS, b"9" * 60_000),
    "bytes that are no text": ("POST", USERS, b'{"login": "\xff"}'),
    "half a JSON text": ("POST", USERS, b'{"login": '),
    "another type than an object": ("POST", USERS, b"[]"),
    **{name: user(login=login) for name, login in LOGINS.items()},
}
"""Each is refused as `422 invalid_request`."""


@pytest.mark.anyio
async def test_hostile_input_is_refused_in_words(start: Start) -> None:
    async with start(max_body_bytes=10 * MAXIMUM_BODY) as client:
        told = {name: await answer_to(client, call) for name, call in CALLS.items()}
        assert told == dict.fromkeys(CALLS, INVALID)
        unknown = {f"{number:05}": 0 for number in range(400)}
        told_of_many = await client.put(LEASE, json=lease(**unknown)[2])
        flaws = told_of_many.json()["errors"]
        assert flaws[-1] == {"field": "body", "message": "has 300 more flaws"}
        assert len(flaws) == MOST_FLAWS + 1
        made = [await answer_to(client, user(login=name)) for name in REAL_NAMES]
        assert made == [(201, None)] * len(REAL_NAMES)
        # A second one of each looks the same to both databases, too.
        again = [await answer_to(client, user(login=name)) for name in REAL_NAMES]
        assert again == [(400, "duplicate_user")] * len(REAL_NAMES)

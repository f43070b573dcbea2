"""A server that answers from a script, for the client's side of the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pytest_botfarm.client.core import LeaseProtocol
from pytest_botfarm.client.exchange import (
    Conversation,
    Moved,
    Outcomes,
    Request,
    Response,
    Sleep,
    TransportFailure,
)
from pytest_botfarm.client.models import Holder, Lease, Want

T = TypeVar("T")
Reply = Response | TransportFailure | Moved
Script = Sequence[Reply | Callable[[Request], Reply]]

REFUSED = TransportFailure("connection refused")
WANTS = (Want("stage", "regular", labels={"role": "admin"}),)
ME = Holder("run", "gw0", "tests/test_my.py::test_it", "ci-1")
HOLDER = {
    "run_id": "run",
    "worker_id": "gw1",
    "test_id": "tests/test_other.py::test_it",
    "host": "ci-3",
    "job_url": None,
}


def answer(
    status: int, body: object = None, *, protocol: str | None = "1", **headers: str
) -> Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if protocol is not None:
        sent["botfarm-protocol"] = protocol
    return Response(status, sent, b"" if body is None else json.dumps(body).encode())


def held(lease_id: UUID, **changes: Any) -> dict[str, Any]:
    user = {
        "id": str(uuid4()),
        "login": "alice@example.com",
        "password": "correct horse",
        "secrets": {"totp": "seed"},
        "state": "session of alice",
        "state_is_apart": False,
        "project_id": None,
        "env": "stage",
        "domain": "regular",
        "labels": {"role": "admin"},
        "fence": 7,
        "dirty": False,
        "want": 0,
    }
    return {
        "state": "held",
        "id": str(lease_id),
        "fence": 7,
        "ttl": 60.0,
        "expires_in": 15.0,
        "waited": 0.0,
        "users": [user],
        **changes,
    }


def waiting(lease_id: UUID) -> dict[str, Any]:
    blocker = {
        "user_id": str(uuid4()),
        "login": "bob@example.com",
        "lease_id": str(uuid4()),
        "holder": HOLDER,
        "held_for": 41.0,
        "expires_in": 19.0,
        "kept": False,
    }
    return {
        "state": "waiting",
        "id": str(lease_id),
        "place": 2,
        "waited": 20.0,
        "ask_again_within": 15.0,
        "blockers": [blocker],
    }


def refusal(code: str, **facts: object) -> dict[str, object]:
    return {"error": code, "detail": f"The server says {code}.", **facts}


class Stage:
    """Plays a server from a script, on a clock that only the play moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.requests: list[Request] = []
        self.sleeps: list[float] = []
        self.protocol = LeaseProtocol(
            "http://farm", clock=lambda: self.now, jitter=lambda low, high: high
        )

    def play(
        self, conversation: Conversation[T], script: Script, *, each_takes: float = 0.0
    ) -> T:
        """Answer each request with the script's next line; its last line repeats."""
        lines = list(script)
        outcome: Outcomes = None
        while True:
            try:
                effect = conversation.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if isinstance(effect, Sleep):
                self.sleeps.append(effect.seconds)
                self.now += effect.seconds
                outcome = None
            else:
                self.requests.append(effect)
                self.now += each_takes
                line = lines.pop(0) if len(lines) > 1 else lines[0]
                outcome = line(effect) if callable(line) else line


def asking(
    stage: Stage,
    lease_id: UUID,
    *,
    wait: float = 300.0,
    ends: float | None = None,
    anew: Callable[[], UUID] | None = None,
) -> Conversation[Lease]:
    return stage.protocol.acquire(
        lease_id, WANTS, ME, ttl=60.0, wait=wait, ends=ends, anew=anew
    )

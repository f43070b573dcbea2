"""The plugin's own client, with each of its calls written to the history."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pytest_botfarm.client.asynchronous import AsyncClient
from pytest_botfarm.client.core import LeaseProtocol
from pytest_botfarm.client.exchange import (
    Conversation,
    Outcomes,
    Request,
    Response,
    Sleep,
)

from .evidence import Operation
from .history import History

T = TypeVar("T")


class RecordingClient:
    """Holds conversations over several servers: each call goes to one at random, as
    through a load balancer that knows nothing of leases.
    """

    def __init__(
        self, urls: Sequence[str], history: History, chance: random.Random
    ) -> None:
        self.protocol = LeaseProtocol("the farm")
        self._clients = [AsyncClient(url) for url in urls]
        self._history = history
        self._chance = chance
        self._calls = 0

    async def run(self, conversation: Conversation[T]) -> T:
        """Hold a conversation of `self.protocol` and return what it comes to."""
        outcome: Outcomes = None
        try:
            while True:
                effect = conversation.send(outcome)
                if isinstance(effect, Sleep):
                    outcome = await self._clients[0]._perform(effect)
                else:
                    server = self._chance.choice(range(len(self._clients)))
                    outcome = await self._call(server, effect)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            conversation.close()

    async def _call(self, server: int, request: Request) -> Outcomes:
        self._calls += 1
        number = self._calls
        operation, lease = operation_of(request)
        self._history.write(
            "call",
            n=number,
            operation=operation,
            lease=lease,
            server=server,
            waits=request.waits,
        )
        outcome = await self._clients[server]._perform(request)
        if isinstance(outcome, Response):
            self._history.write("answer", n=number, **answer_facts(outcome, lease))
        else:
            self._history.write("failed", n=number)
        return outcome

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()


def operation_of(request: Request) -> tuple[Operation, str | None]:
    match request.method, request.path.rpartition("/")[2]:
        case "PUT", lease:
            return "ask", lease
        case "DELETE", lease:
            return "end", lease
        case _, "renew":
            return "renew", None
        case _, "release":
            # A holder is one lease here, and its worker's id is that of the lease.
            return "release", request.body["worker_id"]
        case _:
            raise ValueError(request.path)


def answer_facts(response: Response, lease: str | None) -> dict[str, Any]:
    """What the history keeps of an answer: nothing secret, nothing that is not used."""
    if "botfarm-protocol" not in response.headers:
        return {"status": response.status, "code": "no protocol header", "told": []}
    body = json.loads(response.content) if response.content else {}
    code = body.get("error") if response.status >= 400 else None
    return {
        "status": response.status,
        "code": code,
        "told": list(_told(response.status, code, body, lease)),
    }


def _told(
    status: int, code: str | None, body: Mapping[str, Any], lease: str | None
) -> Sequence[Mapping[str, Any]]:
    if code == "lease_ended":
        return [{"lease": body["lease_id"], "state": "ended"}]
    if status == 204:
        return [{"lease": lease, "state": "ended"}]
    if "leases" in body:
        return [
            {"lease": item["id"], "state": item["state"]}
            for item in body["leases"]
            # A waiter or an unknown id is no statement on a grant.
            if item["state"] != "unknown"
        ]
    if "state" in body:
        users = {user["id"]: user["fence"] for user in body.get("users", ())}
        return [{"lease": body["id"], "state": body["state"], "users": users}]
    return []

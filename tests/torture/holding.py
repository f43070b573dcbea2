"""The leases that one process believes to hold, kept alive as the plugin does it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

from pytest_botfarm.client.clock import clock
from pytest_botfarm.client.errors import BotfarmError
from pytest_botfarm.client.lifetimes import Lifetime, Lifetimes
from pytest_botfarm.client.models import Lease
from pytest_botfarm.heartbeat import LONGEST_TRY, SHORTEST_TRY

from .history import History
from .phases import Phases
from .recording import RecordingClient

LONGEST_NAP = 0.1
FOR_EVER = 3_600.0
"""Seconds for which a client without a deadline goes on."""


class Keeper:
    """The plugin's heartbeat, as a task: `Lifetimes` decides when, and what is lost."""

    def __init__(
        self,
        client: RecordingClient,
        history: History,
        phases: Phases,
        *,
        has_deadline: bool = True,
    ) -> None:
        self._client = client
        self._history = history
        self._phases = phases
        self._lifetimes = Lifetimes()
        self._watched: dict[UUID, Lifetime] = {}
        self._has_deadline = has_deadline

    def watch(self, lease: Lease) -> Lifetime:
        life = self._lifetimes.watch(lease)
        assert life is not None
        self._watched[lease.id] = life
        self._history.write(
            "held",
            lease=str(lease.id),
            users={str(user.id): user.fence for user in lease.users},
            deadline=life.deadline + self._history.offset,
        )
        return life

    def allows(self, life: Lifetime, stamp: float) -> bool:
        """Whether the lease may be used at an instant of the history's clock."""
        if not self._has_deadline:
            return stamp < life.deadline + self._history.offset + FOR_EVER
        return life.loss is None and stamp < life.deadline + self._history.offset

    def forget(self, life: Lifetime) -> None:
        """Stop to believe, before the lease is given back."""
        self._lifetimes.forget(life.id)
        if self._watched.pop(life.id, None) is not None:
            self._history.write("over", lease=str(life.id))

    async def run(self) -> None:
        while True:
            now = clock()
            self._lifetimes.lose_overdue(now, "no heartbeat was answered in time")
            if fences := self._lifetimes.due(now):
                await self.beat(fences)
            await asyncio.sleep(LONGEST_NAP)

    async def beat(self, fences: dict[UUID, int]) -> None:
        """Renew once; a failure is borne until the deadline."""
        self._phases.reached("renewing")
        asked = clock()
        deadline = self._lifetimes.earliest_deadline() or asked
        timeout = min(max(deadline - asked, SHORTEST_TRY), LONGEST_TRY)
        before = {lease: life.deadline for lease, life in self._watched.items()}
        try:
            answers = await self._client.run(
                self._client.protocol.renew(fences, timeout=timeout)
            )
        except BotfarmError:
            self._lifetimes.failed(clock())
            return
        self._lifetimes.renewed(answers, asked=asked)
        for lease, life in list(self._watched.items()):
            if life.loss is not None:
                self.forget(life)
            elif life.deadline != before.get(lease, life.deadline):
                self._history.write(
                    "extended",
                    lease=str(lease),
                    deadline=life.deadline + self._history.offset,
                )


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

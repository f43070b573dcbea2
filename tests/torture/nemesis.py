"""Carries out a plan of faults, and heals each of them."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from .databases import LISTENING, POOLED, PostgresqlDatabase
from .farm import Farm
from .plan import KINDS, PlannedFault
from .processes import Process
from .proxy import Disturbance, Proxy


class Busy(Exception):  # noqa: N818 - no error: the fault is left out
    """What the fault aims at is in the hands of another one."""


class Nemesis:
    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._crashing = asyncio.Lock()
        self.left_out: Counter[str] = Counter()
        """Faults that met another one at work on the same target."""

    async def carry_out(self, plan: Sequence[PlannedFault]) -> None:
        """Do all of it, and return once everything is healed."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        under_way: list[asyncio.Task[None]] = []
        for fault in plan:
            await asyncio.sleep(max(0.0, start + fault.at - loop.time()))
            under_way.append(asyncio.create_task(self._carry_out(fault)))
        await asyncio.gather(*under_way)

    async def _carry_out(self, fault: PlannedFault) -> None:
        try:
            await self._dispatch(fault)
        except Busy:
            self.left_out[fault.kind] += 1

    async def _dispatch(self, fault: PlannedFault) -> None:
        farm = self._farm
        match KINDS[fault.kind].target:
            case "client":
                client = farm.clients[fault.target[0]]
                await self._to_process(fault, client, lambda: self._client(fault))
            case "server":
                server = farm.servers[fault.target[0]]
                if fault.kind in {"kill-server", "pause-server"}:
                    await self._to_process(fault, server, lambda: self._server(fault))
                else:
                    await self._noted(fault, lambda: self._within(fault))
            case "pair":
                proxy = farm.pairs[fault.target[0], fault.target[1]]
                await self._between(fault, proxy, cast("Disturbance", fault.kind))
            case "link":
                await self._on_link(fault)
            case "database":
                await self._on_database(fault)

    async def _noted(
        self, fault: PlannedFault, do: Callable[[], Awaitable[object]]
    ) -> None:
        """Write to the history when the fault begins and when it is healed."""
        target = "-".join(map(str, fault.target)) or "database"
        self._farm.history.write(
            "fault",
            n=fault.number,
            fault=fault.kind,
            target=target,
            stalls=KINDS[fault.kind].stalls,
        )
        try:
            await do()
        finally:
            self._farm.history.write("healed", n=fault.number)

    async def _to_process(
        self, fault: PlannedFault, process: Process, do: Callable[[], Awaitable[object]]
    ) -> None:
        if process.busy.locked() or not process.is_alive():
            raise Busy
        async with process.busy:
            await self._noted(fault, do)

    async def _client(self, fault: PlannedFault) -> None:
        farm = self._farm
        client = farm.clients[fault.target[0]]
        match fault.kind:
            case "pause-client":
                client.send(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                client.send(signal.SIGCONT)
                return
            case "kill-client-in-phase":
                client.say(f"die {fault.phase}")
                if not await client.ended(10.0):
                    await client.kill()
            case _:
                await client.kill()
        farm.note_death(client)
        await asyncio.sleep(fault.seconds)
        client.start(farm.size.seed)

    async def _server(self, fault: PlannedFault) -> None:
        server = self._farm.servers[fault.target[0]]
        if fault.kind == "pause-server":
            server.send(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            server.send(signal.SIGCONT)
            return
        await server.kill()
        await asyncio.sleep(fault.seconds)
        server.start()

    async def _within(self, fault: PlannedFault) -> None:
        """Faults that the server's levers make."""
        control = self._farm.servers[fault.target[0]].control
        if fault.kind == "skew-clock":
            control.set_number("skew", (fault.delay - 0.15) * 86_400)
            await asyncio.sleep(fault.seconds)
            control.set_number("skew", 0.0)
            return
        lever = {"exhaust-pool": "exhausted", "disk-full": "full"}[fault.kind]
        control.switch(lever, on=True)
        await asyncio.sleep(fault.seconds)
        control.switch(lever, on=False)

    async def _between(
        self, fault: PlannedFault, proxy: Proxy, disturbance: Disturbance
    ) -> None:
        if proxy.disturbance is not None:
            raise Busy

        async def disturb() -> None:
            proxy.disturb(disturbance, fault.delay)
            await asyncio.sleep(fault.seconds)
            proxy.heal()

        await self._noted(fault, disturb)

    async def _on_link(self, fault: PlannedFault) -> None:
        link = self._farm.servers[fault.target[0]].link
        assert link is not None
        match fault.kind:
            case "database-drop":
                await self._between(fault, link, "drop")
            case "database-delay":
                await self._between(fault, link, "delay")
            case "database-cut":
                await self._noted(fault, _at_once(link.cut_all))
            case "deafen-listen":
                await self._noted(fault, _at_once(link.deafen))

    async def _on_database(self, fault: PlannedFault) -> None:
        database = self._farm.database
        if fault.kind == "long-transaction":
            if self._crashing.locked():
                raise Busy
            await self._noted(fault, lambda: database.hold_transaction(fault.seconds))
            return
        assert isinstance(database, PostgresqlDatabase)
        if self._crashing.locked():
            raise Busy
        async with self._crashing:
            match fault.kind:
                case "stop-database":
                    await self._noted(fault, lambda: database.crash(fault.seconds))
                case "lose-listen":
                    await self._noted(fault, lambda: database.terminate(LISTENING))
                case "terminate-connections":
                    await self._noted(fault, lambda: database.terminate(POOLED))


def _at_once(do: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def done() -> None:
        do()

    return done

"""Two servers with all failpoints and mutants, for tests of one thing at a time."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from sqlalchemy import delete

from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.engine import Database
from botfarm_server.store.tables import grants, leases, queue_entries, users
from pytest_botfarm.client.errors import BotfarmError
from pytest_botfarm.client.models import Holder, Lease, Want

from .checker import Verdict, check
from .client import TTL
from .evidence import Rules
from .failpoints import Point
from .history import History
from .holding import Keeper, ended
from .phases import Phases
from .processes import Server
from .proxy import Proxy, Upstream
from .reading import add_rows, evidence_of
from .recording import RecordingClient
from .witness import Stand, Witness

T = TypeVar("T")

STAGE = Want("stage", "regular")
CLAIM_WINDOW, POLL_GRACE, LOOP_INTERVAL = 1.0, 2.0, 0.2
DEADLINE = 20.0
"""Seconds until a test gives up on what it waits for."""
VARIABLES = {
    "BOTFARM_CLAIM_WINDOW": str(CLAIM_WINDOW),
    "BOTFARM_LOCK_DELAY": "0",
    "BOTFARM_POLL_GRACE": str(POLL_GRACE),
    "BOTFARM_LOOP_INTERVAL": str(LOOP_INTERVAL),
}


class InTurn(random.Random):
    """Chance that takes the first of a list, then the second, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0

    def choice(self, seq: Any) -> Any:
        self._next += 1
        return seq[(self._next - 1) % len(seq)]


class Laboratory:
    """Servers `first` and `second` over one database, for many scenes."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.database_url = database_url
        self.folder = folder
        self._scenes = 0
        variables = {"DATABASE_URL": database_url, **VARIABLES}
        self.first, self.second = (
            Server(name, folder, variables, ["--mutant=any"])
            for name in ("first", "second")
        )
        self.servers = [self.first, self.second]
        for server in self.servers:
            server.start()

    def close(self) -> None:
        for server in self.servers:
            asyncio.run(server.kill())

    async def scene(self, *, users: int = 1) -> Scene:
        """A farm with nothing but so many free users."""
        for server in self.servers:
            if not server.is_alive():
                server.start()
            server.control.clear()
        await asyncio.gather(*(server.ready() for server in self.servers))
        await self._empty()
        self._scenes += 1
        folder = self.folder / f"scene-{self._scenes}"
        folder.mkdir()
        scene = Scene(self, folder)
        await scene.set(users)
        return scene

    async def _empty(self) -> None:
        # The servers' loops go on meanwhile, and take the same lock first.
        database = Database(parsed_url(self.database_url), pool_size=2)
        async with database.queue() as (connection, _):
            for table in (queue_entries, grants, users, leases):
                await connection.execute(delete(table))
        await database.dispose()


class Scene:
    """One test's farm: actors, a witness, and a verdict at the end."""

    def __init__(self, laboratory: Laboratory, folder: Path) -> None:
        self.laboratory = laboratory
        self.folder = folder
        self.history = History(folder, "scene")
        self.witness = Witness(self.history)
        self._actors: list[Actor] = []
        self._proxies: list[Proxy] = []

    async def set(self, users: int) -> None:
        await self.witness.start()
        rows = [
            {
                "login": f"user-{number}",
                "password": "password",
                "env": STAGE.env,
                "domain": STAGE.domain,
            }
            for number in range(users)
        ]
        url = self.laboratory.first.url
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as http:
            answer = await http.post("/api/v1/users/import", json={"users": rows})
        answer.raise_for_status()

    def actor(self, *servers: Server | Proxy, has_deadline: bool = True) -> Actor:
        """A client whose calls go to these servers in turn."""
        urls = [f"http://127.0.0.1:{server.port}" for server in servers]
        name = f"actor-{len(self._actors)}"
        actor = Actor(self, name, urls, has_deadline=has_deadline)
        self._actors.append(actor)
        return actor

    async def proxy(self, server: Server) -> Proxy:
        proxy = Proxy("pair", Upstream(server.port), random.Random(0), http=True)
        await proxy.start()
        self._proxies.append(proxy)
        return proxy

    async def expires_in(self, lease: Lease, more_than: float) -> bool:
        """Whether the farm keeps a lease for more than so many seconds."""
        url = self.laboratory.second.url
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as http:
            shown = (await http.get(f"/api/v1/leases/{lease.id}")).json()
        return (shown["expires_in"] or 0.0) > more_than

    async def is_waiting(self, lease_id: uuid.UUID) -> bool:
        """Whether the farm has a waiter of this id."""
        url = self.laboratory.second.url
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as http:
            shown = (await http.get(f"/api/v1/leases/{lease_id}")).json()
        return bool(shown.get("state") == "waiting")

    async def verdict(self, *, slack: float = DEADLINE) -> Verdict:
        """Let the farm come to rest, and judge."""
        for actor in self._actors:
            await actor.leave()
        for proxy in self._proxies:
            proxy.stop()
        await self.witness.stop()
        url = self.laboratory.second.url
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE) as http:

            async def at_rest() -> bool:
                answer = await http.get("/api/v1/leases", params={"state": "live"})
                return answer.status_code == 200 and not answer.json()

            await eventually(at_rest)
        rules = Rules(
            loop_interval=LOOP_INTERVAL,
            lock_delay=0.0,
            poll_grace=POLL_GRACE,
            slack=slack,
        )
        evidence = evidence_of(self.folder, rules)
        # The servers note what they do for all scenes.
        by_servers = evidence_of(self.laboratory.folder, rules)
        evidence.taken_back = by_servers.taken_back
        await add_rows(evidence, self.laboratory.database_url)
        for actor in self._actors:
            actor.history.close()
        self.history.close()
        return check(evidence)


class Actor:
    """A client that does what the test says, with the plugin's own client."""

    def __init__(
        self, scene: Scene, name: str, urls: Sequence[str], *, has_deadline: bool
    ) -> None:
        self.history = History(scene.folder, name)
        self.client = RecordingClient(urls, self.history, InTurn())
        self.keeper = Keeper(
            self.client, self.history, Phases(), has_deadline=has_deadline
        )
        self._stand = Stand(scene.witness.port, self.history)
        self._keeping: asyncio.Task[None] | None = None
        self._lives: dict[uuid.UUID, Any] = {}

    async def ask(
        self, *, wait: float = 0.0, lease_id: uuid.UUID | None = None
    ) -> Lease:
        lease_id = lease_id or uuid.uuid4()
        protocol = self.client.protocol
        holder = Holder(run_id=self.history.process, worker_id=str(lease_id))
        outcome = "cancelled"
        self.history.write("ask", lease=str(lease_id), wait=wait)
        try:
            lease = await self.client.run(
                protocol.acquire(lease_id, [STAGE], holder, ttl=TTL, wait=wait)
            )
            outcome = "held"
        except BotfarmError as error:
            outcome = type(error).__name__
            raise
        finally:
            self.history.write("asked", lease=str(lease_id), outcome=outcome)
        self._lives[lease.id] = self.keeper.watch(lease)
        return lease

    def keep(self) -> None:
        """Send heartbeats from now on."""
        self._keeping = asyncio.create_task(self.keeper.run())

    async def use(self, lease: Lease) -> bool:
        """Use the lease's user, if the client thinks that it may; was it accepted?"""
        [user] = lease.users
        life = self._lives[lease.id]
        return await self._stand.use(
            str(user.id),
            user.fence,
            str(lease.id),
            lambda stamp: self.keeper.allows(life, stamp),
        )

    async def release(self, lease: Lease) -> None:
        self.keeper.forget(self._lives[lease.id])
        await self.client.run(
            self.client.protocol.release(lease.id, fence=lease.fence, outcome="passed")
        )

    async def release_late(self, lease: Lease) -> BotfarmError | None:
        """As a client does that was paused: what the server says to it."""
        try:
            await self.release(lease)
        except BotfarmError as error:
            return error
        return None

    async def end(self, lease_id: uuid.UUID) -> None:
        """End a lease by its holder's name, be it held or waiting."""
        protocol = self.client.protocol
        await self.client.run(
            protocol.release_holder(
                self.history.process, str(lease_id), outcome="crashed", clean=False
            )
        )

    async def leave(self) -> None:
        if self._keeping is not None:
            await ended(self._keeping)
        self._stand.close()
        await self.client.aclose()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, be it a function or a coroutine function."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DEADLINE
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert loop.time() < until, "what was waited for did not come"
        await asyncio.sleep(0.02)


async def held_at(server: Server, point: Point) -> None:
    """Wait until a call stands at an armed failpoint."""
    await eventually(lambda: server.control.is_held(point))


async def dead(server: Server) -> None:
    """Wait until an armed crash has come, and start the server again."""
    await eventually(lambda: not server.is_alive())
    server.start()

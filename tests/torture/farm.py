"""The whole of a run: database, servers, clients, the proxies between, the witness."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from .databases import PostgresqlDatabase, RunDatabase, SqliteDatabase
from .evidence import Evidence, Rules
from .history import OFFSET, History, clock_offset
from .holding import ended
from .plan import DatabaseKind
from .processes import Client, Server
from .proxy import Proxy, Upstream
from .reading import add_rows, evidence_of
from .witness import Witness

CLAIM_WINDOW, LOCK_DELAY, POLL_GRACE, LOOP_INTERVAL = 3.0, 1.0, 5.0, 0.5
"""Seconds: short, so that what goes wrong shows soon."""
POOL_SIZE = 10
SAMPLE_INTERVAL = 2.0
LAST_ASK = 120.0
"""Seconds that a client may take to give back what it has and to end."""
AT_REST = 60.0
"""Seconds until nothing is held: a waiter whose server died keeps its place for 25."""
HOARDED = ("regular", "regular", "canary")
"""Domains of the users, beside the others, that few parties can have for themselves:
these wait for each other."""
ADMINS = 0.25
"""The part of the stage users that have the role that some leases want."""


@dataclass(frozen=True)
class Size:
    """How large the farm is."""

    database: DatabaseKind = "postgresql"
    servers: int = 3
    clients: int = 3
    workers: int = 10
    users: int = 16
    seed: int = 0
    server_options: tuple[str, ...] = ()
    client_options: tuple[str, ...] = ()


@dataclass
class Farm:
    folder: Path
    size: Size
    rules: Rules
    servers: list[Server] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    pairs: dict[tuple[int, int], Proxy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        os.environ[OFFSET] = repr(clock_offset())
        self.history = History(self.folder, "run")
        self.witness = Witness(self.history)
        self.chance = random.Random(self.size.seed)
        self.database: RunDatabase = (
            PostgresqlDatabase()
            if self.size.database == "postgresql"
            else SqliteDatabase(self.folder / "farm.sqlite3")
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await asyncio.to_thread(self.database.start)
        await self.witness.start()
        for number in range(self.size.servers):
            self.servers.append(await self._server(number))
        await asyncio.gather(*(server.ready() for server in self.servers))
        await self._add_users()
        for number in range(self.size.clients):
            self.clients.append(await self._client(number))
        for task in (self._supervise(), self._sample()):
            self._tasks.append(asyncio.create_task(task))

    async def _server(self, number: int) -> Server:
        upstream, link = self.database.upstream(), None
        if upstream is not None:
            link = Proxy(f"link-{number}", upstream, self.chance, http=False)
            await link.start()
        server = Server(
            f"server-{number}",
            self.folder,
            {
                "DATABASE_URL": self.database.url_through(link.port if link else None),
                "BOTFARM_CLAIM_WINDOW": str(CLAIM_WINDOW),
                "BOTFARM_LOCK_DELAY": str(LOCK_DELAY),
                "BOTFARM_POLL_GRACE": str(POLL_GRACE),
                "BOTFARM_LOOP_INTERVAL": str(LOOP_INTERVAL),
                "BOTFARM_DATABASE_POOL_SIZE": str(POOL_SIZE),
            },
            self.size.server_options,
            link,
        )
        server.start()
        return server

    async def _client(self, number: int) -> Client:
        options = [
            f"--witness={self.witness.port}",
            f"--workers={self.size.workers}",
            *self.size.client_options,
        ]
        for index, server in enumerate(self.servers):
            name = f"pair-{number}-{index}"
            proxy = Proxy(name, Upstream(server.port), self.chance, http=True)
            await proxy.start()
            self.pairs[number, index] = proxy
            options.append(f"--server=http://127.0.0.1:{proxy.port}")
        client = Client(number, self.folder, options)
        client.start(self.size.seed)
        return client

    async def _add_users(self) -> None:
        users: list[dict[str, object]] = [
            {
                "login": f"hoard-{number}",
                "password": "password",
                "env": "preprod",
                "domain": domain,
            }
            for number, domain in enumerate(HOARDED)
        ]
        for number in range(self.size.users):
            stage = number % 5 < 3
            role = "admin" if number % 5 * ADMINS < ADMINS else "member"
            users.append(
                {
                    "login": f"user-{number}",
                    "password": "password",
                    "env": "stage" if stage else "prod",
                    "domain": "regular" if stage else "canary",
                    "labels": {"role": role} if stage else {},
                }
            )
        async with httpx.AsyncClient(base_url=self.servers[0].url, timeout=60) as http:
            answer = await http.post("/api/v1/users/import", json={"users": users})
        answer.raise_for_status()

    def switch_failpoints(self, *, on: bool) -> None:
        """Have the failpoints hit at random, or not."""
        for server in self.servers:
            server.control.switch("failpoints", on=on)

    async def _supervise(self) -> None:
        """Start again what died by itself: at a failpoint, or in a phase."""
        while True:
            for server in self.servers:
                if not server.is_alive() and not server.busy.locked():
                    server.start()
            for client in self.clients:
                if not client.is_alive() and not client.busy.locked():
                    self.note_death(client)
                    client.start(self.size.seed)
            await asyncio.sleep(0.1)

    def note_death(self, client: Client) -> None:
        """Tell the checker that a client was killed, and not that it failed."""
        if client.exit_code() == -signal.SIGKILL:
            self.history.write("killed", victim=client.incarnation())

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL)
            for server in self.servers:
                try:
                    figures = await asyncio.to_thread(server.figures)
                except psutil.Error:
                    continue
                self.history.write("sample", server=server.name, **figures)

    async def come_to_rest(self) -> None:
        """Let the clients end, and the farm take back what nobody gave back."""
        supervising, self._tasks = self._tasks[0], self._tasks[1:]
        await ended(supervising)
        for server in self.servers:
            if not server.is_alive():
                server.start()
        await asyncio.gather(*(server.ready() for server in self.servers))
        for client in self.clients:
            self.note_death(client)
            client.send(signal.SIGTERM)
        await asyncio.gather(*(client.ended(LAST_ASK) for client in self.clients))
        async with httpx.AsyncClient(base_url=self.servers[0].url, timeout=60) as http:
            loop = asyncio.get_running_loop()
            until = loop.time() + AT_REST
            while loop.time() < until:
                answer = await http.get("/api/v1/leases", params={"state": "live"})
                if answer.status_code == 200 and not answer.json():
                    return
                await asyncio.sleep(0.2)

    async def evidence(self) -> Evidence:
        evidence = evidence_of(self.folder, self.rules)
        await add_rows(evidence, self.database.url)
        evidence.log_lines += self.database.log_lines()
        for server in self.servers:
            evidence.log_lines += server.complaints()
        for client in self.clients:
            # A client has nothing to say; what it says is a traceback.
            said = client.log.read_text(errors="replace")
            evidence.log_lines += [f"{client.name}: {said[-2000:]}"] if said else []
        return evidence

    async def stop(self) -> None:
        for task in self._tasks:
            await ended(task)
        for process in (*self.clients, *self.servers):
            process.send(signal.SIGCONT)
            await process.kill()
        for proxy in (*self.pairs.values(), *(it.link for it in self.servers)):
            if proxy is not None:
                proxy.stop()
        await self.witness.stop()
        if self.servers:
            await asyncio.to_thread(self.database.stop)
        self.history.close()

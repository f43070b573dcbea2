"""`botfarm serve` with failpoints, mutants, and levers for faults from within.

    python tests/torture/server.py --port 8000 --control DIR --history DIR --name s0

What is wrapped here is looked up by name when the server starts, and a name that is
gone ends the process: a fault that no longer happens would look like a run without
one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a program: the folder above is where `torture` is
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sqlalchemy import select

from botfarm_server.app import create_app, set_up_logging
from botfarm_server.domain.models import Lease
from botfarm_server.serving import Server
from botfarm_server.settings import load_settings
from botfarm_server.store import candidates, engine, grants, leases, tables
from torture import levers
from torture.evidence import Operation
from torture.failpoints import Failpoints, Point, under_way
from torture.history import History
from torture.mutants import MUTANTS
from torture.wrapping import replaced


def install_failpoints(failpoints: Failpoints) -> None:
    """Wrap the store's pieces, each at one place."""
    write = replaced(engine.Database, "write")
    lock_queue = replaced(engine, "lock_queue")
    free_for = replaced(candidates, "free_for")
    any_lapsed = replaced(leases, "any_lapsed")
    lapsed = replaced(leases, "lapsed")

    @asynccontextmanager
    async def written(self: engine.Database) -> AsyncIterator[engine.Connection]:
        async with write.original(self) as connection:
            yield connection
            await failpoints.hit("before-commit")
        await failpoints.hit("after-commit")

    async def locked(connection: engine.Connection) -> datetime:
        now: datetime = await lock_queue.original(connection)
        await failpoints.hit("after-queue-lock")
        return now

    async def read(*args: Any, **kwargs: Any) -> Any:
        found = await free_for.original(*args, **kwargs)
        await failpoints.hit("after-read")
        return found

    async def looked(connection: engine.Connection, now: datetime) -> bool:
        found: bool = await any_lapsed.original(connection, now)
        if found:
            await failpoints.hit("after-look")
        return found

    async def found_lapsed(
        connection: engine.Connection, now: datetime, *, limit: int
    ) -> list[Lease]:
        found: list[Lease] = await lapsed.original(connection, now, limit=limit)
        if found:
            await failpoints.hit("before-ending")
        return found

    write.by(written)
    lock_queue.by(locked)
    free_for.by(read)
    any_lapsed.by(looked)
    lapsed.by(found_lapsed)


def note_grants_taken_back(history: History, poll_grace: float) -> None:
    """Write down the grants that the store is about to undo: it deletes their rows."""
    take_back = replaced(grants, "take_back")

    async def noted(
        connection: engine.Connection, lease: Lease, poll_by: datetime
    ) -> None:
        of_lease = select(tables.grants).where(tables.grants.c.lease_id == lease.id)
        undone = (await connection.execute(of_lease)).all()
        assert lease.granted_at is not None
        # Its place is kept from this very instant.
        end = poll_by - timedelta(seconds=poll_grace)
        history.write(
            "taking_back",
            lease=str(lease.id),
            users={str(grant.user_id): grant.fence for grant in undone},
            start=lease.granted_at.timestamp(),
            end=end.timestamp(),
        )
        await take_back.original(connection, lease, poll_by)

    take_back.by(noted)


class TellsOperation:
    """ASGI: notes for the failpoints what the current request is."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            under_way.set(_operation(scope["method"], scope["path"]))
        await self.app(scope, receive, send)


def _operation(method: str, path: str) -> Operation | None:
    match method, path.rstrip("/").removeprefix("/api/v1/leases/"):
        case "POST", "renew":
            return "renew"
        case "POST", "release":
            return "release"
        case "PUT", _:
            return "ask"
        case "DELETE", _:
            return "end"
        case _:
            return None


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--failpoint",
        action="append",
        default=[],
        metavar="POINT:RATE",
        help="hit POINT at random, in RATE of the times that it is passed",
    )
    parser.add_argument(
        "--mutant", action="append", default=[], choices=[*MUTANTS, "any"]
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    given.control.mkdir(parents=True, exist_ok=True)
    history = History(given.history, f"{given.name}-{os.getpid()}")
    rates = {
        point: float(rate)
        for point, _, rate in (it.partition(":") for it in given.failpoint)
    }
    failpoints = Failpoints(given.control, history, rates=rates, seed=given.seed)
    unknown = set(rates) - set(Point.__args__)  # type: ignore[attr-defined]
    if unknown:
        sys.exit(f"there is no failpoint {', '.join(sorted(unknown))}")
    install_failpoints(failpoints)
    _install_mutants(given.mutant, failpoints)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    settings = load_settings({"port": given.port})
    note_grants_taken_back(history, settings.poll_grace)
    set_up_logging(settings)
    databases = levers.watch_databases()
    app = create_app(settings)
    app.add_middleware(TellsOperation)
    lifting: list[asyncio.Task[None]] = []

    def on_listening(url: str) -> None:
        lifting.append(asyncio.create_task(levers.watch(given.control, databases)))

    Server(
        app,
        host=settings.host,
        port=settings.port,
        request_timeout=settings.request_timeout,
        on_listening=on_listening,
    ).run()


def _install_mutants(names: Sequence[str], failpoints: Failpoints) -> None:
    """With `any`, all of them, each as long as a test switches it on."""
    for name, install in MUTANTS.items():
        if "any" in names:
            install(failpoints, partial(failpoints.is_on, name))
        elif name in names:
            install(failpoints, _always)


def _end_with_standard_input() -> None:
    """However the run dies, its servers do not stay behind."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _always() -> bool:
    return True


if __name__ == "__main__":
    main()

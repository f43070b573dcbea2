"""Which processes of this machine are dead that had leased something.

Each has a file here that it keeps locked (see pytest_botfarm/presence.py). A lock that
can be had says that its process is gone, which a missing heartbeat never does: so what
it held needs no delay. An idea of lock files as old as Unix mail.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import structlog

from botfarm_server.domain.errors import UnavailableError
from botfarm_server.services.leases import LeaseService

INTERVAL = 0.5
"""Seconds between two looks."""

_log = structlog.get_logger("botfarm.presence")


@dataclass
class PresenceWatch:
    """Ends what the dead have left. Several servers may look at one directory."""

    directory: Path
    leases: LeaseService

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """One round."""
        for path in sorted(self.directory.iterdir()):
            holder = _told_by_the_dead(path)
            if holder is None:
                continue
            try:
                freed = await self.leases.end_holder(
                    holder["run_id"],
                    holder["worker_id"],
                    outcome="crashed",
                    clean=False,
                )
            except UnavailableError as error:
                _log.warning("a dead process waits for the database", why=error.detail)
                return
            path.unlink(missing_ok=True)
            if freed:
                _log.warning("a process died that held leases", **holder, leases=freed)


def _told_by_the_dead(path: Path) -> dict[str, str] | None:
    """Who had locked the file, if that one is gone."""
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where no file is written either

        with path.open("r+", encoding="utf-8") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            told: dict[str, str] = json.load(file)
    except (ImportError, OSError, ValueError):
        return None  # it lives, it is about to say who it is, or another looks too
    return told

"""Which runs of this machine are dead that had leased something.

Each process of a run has a file here that it keeps locked (see
pytest_botfarm/presence.py). A lock that can be had says that its process is gone, which
a missing heartbeat never does: so what a run held of which no process is left needs no
delay. A worker that dies alone is its controller's to tell of.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import structlog

from botfarm_server.domain.errors import UnavailableError
from botfarm_server.services.leases import LeaseService
from botfarm_server.services.reclaiming import end_stints
from botfarm_server.store.lease_files import all_of, left_idle

INTERVAL = 0.5
"""Seconds between two looks."""
STINT_INTERVAL = 0.03
"""The same while calls wait, which wait for the ends of stints."""
STALE = 60.0
"""Seconds after which an empty file is no longer about to be locked."""

_log = structlog.get_logger("botfarm.presence")


@dataclass
class PresenceWatch:
    """Ends what dead runs have left. Several servers may look at one directory."""

    directory: Path
    leases: LeaseService

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def run_stints(self) -> None:
        """End the stints of workers while others of their run wait."""
        while True:
            await self.leases.news.room.until_occupied()
            await self.end_stints()
            await asyncio.sleep(STINT_INTERVAL)

    async def end_stints(self) -> None:
        """One round. Who waits comes again, and is looked for again."""
        try:
            if idle := end_stints(self.directory, datetime.now(timezone.utc)):
                await self.leases.end_idle(idle)
        except Exception:  # noqa: BLE001 - the next round may do better
            _log.exception("stints could not be ended")

    async def look(self) -> None:
        """One round. What goes wrong leaves the leases to their TTL."""
        try:
            await self._end_the_dead()
            if idle := left_idle(self.directory):
                await self.leases.end_idle(idle)
            if with_files := all_of(self.directory):
                await self.leases.remove_files(with_files)
        except Exception:  # noqa: BLE001 - the next round may do better
            _log.exception("dead runs could not be looked for")

    async def _end_the_dead(self) -> None:
        for run_id, files in self._runs().items():
            if not all(map(_is_of_the_dead, files)):
                continue
            try:
                ended = await self.leases.end_holder(
                    run_id, None, outcome="crashed", clean=False
                )
            except UnavailableError as error:
                _log.warning("a dead run waits for the database", why=error.detail)
                return
            for file in files:
                file.unlink(missing_ok=True)
            if ended:
                leases = len(ended)
                _log.warning(
                    "a run died that held leases", run_id=run_id, leases=leases
                )

    def _runs(self) -> dict[str, list[Path]]:
        runs: defaultdict[str, list[Path]] = defaultdict(list)
        for file in self.directory.iterdir():
            run_id, dot, process = file.name.rpartition(".")
            if dot and process.isdecimal():
                runs[run_id].append(file)
        return runs


def _is_of_the_dead(path: Path) -> bool:
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where no file is written either

        with path.open("r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that is empty is about to be locked, unless its maker has died.
            return bool(file.read()) or time.time() - path.stat().st_mtime > STALE
    except (ImportError, OSError):
        return False  # it lives, or another server looks at this moment

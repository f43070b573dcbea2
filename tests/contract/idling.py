"""Workers whose tests leave leases to each other, and what a server tells of these.

The holders are the plugin's own files; what it would send to a server is called here.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.models import Holder, LeaseId, UserId, Want
from botfarm_server.presence import PresenceWatch
from botfarm_server.services.answers import Held, LeaseView
from botfarm_server.store.lease_files import DIRECTORY
from pytest_botfarm.idle import LeaseFile, make_file

from .conftest import Farm


@dataclass
class Worker:
    """A process of a run whose server names the directory for files."""

    farm: Farm
    directory: Path
    worker_id: str = "gw0"
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    by: Caller = EVERYTHING

    def holder(self, test_id: str) -> Holder:
        return Holder(self.run_id, self.worker_id, test_id)

    async def use(self, test_id: str = "test", *wants: Want) -> Use:
        """Lease for a test, as a session does."""
        return await self.use_as(self.holder(test_id), *wants)

    async def use_as(self, holder: Holder, *wants: Want) -> Use:
        lease_id = LeaseId(uuid.uuid4())
        file = make_file(str(self.directory), lease_id)
        assert file is not None
        held = await self.farm.held(
            *wants, lease_id=lease_id, holder=holder, wait=10.0, by=self.by
        )
        file.begin(holder.test_id or "")
        return Use(held, file)

    async def idle(self, *tests: str) -> Use:
        """Have a lease idle that tests had in turn."""
        first, *others = tests or ("test",)
        use = await self.use(first)
        assert use.file.leave()
        for test_id in others:
            assert use.file.take_up(test_id)
            assert use.file.leave()
        return use


@dataclass
class Use:
    """A lease in the hands of a test."""

    held: Held
    file: LeaseFile

    @property
    def id(self) -> LeaseId:
        return self.held.lease.id

    @property
    def user_id(self) -> UserId:
        return self.held.users[0].id


def worker_of(farm: Farm, folder: Path) -> Worker:
    directory = folder / DIRECTORY
    directory.mkdir()
    return Worker(farm, directory)


async def history(farm: Farm) -> list[tuple[Any, ...]]:
    """Of ended leases, the newest first: state, test and outcome."""
    found = await farm.leases.find(states=["released", "expired", "revoked"], limit=99)
    return [(it.lease.state, it.lease.holder.test_id, it.lease.outcome) for it in found]


async def look(farm: Farm, worker: Worker) -> None:
    """One round of the server's look at the directory."""
    await PresenceWatch(worker.directory, farm.leases).look()


def grow_old(path: Path, seconds: float) -> None:
    """Let it be longer than that since anybody wrote the file, instead of waiting."""
    then = path.stat().st_mtime - seconds - 1.0
    os.utime(path, (then, then))


async def views(farm: Farm) -> list[LeaseView]:
    return await farm.leases.find(states=["held", "waiting"], limit=99)

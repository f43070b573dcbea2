"""Leases that a process holds between two tests, while nobody else wants their users.

A test that passed gives its lease back by leaving it idle: it says so in a file, of a
directory that the embedded server names, and unlocks it. The next test that wants the
same locks it again, and no server is asked. A server that wants the lease for somebody
else marks the file as withdrawn and then tries the lock: if it gets it, the lease is
idle and ends. This side looks at the mark behind the lock, and again once it has let
the lock go, so whoever comes second sees the first. The system drops the lock with the
process, and what the file says last tells whether a test had the lease then.

(NFSv4 delegates files to clients in this way, and SMB grants oplocks.)
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from . import locks
from .client.clock import clock, wall_time
from .client.forking import on_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client.lifetimes import Lifetime
    from .client.models import Lease, Outcome
    from .holding import Holding, Place

SUFFIX = ".lease"
NOT_WITHDRAWN = b"-"
"""The first byte, until a server writes another."""
MAXIMUM_USES = 100
"""Tests that have one lease in turn. The server writes the history of all of them when
it ends, and who waits for the lease waits for that."""
LEAST_LIFE = 2.0
"""Seconds that a lease has still when a test takes it up: time for a heartbeat."""

_encode = json.JSONEncoder().encode
"""Bound before a test can put a double in the place of `json.dumps`."""


class LeaseFile:
    """The file of one lease, locked from before the lease is asked for."""

    def __init__(self, directory: str, lease_id: UUID) -> None:
        """Raises OSError, also where there are no such locks."""
        self._path = f"{directory}/{lease_id}{SUFFIX}"
        self._uses = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND
        # Its owner's alone, whatever the umask of the run is.
        self._file: int = locks.open_file(self._path, flags, 0o600)
        try:
            made = locks.stat(self._file)
            self._made = (made.st_dev, made.st_ino)
            self._lock()
            self._write(NOT_WITHDRAWN + b"\n")
        except BaseException:  # a server looks at it already, or a person ends the run
            self.remove()
            raise

    def begin(self, test_id: str) -> None:
        """Note that a test has the lease. Raises OSError."""
        self._uses += 1
        self._tell(test_id=test_id, began=wall_time(clock()))

    def leave(self) -> bool:
        """Leave the lease idle; false if it has to be given back for good."""
        try:
            if self._is_withdrawn() or self._uses >= MAXIMUM_USES:
                return False
            self._tell(ended=wall_time(clock()))
            self._unlock()
            return not self._is_withdrawn()
        except Exception:  # noqa: BLE001 - whatever it is, the lease is given back
            return False

    def take_up(self, test_id: str) -> bool:
        """Have the idle lease for another test; false if it has to be given back."""
        try:
            self._check()
            self._lock()
            if self._is_withdrawn():
                return False
            self.begin(test_id)
            if self._is_withdrawn():
                self._tell(undone=True)
                return False
        except Exception:  # noqa: BLE001 - a server has the lock, or as above
            return False
        return True

    def _is_withdrawn(self) -> bool:
        is_gone = self._check()
        locks.seek(self._file, 0, os.SEEK_SET)
        return is_gone or locks.read(self._file, 1) != NOT_WITHDRAWN

    def _check(self) -> bool:
        """Whether a server has removed it, with the end of the lease.

        Raises OSError if the descriptor is that of another file: tests may close all
        that there are.
        """
        found = locks.stat(self._file)
        if (found.st_dev, found.st_ino) != self._made:
            raise OSError("the descriptor has been closed")
        return found.st_nlink == 0

    def remove(self) -> None:
        """The lease is over."""
        with suppress(OSError):  # the server was faster
            locks.unlink(self._path)
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._check()
            locks.close_file(self._file)

    def _lock(self) -> None:
        locks.lock(self._file)

    def _unlock(self) -> None:
        locks.unlock(self._file)

    def _tell(self, **facts: str | float) -> None:
        self._write(f"{_encode(facts)}\n".encode())

    def _write(self, line: bytes) -> None:
        self._check()
        if locks.write(self._file, line) < len(line):
            raise OSError("the disk is full")


def make_file(directory: str | None, lease_id: UUID) -> LeaseFile | None:
    """The file of a lease that is about to be asked for, where that is possible."""
    if directory is None:
        return None
    try:
        return LeaseFile(directory, lease_id)
    except OSError:
        return None


def in_use(file: LeaseFile | None, test_id: str) -> LeaseFile | None:
    """The file of a lease that a test was granted, unless it cannot be written to."""
    if file is None:
        return None
    try:
        file.begin(test_id)
    except Exception:  # noqa: BLE001 - the test has its lease, and leaves it to nobody
        file.remove()
        return None
    return file


@dataclass(frozen=True, slots=True)
class IdleLease:
    """What the next test takes up that wants the same."""

    lease: Lease
    lifetime: Lifetime
    file: LeaseFile

    def take_up(self, test_id: str) -> bool:
        """Whether it is that test's now; if not, it has to be given back."""
        life = self.lifetime
        is_alive = life.loss is None and clock() + LEAST_LIFE < life.deadline
        return is_alive and self.file.take_up(test_id)


class IdleLeases:
    """Those of one process, by their places."""

    def __init__(self, give_back: Callable[[Lease], bool]) -> None:
        """`give_back` has a lease renewed no more, and released.

        It returns whether the server has heard of it, and so read of its tests.
        """
        self._release = give_back
        self._by_place: dict[Place, IdleLease] = {}
        self._is_ending = False
        on_fork(self)

    def __len__(self) -> int:
        return len(self._by_place)

    def at(self, place: Place) -> IdleLease | None:
        """What the last test of a place has left."""
        return self._by_place.get(place)

    def forget(self, place: Place) -> None:
        """A test has it now, or it was given back."""
        self._by_place.pop(place, None)

    def give_back(self, place: Place) -> None:
        """End the lease of a place, which may be over already."""
        idle = self._by_place[place]
        if self._release(idle.lease):
            idle.file.remove()
        else:  # what ends it later reads there that it is idle, and of its tests
            idle.file.close()
        self.forget(place)

    def leave(
        self, place: Place, holding: Holding, outcome: Outcome, *, clean: bool
    ) -> bool:
        """Leave a lease to the next test of a place; false if it has to be released."""
        if self._is_ending or place in self._by_place:
            return False
        idle = _idle_from(holding, outcome, clean=clean)
        if idle is None:
            return False
        self._by_place[place] = idle
        return True

    def end(self) -> None:
        """Give all back, and leave nothing from now on: no test will come."""
        self._is_ending = True
        for place in list(self._by_place):
            self.give_back(place)

    def after_fork_in_child(self) -> None:
        # Closed, and not unlocked: the parent shares the locks.
        for idle in self._by_place.values():
            idle.file.close()
        self._by_place = {}


def _idle_from(holding: Holding, outcome: Outcome, *, clean: bool) -> IdleLease | None:
    """What a test leaves to the next, if nobody is to look at its users before."""
    lease, lifetime, file = holding.lease, holding.lifetime, holding.file
    if lease is None or lifetime is None or file is None:
        return None
    if outcome != "passed" or not clean or lifetime.loss is not None:
        return None
    # A state may expire meanwhile, and only a new lease makes a dirty user clean.
    if any(
        user.dirty or user.state is not None or user.state_is_apart
        for user in lease.users
    ):
        return None
    if clock() >= lifetime.deadline or not file.leave():
        return None
    return IdleLease(lease, lifetime, file)

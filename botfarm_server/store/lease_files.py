"""What the holders of leases write beside a SQLite file while nobody asks a server.

A lease may have a file here, which its holder has made and locked before it asked for
the lease (see pytest_botfarm/idle.py). Locked, the lease is in use. Without a lock and
with an end behind its last use it is idle: nobody uses it, and its holder may lock it
and use it again without asking. Only the first byte is a server's: once it is written,
the lease is withdrawn, which is for ever. Holders look at it behind the lock, and again
once they have let the lock go; a server writes it before it tries the lock. So whoever
comes second sees the first.

What a file tells may be cut off: then the lease counts as used. If it is wrong, nobody
knows of the tests: once the file is withdrawn and not locked, its lease ends, and its
users are dirty. Its maker locks it before its first line, and so before it is wrong.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import LeaseId

DIRECTORY = "alive"
"""Beside the SQLite file."""
SUFFIX = ".lease"
WITHDRAWN = b"W"
FIRST_LINES = (b"-", b"W", b"W-")
"""The last was withdrawn before its maker had written it, which it does at the end."""
LONGEST = 4_000_000
"""Bytes that are read: some hundred uses, each with a name of 2,000 characters."""
WRONG = (
    *(ValueError, TypeError, KeyError, IndexError),
    *(OverflowError, OSError, RecursionError),
)
"""What comes of lines that are not what a holder writes."""
STALE = 300.0
"""Seconds without a word, after which an idle lease ends though nobody wants it."""
SETTLED = 5.0
"""Seconds without a word, after which a file is no longer about to be locked by its
maker, and its lease was not granted behind the look at the database."""


@dataclass(frozen=True, slots=True)
class Use:
    """One test's time with a lease."""

    test_id: str | None
    began: datetime
    ended: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """What the file of a lease told when a server looked at it."""

    lease_id: LeaseId
    is_withdrawn: bool
    is_locked: bool
    """True as well where nobody has tried the lock."""
    uses: Sequence[Use]
    is_readable: bool = True
    """False if something is wrong with what it tells; it tells of no use then."""

    @property
    def is_wrong(self) -> bool:
        """Whether nobody knows who had the lease, and nobody has it now."""
        return not self.is_locked and not self.is_readable

    @property
    def is_idle(self) -> bool:
        return not self.is_locked and self.is_between_tests

    @property
    def is_between_tests(self) -> bool:
        """Whether no test has it, by what it tells, be it locked or not."""
        return self.present_use is None and bool(self.uses)

    @property
    def present_use(self) -> Use | None:
        """What has not ended; a lease that is idle has none."""
        return self.uses[-1] if self.uses and self.uses[-1].ended is None else None


def directory_of(connection: AsyncConnection) -> Path | None:
    """Where the files of a database's leases are; PostgreSQL has none."""
    url = connection.engine.url
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database).parent / DIRECTORY


def withdraw(
    connection: AsyncConnection, lease_ids: Collection[LeaseId] | None = None
) -> list[LeaseFile]:
    """Have these leases, or all, not used again once they are idle; what they tell."""
    directory = directory_of(connection)
    return [] if directory is None else withdraw_in(directory, lease_ids)


def withdraw_in(
    directory: Path, lease_ids: Collection[LeaseId] | None = None
) -> list[LeaseFile]:
    """The same, of a directory that is known."""
    paths = (
        _files(directory)
        if lease_ids is None
        else [_path(directory, name) for name in lease_ids]
    )
    told = (_look(path, withdraws=True) for path in paths)
    return [file for file in told if file is not None]


def told_in(directory: Path) -> list[LeaseFile]:
    """What all files tell, which are left as they are."""
    told = map(_look, _files(directory))
    return [file for file in told if file is not None]


def told_of(connection: AsyncConnection, lease_id: LeaseId) -> LeaseFile | None:
    """What the file of a lease tells, if it has one, which is left as it is."""
    directory = directory_of(connection)
    return None if directory is None else _look(_path(directory, lease_id))


def present_test(told: LeaseFile | None, first: str | None) -> str | None:
    """Which test has a lease now that was granted to `first`; None if it is idle."""
    if told is None or not told.uses:
        return first
    return None if told.present_use is None else told.present_use.test_id


def remove(connection: AsyncConnection, lease_ids: Collection[LeaseId]) -> None:
    """Forget the files of leases whose end is committed.

    Not before: what they tell would be lost with the transaction. What is left of them,
    since a server died, `remove_left` removes.
    """
    directory = directory_of(connection)
    if directory is not None:
        for name in lease_ids:
            with suppress(OSError):
                _path(directory, name).unlink()


def all_of(directory: Path) -> list[LeaseId]:
    """The leases that have files, those that are over among them."""
    return [lease_id for it in _files(directory) if (lease_id := _lease_id(it))]


def remove_left(connection: AsyncConnection, lease_ids: Collection[LeaseId]) -> None:
    """Remove the files of leases that do not live, unless a process has them still.

    Each was made and locked before its lease was asked for. So who left it unlocked is
    dead, or its call failed, or the server died behind the end of the lease.
    """
    directory = directory_of(connection)
    paths = [] if directory is None else [_path(directory, it) for it in lease_ids]
    for path in paths:
        if time.time() - _changed_at(path) > SETTLED and _is_unlocked(path):
            with suppress(OSError):
                path.unlink()


def left_idle(directory: Path) -> list[LeaseId]:
    """Idle leases that their holders do not give back, though they are withdrawn, or
    have not used for long; and those that end since what their files tell is wrong.
    """
    found = []
    for path in _files(directory):
        told = _look(path)
        is_stale = time.time() - _changed_at(path) > STALE
        # Others are left alone: a holder that finds its lock taken gives up the lease.
        if told is None or not (told.is_withdrawn or is_stale):
            continue
        told = _look(path, withdraws=True)
        if told is not None and (told.is_idle or told.is_wrong):
            found.append(told.lease_id)
    return found


def _path(directory: Path, lease_id: LeaseId) -> Path:
    return directory / f"{lease_id}{SUFFIX}"


def _lease_id(path: Path) -> LeaseId | None:
    try:
        return LeaseId(UUID(path.name.removesuffix(SUFFIX)))
    except ValueError:
        return None


def _files(directory: Path) -> Iterator[Path]:
    try:
        yield from [it for it in directory.iterdir() if it.suffix == SUFFIX]
    except OSError:  # a server that was not started by a run has no such directory
        return


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _look(path: Path, *, withdraws: bool = False) -> LeaseFile | None:
    lease_id = _lease_id(path)
    if lease_id is None:
        return None
    try:
        file = _opened(path)
    except OSError:
        return None
    try:
        # Not again: by when it was written, idle leases and what is left of them end.
        if withdraws and os.pread(file, 1, 0) != WITHDRAWN:
            os.pwrite(file, WITHDRAWN, 0)
        is_locked = not withdraws or _is_locked(file)
        # Behind the look at the lock: who lets it go has written its end before.
        content = os.pread(file, LONGEST, 0)
    except OSError:
        return None
    finally:
        os.close(file)
    is_withdrawn, uses = content[:1] == WITHDRAWN, _uses(content)
    return LeaseFile(lease_id, is_withdrawn, is_locked, uses or (), uses is not None)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW)


def _is_unlocked(path: Path) -> bool:
    try:
        file = _opened(path)
    except OSError:
        return False
    try:
        return not _is_locked(file)
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    try:
        import fcntl  # noqa: PLC0415  # not on Windows, where no file is written either

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return True
    return False


def _uses(content: bytes) -> Sequence[Use] | None:
    """The uses that are told, or None if something is wrong with them."""
    # Behind the last line's end stands what was being written.
    first, *lines = content.split(b"\n")[:-1] or [b""]
    if first not in FIRST_LINES:
        return None
    uses: list[Use] = []
    for line in lines:
        try:
            told = json.loads(line)
            if "began" in told:
                uses.append(Use(_text(told["test_id"]), _time(told["began"])))
                continue
            last = uses.pop()
            if "undone" not in told:
                uses.append(Use(last.test_id, last.began, _time(told["ended"])))
        except WRONG:
            return None
    return uses


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError
    # What the database does not take is not the server's to store.
    return told.replace("\0", "").encode(errors="replace").decode()


def _time(told: Any) -> datetime:
    return datetime.fromtimestamp(told, timezone.utc)

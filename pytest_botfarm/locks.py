"""Locks of files that the system drops with the process.

Bound here, before a test can put doubles in the place of what they are made of: a lock
that is none would have a server take the run for dead.
"""

from __future__ import annotations

import os
from functools import partial

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN
    from fcntl import flock as _flock
except ImportError:  # on Windows
    _flock = None  # type: ignore[assignment]

# Not POSIX's locks, which any other close of the file would drop.
open_file, close_file, unlink = partial(os.open), partial(os.close), partial(os.unlink)
read, write, seek = partial(os.read), partial(os.write), partial(os.lseek)
stat = partial(os.fstat)


def lock(file: int, *, waits: bool = False) -> None:
    """Lock a file. Raises OSError if somebody else has it, or there are no locks."""
    if _flock is None:
        raise OSError("this system has no such locks")
    _flock(file, LOCK_EX if waits else LOCK_EX | LOCK_NB)


def unlock(file: int) -> None:
    """Give back the lock that `lock` took, for forked children as well."""
    _flock(file, LOCK_UN)

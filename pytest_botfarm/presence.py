"""A sign that this process lives, for servers on the same machine.

A file that the process has locked, in a directory that the embedded server names. The
system drops the lock with the process, whatever way that ends, and keeps it while the
process stands still: who gets the lock knows that nobody uses what the process had
leased. Forked children share the lock, and keep it until the last of them has ended.
"""

from __future__ import annotations

import os
from contextlib import suppress

from . import locks

LOCKED = b"locked while its process lives\n"


class Presence:
    """Shown once, when the process first learns where the server is."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._file: int | None = None
        self._path: str | None = None
        self._process = os.getpid()

    def show(self, directory: str | None) -> None:
        """Lock a file there. Where that cannot be done, leases end by their TTL."""
        if directory is None or self._path is not None or self._is_forked():
            return
        self._path = f"{directory}/{self._run_id}.{os.getpid()}"
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            # Its owner's alone, whatever the umask of the run is.
            self._file = locks.open_file(self._path, flags, 0o600)
            locks.lock(self._file, waits=True)
            # Locked first: a file that is empty is about to be.
            locks.write(self._file, LOCKED)

    def end(self, *, settled: bool) -> None:
        """The process leases nothing any more; if `settled`, nothing is left of it."""
        if self._file is None or self._path is None or self._is_forked():
            return
        if settled:
            with suppress(OSError):
                locks.unlink(self._path)
        with suppress(OSError):
            locks.close_file(self._file)
        self._file = None

    def _is_forked(self) -> bool:
        return os.getpid() != self._process

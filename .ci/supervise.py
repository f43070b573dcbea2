"""Runs a command, and fails if that leaves processes behind, which it ends.

On Linux it becomes the parent of every orphan below it, so that a process that has
moved to a session of its own is found as well. Elsewhere it only runs the command.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 10.0
"""Seconds for servers that notice the end of a run by themselves."""


def adopt_orphans() -> bool:
    if sys.platform != "linux":
        return False
    failed: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return not failed


def children() -> dict[int, str]:
    """Command lines of the direct children, those that already ended left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            continue  # it ended meanwhile
        state, parent = after_name[0], int(after_name[1])
        if parent == os.getpid() and state != "Z":
            found[int(folder.name)] = command
    return found


def reap() -> None:
    """Collect orphans that ended, or they would seem to live."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def wait_for(child: int) -> int:
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def end_leftovers() -> bool:
    """Whether nothing was left. A process's children become ours when it ends."""
    deadline = time.monotonic() + GRACE
    while children() and time.monotonic() < deadline:
        time.sleep(0.1)
        reap()
    left = children()
    for command in left.values():
        print(f"left running: {command}", file=sys.stderr)
    while remaining := children():
        for process in remaining:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
        reap()
    return not left


def main() -> int:
    adopts = adopt_orphans()
    child = subprocess.Popen(sys.argv[1:]).pid

    def pass_on(number: int, _: object) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda *_: None)  # the child gets Ctrl-C as well
    code = wait_for(child)
    if adopts and not end_leftovers():
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main())

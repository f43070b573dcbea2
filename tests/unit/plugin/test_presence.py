"""Files that processes lock to show that they live."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from botfarm_server.presence import STALE, PresenceWatch
from pytest_botfarm.presence import Presence


class Recorder:
    """Hears which runs are dead."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def end_holder(self, run_id: str, *_: object, **__: object) -> list[object]:
        self.ended.append(run_id)
        return []


def dead(directory: Path) -> list[str]:
    recorder = Recorder()
    watch = PresenceWatch(directory, recorder)  # type: ignore[arg-type]  # one call
    asyncio.run(watch.look())
    return recorder.ended


def test_a_run_lives_whoever_reads_its_file(tmp_path: Path) -> None:
    presence = Presence("run")
    presence.show(str(tmp_path))
    (file,) = tmp_path.iterdir()
    file.read_bytes()
    assert dead(tmp_path) == []
    presence.end(settled=True)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_may_have_left_something_is_told_and_forgotten(
    tmp_path: Path,
) -> None:
    presence = Presence("run")
    presence.show(str(tmp_path))
    presence.end(settled=False)
    assert dead(tmp_path) == ["run"]
    assert dead(tmp_path) == []


def test_a_forked_child_keeps_a_run_alive_and_shows_nothing_of_its_own(
    tmp_path: Path,
) -> None:
    presence, unshown = Presence("run"), Presence("other")
    presence.show(str(tmp_path))
    child = os.fork()
    if not child:
        unshown.show(str(tmp_path))
        presence.end(settled=True)
        signal.pause()
    presence.end(settled=False)
    try:
        assert dead(tmp_path) == []
        assert [it.name for it in tmp_path.iterdir()] == [f"run.{os.getpid()}"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert dead(tmp_path) == ["run"]


def test_an_empty_file_is_about_to_be_locked_unless_it_is_old(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.1"
    file.touch()
    assert dead(tmp_path) == []
    old = file.stat().st_mtime - STALE - 1.0
    os.utime(file, (old, old))
    assert dead(tmp_path) == ["run"]

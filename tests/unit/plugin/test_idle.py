"""The file by which a worker and a server agree who has a lease that may be idle.

A server's look is put before each step of the worker's, and behind the last.
"""

from __future__ import annotations

import os
import resource
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from botfarm_server.store.lease_files import LeaseFile as Told
from botfarm_server.store.lease_files import _look as look
from pytest_botfarm.idle import MAXIMUM_USES, LeaseFile, in_use, make_file

T = TypeVar("T")
STEPS = ("_lock", "_unlock", "_write", "_is_withdrawn")
MOST_STEPS = 6


@pytest.fixture
def file(tmp_path: Path) -> LeaseFile:
    """That of a lease which a test has."""
    made = make_file(str(tmp_path), uuid.uuid4())
    assert made is not None
    made.begin("first")
    return made


def withdraw(folder: Path) -> Told:
    """A server looks, since somebody wants the lease."""
    [path] = folder.iterdir()
    told = look(path, withdraws=True)
    assert told is not None
    return told


def withdrawn_before_step(
    number: int, file: LeaseFile, folder: Path, act: Callable[[], T]
) -> tuple[T, Told]:
    """What a worker's act comes to, and what a server sees in the middle of it."""
    left = iter(range(number, -1, -1))
    seen: list[Told] = []

    def behind_a_look(step: Callable[..., object]) -> Callable[..., object]:
        def stepping(*arguments: object) -> object:
            if next(left, None) == 0:
                seen.append(withdraw(folder))
            return step(*arguments)

        return stepping

    for name in STEPS:
        setattr(file, name, behind_a_look(getattr(file, name)))
    done = act()
    return done, seen[0] if seen else withdraw(folder)


@pytest.mark.parametrize("number", range(MOST_STEPS))
def test_what_a_worker_leaves_idle_a_server_sees_idle_or_is_given_back(
    file: LeaseFile, tmp_path: Path, number: int
) -> None:
    is_left, told = withdrawn_before_step(number, file, tmp_path, file.leave)
    assert told.is_idle or not is_left
    assert number or not is_left
    assert number < MOST_STEPS - 1 or (is_left and told.is_idle)
    assert not file.take_up("next")


@pytest.mark.parametrize("number", range(MOST_STEPS))
def test_what_a_worker_takes_up_no_server_sees_idle(
    file: LeaseFile, tmp_path: Path, number: int
) -> None:
    assert file.leave()
    is_taken, told = withdrawn_before_step(
        number, file, tmp_path, lambda: file.take_up("next")
    )
    assert not (is_taken and told.is_idle)
    assert number or told.is_idle
    assert number < MOST_STEPS - 1 or (is_taken and not told.is_idle)
    if not is_taken:
        assert [use.test_id for use in withdraw(tmp_path).uses] == ["first"]


def test_a_process_that_dies_drops_its_lock_and_what_it_told_stays(
    tmp_path: Path,
) -> None:
    for acts, was_idle in (
        (["leave"], True),
        (["leave", "take_up"], False),
        ([], False),
    ):
        child = os.fork()
        if not child:
            made = make_file(str(tmp_path), uuid.uuid4())
            assert made is not None
            made.begin("first")
            for act in acts:
                assert made.leave() if act == "leave" else made.take_up("next")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        told = withdraw(tmp_path)
        assert (told.is_locked, told.is_idle) == (False, was_idle)
        assert len(told.uses) == 1 + ("take_up" in acts)
        next(tmp_path.iterdir()).unlink()


def test_a_forked_child_keeps_no_lease_from_being_idle(
    file: LeaseFile, tmp_path: Path
) -> None:
    child = os.fork()
    if not child:
        signal.pause()
    try:
        assert file.leave()
        assert withdraw(tmp_path).is_idle
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lease_is_left_so_often_and_then_given_back(file: LeaseFile) -> None:
    tests = 1
    while file.leave():
        assert file.take_up(f"test {tests}")
        tests += 1
    assert tests == MAXIMUM_USES


def test_a_file_that_is_gone_or_cannot_be_made_leaves_nothing_idle(
    file: LeaseFile, tmp_path: Path
) -> None:
    [path] = tmp_path.iterdir()
    path.unlink()
    assert not file.leave()
    for directory in (None, str(tmp_path / "nowhere")):
        assert make_file(directory, uuid.uuid4()) is None
    assert in_use(None, "test") is None


def test_what_cannot_be_written_is_not_left(file: LeaseFile, tmp_path: Path) -> None:
    [path] = tmp_path.iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, before[1]))
    try:
        assert not file.leave()
        assert in_use(file, "second") is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_what_a_test_opens_in_the_place_of_the_file_is_left_alone(
    file: LeaseFile, tmp_path: Path
) -> None:
    """It has closed all descriptors, as programs do that become daemons."""
    other = tmp_path / "other"
    other.write_text("its own")
    theirs = os.open(other, os.O_RDWR)
    os.dup2(theirs, file._file)
    assert not file.leave()
    assert not file.take_up("next")
    file.remove()
    assert other.read_text() == "its own"
    assert os.fstat(file._file).st_ino == other.stat().st_ino
    os.close(file._file)
    os.close(theirs)


def test_a_file_that_was_closed_leaves_nothing_idle(file: LeaseFile) -> None:
    os.close(file._file)
    assert not file.leave()
    assert in_use(file, "next") is None

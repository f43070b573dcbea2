"""One worker that leases without a pause: `idling.py ENDPOINT RUN WORKER FOLDER`.

It goes through the plugin's own session, and so leaves most of its leases idle. An
account that it has is marked by a file that only one process can make. It tells of each
test that ended in `tests-WORKER`, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil

from pytest_botfarm.client.models import Outcome, Want
from pytest_botfarm.embedded import Endpoint
from pytest_botfarm.holding import Holding, Identity
from pytest_botfarm.masking import Masker
from pytest_botfarm.session import LeaseSession
from pytest_botfarm.settings import Settings

WANTS = (
    [Want("stage", "regular")],
    [Want("stage", "regular", labels={"name": "alice"})],
    [Want("stage", "regular", count=2)],
)
WEIGHTS = (8, 3, 1)
"""Most tests of a suite want the same."""
LONGEST_TEST = 0.004
PAUSES = (0.0, 0.0, 0.0, 0.02)
"""Seconds between two tests."""
FAILING = 0.1
WAIT = 30.0


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Guard:
    """The account as the system under test sees it: whoever uses it, and who else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def enter(self) -> None:
        own = self._path.with_name(f"{self._path.name}-{os.getpid()}")
        own.write_text(str(os.getpid()))
        try:
            os.link(own, self._path)
        except FileExistsError:
            before = int(self._path.read_text())
            if is_alive(before):
                raise SystemExit(
                    f"{self._path.name}: {before} has it as well"
                ) from None
            self._path.unlink()
            os.link(own, self._path)

    def leave(self) -> None:
        if self._path.read_text() != str(os.getpid()):
            raise SystemExit(f"{self._path.name}: somebody else has come")
        self._path.unlink()


def test(session: LeaseSession, folder: Path, test_id: str) -> Outcome:
    """One test, from its lease to its release."""
    [wants] = random.choices(WANTS, WEIGHTS)
    holding = Holding(wants)
    outcome: Outcome = "unknown"
    try:
        session.acquire(holding, wait=WAIT, test_id=test_id)
        guards = [Guard(folder / f"account-{user.login}") for user in holding.users]
        for guard in guards:
            guard.enter()
        time.sleep(random.uniform(0, LONGEST_TEST))
        for guard in guards:
            guard.leave()
        outcome = "failed" if random.random() < FAILING else "passed"
    finally:
        lost = session.release(holding, outcome=outcome, clean=True)
    if lost is not None:
        raise lost
    return outcome


def main(endpoint: str, run_id: str, worker_id: str, folder: str) -> None:
    given = Endpoint(**json.loads(endpoint))
    session = LeaseSession(
        Identity(run_id, worker_id),
        Settings(None, Path(), "stage", "regular", wait=WAIT, ttl=60),
        lambda: given,
        masker=Masker(),
        say=lambda _: None,
        limit=lambda: None,
    )
    path = Path(folder)
    with closing(session), (path / f"tests-{worker_id}").open("w") as told:
        number = 0
        while not select.select([sys.stdin], [], [], random.choice(PAUSES))[0]:
            number += 1
            test_id = f"{worker_id}::{number}"
            outcome = test(session, path, test_id)
            told.write(f"{test_id} {outcome}\n")
            told.flush()
        session.give_back_idle()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Workers of runs that leave their leases idle, are stopped and are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
from support.farm import Farm, Json, eventually

from pytest_botfarm.client.sync import Client
from pytest_botfarm.embedded import EmbeddedServer, Endpoint
from pytest_botfarm.presence import Presence

PROGRAM = Path(__file__).with_name("idling.py")
SECONDS = float(os.environ.get("IDLE_SECONDS", "2"))
"""For how long. More finds more: minutes, after a change of the protocol."""
WORKERS = 4
"""Of all runs together, for three accounts."""
POOL = """
[[users]]
login = "{name}"
password = "password of {name}"
env = "stage"
domain = "regular"
labels = {{ name = "{name}" }}
"""


@dataclass
class Run:
    """One run: its server, its workers and, as its controller, this process."""

    number: int
    endpoint: Endpoint
    folder: Path
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    names: count[int] = field(default_factory=count)
    killed: int = 0

    def __post_init__(self) -> None:
        self._presence = Presence(str(self.number))
        self._presence.show(self.endpoint.presence)

    def start(self) -> None:
        name = f"run{self.number}-{next(self.names)}"
        arguments = [json.dumps(asdict(self.endpoint)), str(self.number), name]
        with (self.folder / f"errors-{name}").open("wb") as errors:
            self.workers[name] = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments, str(self.folder)],
                stdin=subprocess.PIPE,
                stderr=errors,
            )

    def kill_one(self) -> None:
        """As pytest-xdist sees it: the worker is dead, told of, and replaced."""
        name = random.choice([*self.workers])
        worker = self.workers.pop(name)
        worker.kill()
        self.killed += 1
        worker.communicate()
        client = Client(self.endpoint.url, self.endpoint.token)
        sweep = client.protocol.release_holder(
            str(self.number), name, outcome="crashed", clean=False
        )
        client.run(sweep)
        client.close()
        self.start()

    def stop_one(self) -> None:
        """Have a worker stand still for a while, wherever it is."""
        worker = random.choice([*self.workers.values()])
        worker.send_signal(signal.SIGSTOP)
        time.sleep(random.uniform(0, 0.2))
        worker.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for worker in self.workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
        for name, worker in self.workers.items():
            code = worker.wait(60)
            assert code == 0, (self.folder / f"errors-{name}").read_text()
        self._presence.end(settled=True)


@pytest.mark.parametrize("number_of_runs", [1, 2])
def test_an_account_has_one_holder_and_each_test_its_place_in_the_history(
    number_of_runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of one run let each other have stints, those of two do not."""
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(tmp_path / "state"))
    pool = tmp_path / "botfarm.toml"
    pool.write_text("".join(POOL.format(name=name) for name in ("alice", "bob", "eve")))
    with ExitStack() as stack:
        runs = []
        for number in range(number_of_runs):
            server = EmbeddedServer(pool)
            stack.callback(server.stop)
            runs.append(Run(number, server.endpoint(), tmp_path))
        disturb(runs, tmp_path)
        for run in runs:
            run.end()
        endpoint = runs[0].endpoint
        assert endpoint.token is not None
        farm = Farm(endpoint.url, endpoint.token)
        stack.callback(farm.http.close)
        assert farm.leases() == []
        history = all_ended(farm)
    left = list(tmp_path.glob("state/*/alive/*.lease"))
    assert len(left) <= sum(run.killed for run in runs)
    assert_told(history, tmp_path)
    assert_apart(history)


def disturb(runs: Sequence[Run], folder: Path) -> None:
    """Kill and stop workers for a while."""
    for run in runs:
        for _ in range(WORKERS // len(runs)):
            run.start()
    eventually((folder / "tests-run0-0").exists, "a worker has begun")
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        run = random.choice(runs)
        random.choice([run.kill_one, run.stop_one, run.stop_one])()
        time.sleep(random.uniform(0, 0.5))


def all_ended(farm: Farm) -> list[Json]:
    """All that has ended, page by page."""
    found: list[Json] = []
    asked = {"state": "ended", "limit": "1000"}
    while True:
        answer = farm.http.get("/api/v1/leases", params=asked).raise_for_status()
        found += answer.json()
        cursor = answer.headers.get("Botfarm-Next-Cursor")
        if cursor is None:
            return found
        asked["cursor"] = cursor


def assert_told(history: Sequence[Json], folder: Path) -> None:
    """Each test that has ended is there, once and with its outcome."""
    told = dict(
        line.split()
        for path in folder.glob("tests-*")
        for line in path.read_text().splitlines()
    )
    released = [
        (lease["holder"]["test_id"], lease["outcome"])
        for lease in history
        if lease["state"] == "released"
    ]
    assert told
    outcomes = dict(released)
    assert len(outcomes) == len(released)
    assert {test: outcomes.get(test) for test in told} == told


def assert_apart(history: Sequence[Json]) -> None:
    """No two leases of one account overlap in time."""
    times: defaultdict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
    for lease in history:
        for user in lease["users"]:
            began, ended = instant(lease["granted_at"]), instant(lease["ended_at"])
            times[user["login"]].append((began, ended))
    for pairs in times.values():
        instants = [it for pair in sorted(pairs) for it in pair]
        assert instants == sorted(instants)


def instant(told: str) -> datetime:
    return datetime.fromisoformat(told.replace("Z", "+00:00"))  # for Python 3.10

"""One account for each test, from Botfarm and from the peers: what their suites share.

`account` is a fixture that takes one of a few accounts until the test ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from _measuring import ACCOUNTS, write_pool

BASELINE, OURS = "no lock", "Botfarm"

NO_LOCK = """\
@pytest.fixture
def account():
    return "user0"
"""

BOTFARM = """\
@pytest.fixture
def account(bot_user):
    return bot_user("stage", "regular").login
"""

LOCKABLE = """\
@pytest.fixture
def account(lockable):
    with lockable.auto_lock({}, timeout_s=60) as allocation:
        yield allocation.resource_info["id"]
"""

FILELOCK = f"""\
from filelock import FileLock, Timeout

LOCKS = {{
    name: FileLock(f"{{name}}.lock", timeout=0)
    for name in (f"user{{number}}" for number in range({ACCOUNTS}))
}}


@pytest.fixture
def account():
    while True:
        for name, lock in LOCKS.items():
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                yield name
            finally:
                lock.release()
            return
        time.sleep(0.01)
"""


@dataclass(frozen=True, slots=True)
class Variant:
    fixture: str
    options: tuple[str, ...]


VARIANTS = {
    BASELINE: Variant(NO_LOCK, ("-p", "no:botfarm", "-p", "no:pytest_lockable")),
    OURS: Variant(BOTFARM, ("-p", "no:pytest_lockable")),
    "pytest-lockable": Variant(
        LOCKABLE,
        (
            *("-p", "no:botfarm", "--allocation_lock_folder", "."),
            *("--allocation_hostname", "this"),
        ),
    ),
    "FileLock pool": Variant(
        FILELOCK, ("-p", "no:botfarm", "-p", "no:pytest_lockable")
    ),
}


def write_suite(path: Path, variant: Variant, tests: str, recorder: str) -> None:
    """A suite of `tests` over a variant's fixture; `recorder` begins its conftest.

    It has to import os, time and pytest.
    """
    path.mkdir()
    (path / "pytest.ini").write_text("[pytest]\n")
    (path / "test_suite.py").write_text(tests)
    (path / "conftest.py").write_text(f"{recorder}\n\n{variant.fixture}")
    write_pool(path / "botfarm.toml")
    resources = [
        {"id": f"user{number}", "hostname": "this", "online": True}
        for number in range(ACCOUNTS)
    ]
    (path / "resources.json").write_text(json.dumps(resources))

"""Real runs of pytest, in processes of their own, over a real server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.farm import Farm, eventually, lease_from, running_farm, write_pool
from support.suites import Suite, forget_the_outer_run


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A server that the tests of this process share; each has a pool of its own."""
    folder = tmp_path_factory.mktemp("farm")
    with running_farm(folder, BOTFARM_LOCK_DELAY="1") as farm:
        yield farm


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    forget_the_outer_run(monkeypatch)
    return Suite(pytester)


@pytest.fixture
def pool(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new pool of two users, named by its domain, that a suite leases from."""
    return lease_from(farm, monkeypatch)


@pytest.fixture
def pool_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool file of two accounts, where the plugin finds it by itself."""
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(pytester.path / "state"))
    monkeypatch.setenv("BOTFARM_ENV", "stage")
    monkeypatch.setenv("BOTFARM_DOMAIN", "regular")
    logins = ("alice@example.com", "bob@example.com")
    return write_pool(pytester.path / "botfarm.toml", *logins)


@pytest.fixture
def leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process that a test starts is left behind, nor a directory of the plugin.

    Processes are known by TMPDIR, which all that a run starts inherits.
    """
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield

        def left() -> list[psutil.Process]:
            processes = psutil.process_iter(["environ"])
            environs = ((it, it.info["environ"] or {}) for it in processes)
            return [it for it, environ in environs if environ.get("TMPDIR") == folder]

        eventually(lambda: not left(), "all processes have ended", within=40)
        assert list(Path(folder).glob("botfarm-*")) == []

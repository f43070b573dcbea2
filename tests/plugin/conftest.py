"""Real runs of pytest, in processes of their own, over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.farm import DOMAINS, Farm, write_pool
from support.servers import TOKEN, ServerProcess
from support.suites import Suite


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A server that the tests of this process share; each has a pool of its own."""
    path = tmp_path_factory.mktemp("farm") / "farm.sqlite3"
    environment = {"BOTFARM_DOMAINS": DOMAINS, "BOTFARM_BOOTSTRAP_TOKEN": TOKEN}
    with ServerProcess(f"sqlite:///{path}", environment) as server:
        farm = Farm(server.wait_until_ready().url, TOKEN)
        yield farm
        farm.http.close()


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)


@pytest.fixture
def pool(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new pool of two users, named by its domain, that a suite leases from."""
    domain = farm.add_pool("alice", "bob")
    monkeypatch.setenv("BOTFARM_URL", farm.url)
    monkeypatch.setenv("BOTFARM_TOKEN", farm.token)
    monkeypatch.setenv("BOTFARM_ENV", "stage")
    monkeypatch.setenv("BOTFARM_DOMAIN", domain)
    return domain


@pytest.fixture
def pool_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool file of two accounts, where the plugin finds it by itself."""
    monkeypatch.setenv("BOTFARM_STATE_DIR", str(pytester.path / "state"))
    monkeypatch.setenv("BOTFARM_ENV", "stage")
    monkeypatch.setenv("BOTFARM_DOMAIN", "regular")
    logins = ("alice@example.com", "bob@example.com")
    return write_pool(pytester.path / "botfarm.toml", *logins)

"""Suites beside the tools that people use, each run with those that it names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.beside import Beside
from support.farm import Farm, lease_from, running_farm
from support.suites import forget_the_outer_run


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A server that the tests of this process share; each has a pool of its own."""
    with running_farm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def suite(
    pytester: pytest.Pytester, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> Beside:
    """A suite that leases from a pool of its own, of two users."""
    forget_the_outer_run(monkeypatch)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Beside(pytester, farm, lease_from(farm, monkeypatch))

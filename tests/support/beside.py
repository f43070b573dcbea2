"""Suites that run beside other tools, and what the server saw of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from .farm import Farm, Json
from .provided import needs_set_up
from .suites import Suite

ROOT = Path(__file__).parents[2]
NEWEST, OLDEST = ".venv-compatibility", ".venv-oldest"
"""The environments that tasks.py makes for these suites."""
OURS = {NEWEST: "botfarm", OLDEST: "pytest_botfarm.plugin"}
"""How each of them finds the plugin. The second has it on its path alone."""


@dataclass
class Beside(Suite):
    """A suite that one environment runs, with the plugins that a test names."""

    farm: Farm
    pool: str
    environment: str = NEWEST

    def run(self, *arguments: str, timeout: float = 120.0) -> pytest.RunResult:
        """`-p NAME` loads a plugin; no other is loaded but Botfarm's."""
        python = ROOT / self.environment / "bin" / "python"
        needs_set_up(self.environment, is_there=python.exists())
        command = (python, "-m", "pytest", "-p", OURS[self.environment])
        return self.pytester.run(*command, *arguments, timeout=timeout)

    def leases(self) -> list[Json]:
        """All of them, which have ended in order and one after the other."""
        assert self.farm.leases(self.pool) == []
        leases = self.farm.leases(self.pool, state="ended")
        assert {lease["state"] for lease in leases} <= {"released"}
        for login in {user["login"] for lease in leases for user in lease["users"]}:
            own = [x for x in leases if login in {user["login"] for user in x["users"]}]
            times = sorted((_time(x["granted_at"]), _time(x["ended_at"])) for x in own)
            assert all(one[1] <= next_[0] for one, next_ in pairwise(times))
        return leases

    def outcomes(self) -> list[str | None]:
        return [lease["outcome"] for lease in self.leases()]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # for Python 3.10

"""Schemathesis, against a server process and its OpenAPI document."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from .servers import TOKEN, ServerProcess

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fuzz"
CONFIG = FOLDER / "schemathesis.toml"
PYTHON = ROOT / ".venv-fuzz" / "bin" / "python"
"""Of the environment that tasks.py makes: Schemathesis is a pytest plugin as well,
which every other run would load."""
FREE_POOL = {"env": "stage", "domain": "regular"}
TAKEN_POOL = {"env": "prod", "domain": "canary"}
"""What there is before the first request: many free users, and one that is not."""
FREE_USERS = 100
TAKING_ALL = """
from botfarm_server.cli.main import run
from botfarm_server.services import guessing

guessing.MOST = 10**9
run()
"""
"""`botfarm serve` that tells of each wrong token by itself."""


def command(server: ServerProcess, *options: str, config: Path = CONFIG) -> list[str]:
    """What runs Schemathesis against a server with the token of the tests."""
    program = [str(PYTHON), "-m", "schemathesis.cli", "--config-file", str(config)]
    program += ["run", f"{server.url}/openapi.json", *options]
    return [*program, "--header", f"Authorization: Bearer {TOKEN}"]


def environment() -> dict[str, str]:
    own = {
        "PYTHONPATH": str(ROOT / "tests"),
        "SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py"),
        "PYTHONHASHSEED": "0",  # or a seed would not make the same requests again
    }
    return {**os.environ, **own}


@contextmanager
def fuzzed_server(database_url: str) -> Iterator[ServerProcess]:
    """It takes all requests that come: how many they may be is tested elsewhere."""
    settings = {
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        "BOTFARM_MAX_REQUESTS_PER_SECOND": "0",
    }
    program = ("-c", TAKING_ALL)
    with ServerProcess(database_url, settings, program=program) as server:
        _fill(server.wait_until_ready().url)
        yield server


def _fill(url: str) -> None:
    logins = [f"free-{number}" for number in range(FREE_USERS)]
    users = [{"login": login, "password": "made up", **FREE_POOL} for login in logins]
    users.append({"login": "taken", "password": "made up", **TAKEN_POOL})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers) as client:
        client.post("/users/import", json={"users": users}).raise_for_status()
        [taken] = client.get("/users", params={"login": "taken"}).json()
        client.post(f"/users/{taken['id']}/acquire").raise_for_status()


class Report:
    """What Schemathesis has done, by the file of its events."""

    def __init__(self, events: Path) -> None:
        rows = map(json.loads, events.read_text("utf-8").splitlines())
        self._scenarios: list[Any] = [
            row["ScenarioFinished"] for row in rows if "ScenarioFinished" in row
        ]

    def operations(self, phase: str) -> set[str]:
        """Those to which it has sent something, each as `GET /path`."""
        return {
            scenario["recorder"]["label"]
            for scenario in self._scenarios
            if scenario["phase"] == phase and scenario["recorder"].get("interactions")
        }

    def links(self) -> set[str]:
        """Those that it has followed, each as `POST /a -> [201] name -> GET /b`."""
        return {
            case["transition"]["id"]
            for scenario in self._scenarios
            for case in scenario["recorder"].get("cases", {}).values()
            if case.get("transition") and case["is_transition_applied"]
        }

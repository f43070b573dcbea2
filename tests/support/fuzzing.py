"""Schemathesis, against a server process and its OpenAPI document."""

from __future__ import annotations

import os
from pathlib import Path

from .servers import TOKEN, ServerProcess

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fuzz"
PYTHON = ROOT / ".venv-fuzz" / "bin" / "python"
"""Of the environment that tasks.py makes: Schemathesis is a pytest plugin as well,
which every other run would load."""


def command(server: ServerProcess, seed: int, *bounds: str) -> list[str]:
    """What runs Schemathesis against a server with the token of the tests."""
    program = [str(PYTHON), "-m", "schemathesis.cli"]
    program += ["--config-file", str(FOLDER / "schemathesis.toml")]
    program += ["run", f"{server.url}/openapi.json", f"--seed={seed}", *bounds]
    return [*program, "--header", f"Authorization: Bearer {TOKEN}"]


def environment() -> dict[str, str]:
    return {**os.environ, "SCHEMATHESIS_HOOKS": str(FOLDER / "hooks.py")}


def fuzzed_server(database_url: str) -> ServerProcess:
    """It takes all requests that come: how many they may be is tested elsewhere."""
    settings = {
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        "BOTFARM_MAX_REQUESTS_PER_SECOND": "0",
    }
    return ServerProcess(database_url, settings)

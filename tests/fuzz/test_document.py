"""What the OpenAPI document tells is what the server does."""

from __future__ import annotations

import subprocess

from support.fuzzing import PYTHON, command, environment, fuzzed_server
from support.provided import needs_set_up

SEED = 20260101
"""The same for every run: a change that fails has found it, and not chance."""
SECONDS = 8
"""How long it goes on over each database; `tasks.py fuzz` does so for longer."""


def test_every_answer_is_one_that_the_document_tells_of(database_url: str) -> None:
    """Nor does the server fail, take what it refuses, or refuse what it takes."""
    needs_set_up(".venv-fuzz", is_there=PYTHON.exists())
    with fuzzed_server(database_url) as server:
        fuzzing = command(server.wait_until_ready(), SEED, f"--max-time={SECONDS}")
        done = subprocess.run(
            fuzzing,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [line for line in server.log if '"level": "error"' in line]

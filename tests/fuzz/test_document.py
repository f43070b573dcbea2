"""What the OpenAPI document tells is what the server does."""

from __future__ import annotations

from pathlib import Path

from support.fuzzing import PYTHON, fuzzed_server
from support.provided import needs_set_up
from support.reach import PHASES, TIME_LIMIT, Reach

SEED = 20260101
"""The same for every run: a change that fails has found it, and not chance."""
FUZZED = ("--phases=" + ",".join(PHASES), "--max-examples=1")


def test_every_answer_is_one_that_the_document_tells_of(
    database_url: str, tmp_path: Path
) -> None:
    """Nor does the server fail, take what it refuses, or refuse what it takes.

    Each operation is called in each phase, and each link is followed.
    """
    needs_set_up(".venv-fuzz", is_there=PYTHON.exists())
    # What is refused for its form never comes to a database: one is enough.
    mode = "all" if database_url.startswith("sqlite") else "positive"
    with fuzzed_server(database_url) as server:
        reach = Reach(server, tmp_path)
        options = (*FUZZED, f"--mode={mode}", f"--seed={SEED}")
        reach.call_all(*options, limit=TIME_LIMIT)
        reach.follow_all(SEED)
    assert not reach.problems, "\n".join(reach.problems)
    assert not [line for line in server.log if '"level": "error"' in line]

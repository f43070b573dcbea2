"""What the OpenAPI document tells is what the server does."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
from support.fuzzing import (
    CONFIG,
    PYTHON,
    Report,
    command,
    environment,
    fuzzed_server,
)
from support.provided import needs_set_up
from support.servers import ServerProcess

from botfarm_server.api.document import LINKS

SEED = 20260101
"""The same for every run: a change that fails has found it, and not chance."""
TIME_LIMIT = 240.0
"""Seconds for one run of Schemathesis, many times what it takes. Its budgets are counts
of requests: what it reaches does not depend on the machine."""
PHASES = ("examples", "coverage", "fuzzing")
FUZZED = ("--phases=" + ",".join(PHASES), "--max-examples=1")
FOLLOWED = ("--phases=stateful", "--max-examples=10")
MOST_RUNS = 6
"""With ten chains of calls each; the first or the second has followed every link."""
NAMED_LINKS_ALONE = """
[phases.stateful]
inference.algorithms = []
link-calibration = false
"""
"""By hand, it follows those as well that it finds by the names of fields, and more
often those that lead somewhere."""
CHAINS = (
    ("users_create", "tokens_create"),
    ("leases_ask", "reservations_reserve"),
)
"""Where chains begin. In one run with the others, a lease that is asked for by an id of
the client's own is no beginning for it."""


def fuzz(
    server: ServerProcess, folder: Path, *options: str, config: Path = CONFIG
) -> Report:
    """Run Schemathesis, which fails if an answer does."""
    events = folder / "events.ndjson"
    done = subprocess.run(
        [*command(server, *options, config=config), f"--report-ndjson-path={events}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Report(events)


def follow(
    sources: Sequence[str], labels: dict[str, str], server: ServerProcess, folder: Path
) -> None:
    """Let it make chains of calls until each link from there was followed."""
    config = folder / "links.toml"
    config.write_text(CONFIG.read_text("utf-8") + NAMED_LINKS_ALONE, "utf-8")
    links = [
        (source, status, target)
        for (source, status), targets in LINKS.items()
        for target in targets
        if source in sources
    ]
    chosen = sorted({*sources, *(target for _, _, target in links)})
    options = [f"--include-operation-id={name}" for name in chosen]
    missing = {
        f"{labels[source]} -> [{status}] {target} -> {labels[target]}"
        for source, status, target in links
    }
    for seed in range(SEED, SEED + MOST_RUNS):
        seeded = (*FOLLOWED, *options, f"--seed={seed}")
        missing -= fuzz(server, folder, *seeded, config=config).links()
        if not missing:
            break
    assert not missing


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
        document = httpx.get(f"{server.url}/openapi.json").json()
        report = fuzz(server, tmp_path, *FUZZED, f"--mode={mode}", f"--seed={SEED}")
        operations = {
            f"{method.upper()} {path}": operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        labels = {it["operationId"]: label for label, it in operations.items()}
        for sources in CHAINS:
            follow(sources, labels, server, tmp_path)
    with_examples = {
        label
        for label, operation in operations.items()
        if operation.keys() & {"requestBody", "parameters"}
    }
    assert report.operations("examples") == with_examples
    assert report.operations("coverage") == operations.keys()
    assert report.operations("fuzzing") == operations.keys()
    assert {name for names in CHAINS for name in names} == {name for name, _ in LINKS}
    assert not [line for line in server.log if '"level": "error"' in line]

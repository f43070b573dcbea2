"""What Schemathesis has to reach, by hand and in CI.

Each operation, in each phase, and each link of the document.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from botfarm_server.api.document import LINKS

from .fuzzing import CONFIG, Report, command, environment
from .servers import ServerProcess

PHASES = ("examples", "coverage", "fuzzing")
FOLLOWED = ("--phases=stateful", "--max-examples=10")
MOST_RUNS = 20
"""With ten chains of calls each. The first or the second has followed every link with
the seed of CI, and the sixth with others."""
NAMED_LINKS_ALONE = """
[phases.stateful]
inference.algorithms = []
link-calibration = false
"""
"""A run by hand follows those as well that it finds by the names of fields, and more
often those that lead somewhere."""
CHAINS = (
    ("users_create", "tokens_create"),
    ("leases_ask", "reservations_reserve"),
)
"""Where chains begin. In one run with the others, a lease that is asked for by an id of
the client's own is no beginning for it."""
TIME_LIMIT = 240.0
"""Seconds for one run of chains, many times what it takes. Its budgets are counts of
requests: what it reaches does not depend on the machine."""


class Reach:
    """Runs Schemathesis, and keeps what it did not reach and what it told of answers.

    Args:
        server: which it calls.
        folder: for the files of its runs.
        is_shown: whether it prints by itself; otherwise what fails is kept.

    """

    def __init__(
        self, server: ServerProcess, folder: Path, *, is_shown: bool = False
    ) -> None:
        self.problems: list[str] = []
        self._server = server
        self._folder = folder
        self._is_shown = is_shown
        document = httpx.get(f"{server.url}/openapi.json").json()
        self._operations: dict[str, Any] = {
            f"{method.upper()} {path}": operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        self._labels = {
            operation["operationId"]: label
            for label, operation in self._operations.items()
        }

    def call_all(self, *options: str, limit: float | None) -> None:
        """Run with options that are for each phase of `PHASES`, and perhaps others."""
        report = self._run(*options, limit=limit)
        with_examples = {
            label
            for label, operation in self._operations.items()
            if operation.keys() & {"requestBody", "parameters"}
        }
        for phase in PHASES:
            wanted = with_examples if phase == "examples" else self._operations.keys()
            self._miss(
                f"not called in the phase {phase}", wanted ^ report.operations(phase)
            )

    def follow_all(self, seed: int) -> None:
        """Let it make chains of calls until each link of the document was followed."""
        begun = {source for sources in CHAINS for source in sources}
        self._miss("no chain begins at", {source for source, _ in LINKS} ^ begun)
        for sources in CHAINS:
            self._follow(sources, seed)

    def _follow(self, sources: Sequence[str], seed: int) -> None:
        config = self._folder / "links.toml"
        config.write_text(CONFIG.read_text("utf-8") + NAMED_LINKS_ALONE, "utf-8")
        links = list(_links_from(sources))
        chosen = sorted({*sources, *(target for _, _, target in links)})
        options = [f"--include-operation-id={name}" for name in chosen]
        missing = {
            f"{self._labels[source]} -> [{status}] {target} -> {self._labels[target]}"
            for source, status, target in links
        }
        for tried in range(seed, seed + MOST_RUNS):
            seeded = (*FOLLOWED, *options, f"--seed={tried}")
            missing -= self._run(*seeded, config=config, limit=TIME_LIMIT).links()
            if not missing:
                break
        self._miss("not followed", missing)

    def _run(self, *options: str, limit: float | None, config: Path = CONFIG) -> Report:
        events = self._folder / "events.ndjson"
        events.unlink(missing_ok=True)
        program = command(self._server, *options, config=config)
        done = subprocess.run(
            [*program, f"--report-ndjson-path={events}"],
            env=environment(),
            stdout=None if self._is_shown else subprocess.PIPE,
            stderr=None if self._is_shown else subprocess.STDOUT,
            text=True,
            check=False,
            timeout=limit,
        )
        if done.returncode:
            self.problems.append(done.stdout or "an answer failed, as told above")
        assert events.exists(), done.stdout
        return Report(events)

    def _miss(self, what: str, names: set[str]) -> None:
        self.problems += [f"{what}: {name}" for name in sorted(names)]


def _links_from(sources: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for (source, status), targets in LINKS.items():
        if source in sources:
            for target in targets:
                yield source, status, target

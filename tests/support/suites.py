"""Suites that tests write and run, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from .farm import eventually

OWN = ("randomly", "hypothesispytest")
"""What serves the tests of this repository alone. Whoever runs a suite has none of it,
and hypothesis takes as long to load as all the rest."""
UNUSED = (*OWN, "cacheprovider", "asyncio", "anyio")
"""What few of the suites need that tests write; AnyIO's plugin loads Trio."""


def without(plugins: Iterable[str]) -> tuple[str, ...]:
    """Options for pytest."""
    return tuple(text for name in plugins for text in ("-p", f"no:{name}"))


PLUGINS = without(UNUSED)


def as_users(*needed: str) -> dict[str, str]:
    """Variables for commands that start pytest by themselves, and need such plugins."""
    unused = [name for name in UNUSED if name not in needed]
    return {"PYTEST_ADDOPTS": " ".join(without(unused))}


OUTER_RUN = ("CI", "BUILD_NUMBER", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")
"""What this run is told, and what makes pytest print more, or a test think that it is
in a worker."""


def own_environment() -> dict[str, str]:
    """The environment without what it tells of this run."""
    return {name: it for name, it in os.environ.items() if name not in OUTER_RUN}


def forget_the_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OUTER_RUN:
        monkeypatch.delenv(name, raising=False)


START_TIME = 60.0
"""Seconds in which a run and its server start on a machine that is busy."""


@dataclass
class Suite:
    pytester: pytest.Pytester

    def write(self, source: str, name: str = "test_suite") -> None:
        self.pytester.makepyfile(**{name: source})

    def run(self, *arguments: str, timeout: float = 60.0) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*PLUGINS, *arguments, timeout=timeout)

    @contextmanager
    def start(
        self, *arguments: str, output_to: str = "output"
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run it beside the test, which wants to end it."""
        command = [sys.executable, "-m", "pytest", *PLUGINS, *arguments]
        with (self.pytester.path / output_to).open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.pytester.path,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def wait_for(self, files: str, count: int = 1) -> None:
        """Wait until its tests have made as many files of a pattern."""
        eventually(
            lambda: len(list(self.pytester.path.glob(files))) == count,
            f"{count} of {files}",
            within=START_TIME,
        )

    def tell(self, file: str) -> None:
        """Make a file that a test waits for."""
        (self.pytester.path / file).touch()

    def output(self, name: str = "output") -> str:
        return (self.pytester.path / name).read_text()

"""Schemathesis against the server's own document, for as long as you like.

    python3 tasks.py fuzz --minutes 10 --database postgresql --seed 7

The exit code is 0 if every answer was one that the document tells of, and each
operation was called in each phase and each link followed, as in CI. The minutes are for
all that it can think of; the links take one or two more.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.fuzzing import fuzzed_server
from support.postgresql import PostgresqlServer
from support.reach import Reach


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'farm.sqlite3'}"
        return
    postgresql = PostgresqlServer(folder / "postgresql")
    try:
        yield postgresql.create_database()
    finally:
        postgresql.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tasks.py fuzz")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--database", choices=["postgresql", "sqlite"])
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args(arguments)
    kinds = [given.database] if given.database else ["sqlite", "postgresql"]
    budget = f"--max-time={round(given.minutes * 60 / len(kinds))}"
    problems = []
    for kind in kinds:
        sys.stdout.write(f"{kind}, seed {given.seed}\n")
        sys.stdout.flush()
        with (
            tempfile.TemporaryDirectory() as folder,
            _database(kind, Path(folder)) as database_url,
            fuzzed_server(database_url) as server,
        ):
            reach = Reach(server, Path(folder), is_shown=True)
            reach.call_all(budget, f"--seed={given.seed}", limit=None)
            reach.follow_all(given.seed)
        problems += [f"{kind}: {problem}" for problem in reach.problems]
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

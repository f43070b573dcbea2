"""`botfarm users import`: a file of accounts into the farm, as often as one likes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from botfarm_server.api.schemas.users import MAXIMUM_IMPORT_ROWS, UserIn
from botfarm_server.cli.client import FarmClient, connected
from botfarm_server.cli.errors import CommandError, RefusedError, ServerError
from botfarm_server.cli.options import DEFAULT_URL, AsJson, Url
from botfarm_server.cli.output import note, print_json
from botfarm_server.cli.progress import progress
from botfarm_server.poolfile import PoolFile, PoolFileError, read_pool_file

MAXIMUM_SHOWN = 50
"""Bad rows that are told one by one: more than a screen helps nobody."""

FIRST_BATCH = 10
BATCH_SECONDS = 2.0
"""What one call should take, so that the progress moves and other callers of the
server's hashing threads get their turn."""
BATCH_BYTES = 500_000
"""What one call may send: half of BOTFARM_MAX_BODY_BYTES, if that is as by default."""
CALL_TIMEOUT = 300.0
"""Seconds for one call: others may be hashing at the same server."""
PATIENCE = 60.0
"""Seconds that a server may be away in the middle of an import."""


def import_users(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="A .toml, .csv or .json file of users."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all rows, and write nothing.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Create the accounts that are new, and update those that differ.

    Everything is checked before anything is written. An account is known by env and
    login; unchanged ones are left alone, and those not in the file too. `${NAME}`
    stands for an environment variable.
    """
    try:
        pool = read_pool_file(file, os.environ)
    except PoolFileError as error:
        problems = str(error).splitlines()
        if error.good is not None:
            problems += refused_by_server(url, error.good)
        raise CommandError(_refusal(problems)) from None
    with connected(url) as client:
        run = ImportRun(client, pool)
        try:
            if problems := run.check():
                raise CommandError(_refusal(problems))
            if not dry_run:
                run.write()
        except KeyboardInterrupt:
            note(f"\nInterrupted. {run.how_far()}")
            raise
        except ServerError as error:
            if not run.written:
                raise
            raise CommandError(f"{error} {run.how_far()}") from None
    if as_json:
        print_json({**run.counts, "dry_run": dry_run})
    else:
        typer.echo(run.summary(dry_run=dry_run))


class ImportRun:
    """One import: first every row is checked, then what differs is written."""

    def __init__(self, client: FarmClient, pool: PoolFile) -> None:
        self._client = client
        self._pool = pool
        self._differing: list[int] = []
        self.counts = {"created": 0, "updated": 0, "unchanged": 0}
        self.written = 0
        """Rows that the server has stored in this run."""

    def check(self) -> list[str]:
        """Let the server check all rows; it writes none.

        Returns a line for each thing that is wrong, which names file, row and field.
        """
        problems: list[str] = []
        everything = range(len(self._pool.users))
        with progress("checked", len(everything)) as advance:
            for batch in self._batches(everything):
                try:
                    found = self._post(batch, dry_run=True)
                except RefusedError as error:
                    if error.code != "invalid_request":
                        raise
                    problems += self._located(error, batch)
                else:
                    self._count(found)
                    if found["created"] or found["updated"]:
                        self._differing += batch
                advance(len(batch))
        return problems

    def write(self) -> None:
        """Write the batches in which a row differs."""
        if not self._differing:
            return
        total = len(self._pool.users)
        self.counts = {
            "created": 0,
            "updated": 0,
            "unchanged": total - len(self._differing),
        }
        with progress("imported", len(self._differing)) as advance:
            for batch in self._batches(self._differing):
                self._count(self._post_patiently(batch))
                self.written += len(batch)
                advance(len(batch))

    def _batches(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """What goes with one call each: cut anew where secrets are long."""
        for batch in paced(indices):
            start = size = 0
            for position, index in enumerate(batch):
                row = len(json.dumps(wire_user(self._pool.users[index])))
                if size and size + row > BATCH_BYTES:
                    yield batch[start:position]
                    start, size = position, 0
                size += row
            yield batch[start:]

    def _count(self, found: Any) -> None:
        for name in self.counts:
            self.counts[name] += found[name]

    def _post(self, batch: Sequence[int], *, dry_run: bool) -> Any:
        users = [wire_user(self._pool.users[index]) for index in batch]
        body = {"users": users, "dry_run": dry_run}
        return self._client.post("/users/import", body, timeout=CALL_TIMEOUT)

    def _post_patiently(self, batch: Sequence[int]) -> Any:
        """Send again what may be sent again: a batch that was stored is unchanged."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return self._post(batch, dry_run=False)
            except ServerError as error:
                # Somebody else imports the same users, and was first.
                was_raced = getattr(error, "code", None) == "duplicate_user"
                if not (error.may_be_repeated or was_raced):
                    raise
                if time.monotonic() >= give_up:
                    raise
                time.sleep(getattr(error, "retry_after", 1.0))

    def _located(self, error: RefusedError, batch: Sequence[int]) -> list[str]:
        refused = error.facts.get("errors", [])
        return self._pool.located(
            [(it["field"], it["message"]) for it in refused], batch
        )

    def how_far(self) -> str:
        """What became of the import, and how to go on."""
        if not self.written:
            return "Nothing was imported."
        total = len(self._pool.users)
        done = total - len(self._differing) + self.written
        return (
            f"At least {done:,} of {total:,} users are in the farm as the file has "
            "them. Run the same command again: it goes on from there."
        )

    def summary(self, *, dry_run: bool) -> str:
        """The closing line."""
        told = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        if dry_run:
            return f"{self._pool.path}: all rows are good. It would be: {told}."
        return f"{self._pool.path}: {told}."


def refused_by_server(url: str, pool: PoolFile) -> list[str]:
    """What the server finds wrong with rows beside others that are wrong anyway.

    A server that cannot be asked is no reason to hold back what is known already.
    """
    try:
        with connected(url) as client:
            return ImportRun(client, pool).check()
    except CommandError:
        return []


def wire_user(user: UserIn) -> dict[str, Any]:
    """The user as the API takes it, secrets in the clear."""
    return {
        "login": user.login,
        "password": user.password.get_secret_value(),
        "env": user.env,
        "domain": user.domain,
        "project_id": None if user.project_id is None else str(user.project_id),
        "labels": user.labels,
        "secrets": {name: it.get_secret_value() for name, it in user.secrets.items()},
    }


def paced(
    indices: Sequence[int], clock: Callable[[], float] = time.monotonic
) -> Iterator[Sequence[int]]:
    """Cut into batches that take the consumer about BATCH_SECONDS each."""
    start, size = 0, FIRST_BATCH
    while start < len(indices):
        began = clock()
        batch = indices[start : start + size]
        yield batch
        start += len(batch)
        fitting = int(size * BATCH_SECONDS / max(clock() - began, 0.001))
        # At most doubled: one quick batch of unchanged rows says little of the next.
        size = max(FIRST_BATCH // 2, min(fitting, 2 * size, MAXIMUM_IMPORT_ROWS))


def _refusal(problems: Sequence[str]) -> str:
    shown = list(problems[:MAXIMUM_SHOWN])
    if len(problems) > len(shown):
        shown.append(f"… and {len(problems) - len(shown):,} more")
    return "\n".join(["nothing was imported:", *shown])

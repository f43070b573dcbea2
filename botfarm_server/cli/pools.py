"""The farm that a command is about: that of a URL, or that of a pool file.

A run over a pool file brings a server that ends with it. What that server knows stays
in its database, and this starts it once more.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import httpx

from botfarm_server.cli.client import FarmClient, Token, connected
from botfarm_server.cli.errors import CommandError

TOKEN_BYTES = 32


def farm(url: str, pool: Path | None) -> AbstractContextManager[FarmClient]:
    """A client of the server at `url`, or of one over `pool`, if that is given."""
    return connected(url) if pool is None else served(pool)


@contextmanager
def served(pool: Path) -> Iterator[FarmClient]:
    """A client of a server over this pool file, which ends with the block.

    Raises:
        CommandError: it does not start: what the file refers to is missing, say.

    """
    token = Token(secrets.token_urlsafe(TOKEN_BYTES), "this command")
    with subprocess.Popen(  # noqa: S603 - only what stands here
        [sys.executable, "-m", "botfarm_server.embedded", "--pool", str(pool)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it logs what the command says itself
        text=True,
    ) as process:
        # Leaving the block closes its standard input, which ends it.
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended, and told why
                os.write(process.stdin.fileno(), f"{token.text}\n".encode())
        told = json.loads((process.stdout and process.stdout.readline()) or "{}")
        if "url" not in told:
            why = told.get("error", "it ended at once")
            raise CommandError(f"The server for {pool} did not start: {why}")
        client = FarmClient(httpx.URL(told["url"]), token)
        try:
            yield client
        finally:
            client.close()

"""Several real server processes over one database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.servers import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server(database_url: str) -> Iterator[StartServer]:
    """Start another server process over the test's database."""
    with ExitStack() as stack:

        def start(**environment: str) -> ServerProcess:
            server = ServerProcess(database_url, environment)
            return stack.enter_context(server).wait_until_ready()

        yield start

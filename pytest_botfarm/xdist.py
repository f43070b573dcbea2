"""The controller's part in a run that pytest-xdist spreads over workers.

Each worker is told the run's id and, for an embedded server, a rendezvous: a Unix
socket in a directory that only this user can enter. A worker that wants its first
lease connects to it, and is told where the server is once the controller has started
it. A worker cannot ask over xdist's own channel while it runs a test, and the
controller does not see which tests want an account; so this is what lets one server
serve all workers, start only when wanted, and belong to the process that ends last.
A worker that starts the server itself would take it along when it crashes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from .client.errors import BotfarmError
from .session import RENDEZVOUS, RUN_ID, LeaseSession, session_of

if TYPE_CHECKING:
    from .embedded import EmbeddedServer, Endpoint

UNSETTLED, REACHED = "botfarm_unsettled", "botfarm_reached"
"""What a worker tells of itself when it ends in order."""
ANSWER_TIME = 90.0
"""Seconds; a little more than a server may take to start."""
MAXIMUM_SOCKET_PATH = 100
"""Bytes; the kernel takes 108, on macOS 104."""


class WorkerNode(Protocol):
    """What this module uses of xdist's WorkerController."""

    workerinput: dict[str, Any]
    workeroutput: dict[str, Any]


class Rendezvous:
    """Tells workers where the embedded server is, and starts it for the first."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._directory = Path(tempfile.mkdtemp(prefix="botfarm-"))
        if len(bytes(self._directory)) > MAXIMUM_SOCKET_PATH - len("/socket"):
            self._directory.rmdir()
            self._directory = Path(tempfile.mkdtemp(prefix="botfarm-", dir="/tmp"))
        self.path = str(self._directory / "socket")
        self._listener = socket(AF_UNIX, SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._closed = False
        self._thread = Thread(
            target=self._serve, name="botfarm-rendezvous", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        with suppress(OSError), socket(AF_UNIX, SOCK_STREAM) as wake:
            wake.connect(self.path)
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._closed:
                    return
                try:
                    endpoint = self._server.endpoint()
                    answer = {"url": endpoint.url, "token": endpoint.token}
                except BotfarmError as error:
                    answer = {"error": str(error)}
                with suppress(OSError):  # the worker may have died
                    connection.sendall(json.dumps(answer).encode())


def ask(path: str) -> Endpoint:
    """A worker's question at the rendezvous. Raises EmbeddedServerError."""
    from .embedded import EmbeddedServerError, Endpoint  # noqa: PLC0415  # first lease

    answer = b""
    try:
        with socket(AF_UNIX, SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_TIME)
            connection.connect(path)
            while part := connection.recv(4096):
                answer += part
        told = json.loads(answer)
    except (OSError, ValueError) as error:
        raise EmbeddedServerError(
            f"pytest-xdist's controller did not tell where the server is: {error!r}. "
            "Workers on other machines need a shared server (--botfarm-url)"
        ) from None
    if "error" in told:
        raise EmbeddedServerError(told["error"])
    return Endpoint(told["url"], told["token"])


class Controller:
    """Registered in the controller alone, and only where pytest-xdist is active."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rendezvous: Rendezvous | None = None
        self._unsettled: set[str] = set()
        self.workers_reached = False
        """Whether the server may have answered a worker."""

    @property
    def _session(self) -> LeaseSession:
        return session_of(self._config)

    @property
    def is_unsettled(self) -> bool:
        """Whether a worker may have left a lease behind."""
        return bool(self._unsettled)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerNode) -> None:
        node.workerinput[RUN_ID] = self._session.identity.run_id
        if self._session.embedded is not None:
            if self._rendezvous is None:
                self._rendezvous = Rendezvous(self._session.embedded)
            node.workerinput[RENDEZVOUS] = self._rendezvous.path
        self._unsettled.add(node.workerinput["workerid"])

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerNode, error: object | None) -> None:
        worker_id = node.workerinput["workerid"]
        if worker_id not in self._unsettled:
            return  # told twice, as xdist does after pytest.exit
        # One that died can no longer say.
        self.workers_reached |= bool(error) or node.workeroutput.get(REACHED, True)
        if not error:
            if not node.workeroutput.get(UNSETTLED, True):
                self._unsettled.discard(worker_id)
            return
        if self._session.may_have_leased:
            self._release_dead(worker_id)

    def close(self) -> None:
        if self._rendezvous is not None:
            self._rendezvous.close()

    def _release_dead(self, worker_id: str) -> None:
        notes = self._session.notes
        try:
            released = self._session.sweep(worker_id)
        except BotfarmError as error:
            notes.append(f"what worker {worker_id} held ends by its TTL: {error}")
        else:
            if released:
                notes.append(f"worker {worker_id} died; {released} lease(s) released")

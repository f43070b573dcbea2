"""The controller's part in a run that pytest-xdist spreads over workers.

Each worker is told the run's id and a rendezvous: a Unix socket in a directory that
only this user can enter. A worker connects to it to have a line told to the person at
the terminal, or, where the server is an embedded one, to learn where that is once the
controller has started it. A worker cannot ask over xdist's own channel while it runs a
test, and the controller does not see which tests want an account; so this is what lets
one server serve all workers, start only when wanted, and belong to the process that
ends last. A worker that starts the server itself would take it along when it crashes.
One that finds nobody at the address asks again: the controller starts a server that
died anew.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, SOCK_STREAM, socket
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pytest

from .client.errors import BotfarmError
from .configured import FORESEES, RENDEZVOUS, RUN_ID, session_of
from .report import SECTION
from .session import LeaseSession
from .telling import say

if TYPE_CHECKING:
    from .client.models import Freed
    from .embedded import Endpoint

UNSETTLED, REACHED = "botfarm_unsettled", "botfarm_reached"
"""What a worker tells of itself when it ends in order."""
REFUSED = "botfarm_refused"
"""Of the report of the collection that tells what can never be granted."""
ANSWER_TIME = 90.0
"""Seconds; a little more than a server may take to start."""
TELL_TIME = 5.0
"""Seconds that a line may take on its way, and a question once it is begun."""
MAXIMUM_SOCKET_PATH = 100
"""Bytes; the kernel takes 108, on macOS 104."""


Kind = Literal["say", "foretell", "note"]
"""A line to be told at once, with the end of the collection, or in the summary."""


class WorkerNode(Protocol):
    """What the plugin uses of xdist's WorkerController."""

    config: pytest.Config
    workerinput: dict[str, Any]
    workeroutput: dict[str, Any]


class Rendezvous:
    """Hears lines from workers, tells them where the embedded server is, and starts it
    for the first.
    """

    def __init__(
        self,
        locate: Callable[[], Endpoint] | None,
        hear: Callable[[Kind, str], None],
    ) -> None:
        self._locate = locate
        self._hear = hear
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
                with suppress(OSError, ValueError):  # the worker may have died
                    connection.settimeout(TELL_TIME)
                    answer = self._answer(json.loads(_read(connection)))
                    connection.sendall(json.dumps(answer).encode())

    def _answer(self, told: dict[str, Any]) -> dict[str, Any]:
        if "line" in told:
            self._hear(told["kind"], told["line"])
            return {}
        if self._locate is None:
            return {"error": "the run has no server of its own"}
        try:
            endpoint = self._locate()
        except BotfarmError as error:
            return {"error": str(error)}
        return asdict(endpoint)


def ask(path: str) -> Endpoint:
    """A worker's question at the rendezvous. Raises EmbeddedServerError."""
    from .embedded import EmbeddedServerError, Endpoint  # noqa: PLC0415  # first lease

    try:
        told = _converse(path, {}, ANSWER_TIME)
    except (OSError, ValueError) as error:
        raise EmbeddedServerError(
            f"pytest-xdist's controller did not tell where the server is: {error!r}. "
            "Workers on other machines need a shared server (--botfarm-url)"
        ) from None
    if "error" in told:
        raise EmbeddedServerError(told["error"])
    return Endpoint(**told)


def tell(path: str, kind: Kind, line: str) -> None:
    """A worker's line for the person at the terminal. Lost if there is no way."""
    with suppress(OSError, ValueError):
        _converse(path, {"kind": kind, "line": line}, TELL_TIME)


def _converse(path: str, told: dict[str, Any], within: float) -> dict[str, Any]:
    from .client.shielded import shielded_socket  # noqa: PLC0415  # not before a lease

    with closing(shielded_socket(AF_UNIX)) as connection:
        connection.settimeout(within)
        connection.connect(path)
        connection.sendall(json.dumps(told).encode())
        connection.shutdown(SHUT_WR)
        answer: dict[str, Any] = json.loads(_read(connection))
        return answer


def _read(connection: socket) -> bytes:
    read = b""
    while part := connection.recv(4096):
        read += part
    return read


def clear_up_behind(worker: pytest.Config) -> None:
    """Remove the rendezvous of a controller that died, as its worker's last duty."""
    workerinput: Mapping[str, Any] = getattr(worker, "workerinput")  # noqa: B009
    if RENDEZVOUS in workerinput:
        shutil.rmtree(Path(workerinput[RENDEZVOUS]).parent, ignore_errors=True)


class Controller:
    """Registered in the controller alone, and only where pytest-xdist is active."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rendezvous: Rendezvous | None = None
        self._foretold: list[str] = []
        self._refused = 0
        self._unsettled: set[str] = set()
        self._crashes: dict[str, Sequence[str]] = {}
        """What each dead worker held, in lines."""
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
        if self._session.is_configured:
            # All workers collect the same tests, so one of them looks ahead.
            node.workerinput[FORESEES] = self._rendezvous is None
            if self._rendezvous is None:
                has_server = self._session.embedded is not None
                locate = self._session.locate if has_server else None
                self._rendezvous = Rendezvous(locate, self._hear)
            node.workerinput[RENDEZVOUS] = self._rendezvous.path
        self._unsettled.add(node.workerinput["workerid"])

    def _hear(self, kind: Kind, line: str) -> None:
        if kind == "say":
            say(self._config, line)
        elif kind == "foretell":
            self._foretold.append(line)
        else:
            self._session.notes.append(line)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self) -> None:
        lines, self._foretold = self._foretold, []
        for line in lines:
            say(self._config, f"botfarm: {line}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """End the run as pytest does by itself without pytest-xdist, which goes on."""
        if not getattr(report, REFUSED, False):
            return
        self._refused += 1
        dsession: Any = self._config.pluginmanager.get_plugin("dsession")
        goes_on = self._config.getoption("continue_on_collection_errors")
        if dsession is not None and not goes_on:
            errors = "1 error" if self._refused == 1 else f"{self._refused} errors"
            dsession.shouldstop = f"{errors} during collection"

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

    # Called once its worker has been told of as down.
    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        node: WorkerNode = getattr(report, "node")  # noqa: B009 - pytest-xdist sets it
        if lines := self._crashes.get(node.workerinput["workerid"]):
            told = self._session.masker.mask("\n".join(lines))
            report.sections.append((SECTION, told))

    def close(self) -> None:
        if self._rendezvous is not None:
            self._rendezvous.close()

    def _release_dead(self, worker_id: str) -> None:
        try:
            freed = self._session.sweep(worker_id)
        except BotfarmError as error:
            lines = [f"what worker {worker_id} held ends by its TTL: {error}"]
        else:
            lines = [_crash_line(worker_id, it) for it in freed]
        self._crashes[worker_id] = lines
        self._session.notes += lines


def _crash_line(worker_id: str, freed: Freed) -> str:
    """Which accounts a dead worker held, in which test, and what became of them."""
    line = (
        f"worker {worker_id} crashed while {freed.test_id} held "
        f"{' and '.join(freed.logins)}: given back, and dirty"
    )
    for login, reason in freed.quarantined.items():
        line += f"; {login} went into quarantine: {reason}"
    return line

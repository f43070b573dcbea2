"""The thread that keeps the leases of this process alive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, Thread
from uuid import UUID

from .client.clock import clock
from .client.errors import AskAgainError
from .client.forking import on_fork
from .client.lifetimes import Lifetime, Lifetimes
from .client.models import Lease
from .client.sync import Client

LONGEST_NAP = 5.0
"""Seconds. Waiting does not count the time for which the machine sleeps, so that a
longer nap could overlook a deadline that passed meanwhile."""
SHORTEST_TRY, LONGEST_TRY = 0.5, 10.0
"""Seconds that one heartbeat may take, depending on how near the deadline is."""
NO_TROUBLE = "no heartbeat was answered in time"

_logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews the leases of one process, in one call, from one daemon thread.

    The thread starts with the first lease and parks while there is nothing to do; it
    has a connection of its own, which a test shorter than the first beat never opens.
    """

    def __init__(self, make_client: Callable[[], Client]) -> None:
        self._make_client = make_client
        self._lifetimes = Lifetimes()
        self._changed = Condition()
        self._thread: Thread | None = None
        self._client: Client | None = None
        self._stopped = False
        self._wakes_at = 0.0
        self._trouble = NO_TROUBLE
        on_fork(self)

    def watch(self, lease: Lease) -> Lifetime | None:
        """Keep a lease alive until it is forgotten or lost."""
        with self._changed:
            lifetime = self._lifetimes.watch(lease)
            if lifetime is None:
                return None
            if self._thread is None:
                self._thread = Thread(
                    target=self._run, name="botfarm-heartbeat", daemon=True
                )
                self._thread.start()
            elif lifetime.due < self._wakes_at:
                self._changed.notify()
        return lifetime

    def forget(self, lease_id: UUID) -> None:
        """Renew a lease no more; it is lost if its deadline has passed unnoticed."""
        with self._changed:
            self._lifetimes.lose_overdue(clock(), self._trouble)
            self._lifetimes.forget(lease_id)

    def stop(self) -> None:
        """End the thread and its connection."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(LONGEST_TRY)

    def after_fork_in_child(self) -> None:
        self._lifetimes = Lifetimes()
        self._changed = Condition()
        self._thread = None

    def _run(self) -> None:
        while (due := self._park()) is not None:
            self._beat(*due)
        if self._client is not None:
            self._client.close()

    def _park(self) -> tuple[dict[UUID, int], float] | None:
        """Wait for leases to renew: their fences and the earliest deadline of all.

        None when told to stop.
        """
        with self._changed:
            while not self._stopped:
                now = clock()
                self._lifetimes.lose_overdue(now, self._trouble)
                deadline = self._lifetimes.earliest_deadline()
                if deadline is None:
                    self._wakes_at = float("inf")
                    self._changed.wait()
                elif fences := self._lifetimes.due(now):
                    return fences, deadline
                else:
                    self._wakes_at = self._lifetimes.next_event() or now
                    self._changed.wait(min(self._wakes_at - now, LONGEST_NAP))
        return None

    def _beat(self, fences: dict[UUID, int], deadline: float) -> None:
        asked = clock()
        timeout = min(max(deadline - asked, SHORTEST_TRY), LONGEST_TRY)
        try:
            if self._client is None:
                self._client = self._make_client()
            protocol = self._client.protocol
            answers = self._client.run(protocol.renew(fences, timeout=timeout))
        except AskAgainError as error:
            self._repeat(error, retry_after=error.retry_after)
        # Whatever it is: without this thread, no loss would be noticed any more.
        except Exception as error:  # noqa: BLE001
            self._repeat(error)
        else:
            with self._changed:
                self._trouble = NO_TROUBLE
                self._lifetimes.renewed(answers, asked=asked)

    def _repeat(self, error: Exception, *, retry_after: float = 0.0) -> None:
        _logger.warning("a Botfarm heartbeat failed and is repeated: %s", error)
        with self._changed:
            self._trouble = f"{NO_TROUBLE}: {error}"
            self._lifetimes.failed(clock(), retry_after=retry_after)

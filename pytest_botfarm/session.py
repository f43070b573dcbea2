"""One process's part in a run: where its leases come from and what it holds."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import pytest

from .client.clock import clock, wall_time
from .client.core import LeaseProtocol
from .client.errors import (
    AcquireTimeoutError,
    BotfarmError,
    ConnectionProblem,
    ForbiddenError,
    LeaseEndedError,
    LeaseLostError,
    NoSuchPathError,
    ServerError,
    UnauthorizedError,
)
from .client.exchange import Conversation
from .client.forking import on_fork
from .client.lifetimes import Lifetime, Loss
from .client.models import Freed, Lease, Outcome, Waiting
from .embedded import EmbeddedServer, EmbeddedServerError, Endpoint
from .holding import (
    MAXIMUM_AUTHOR,
    MAXIMUM_TEXT,
    Holding,
    Identity,
    Place,
    lost_error,
    shortened,
)
from .idle import IdleLeases, in_use, make_file
from .keeping import keeping_of, names_of
from .kept_state import KeptState
from .limits import Limit
from .making import Willingness
from .presence import Presence
from .settings import Settings
from .supplying import Comparing
from .telling import advice, waiting_line
from .users import BotUser

if TYPE_CHECKING:
    from .client.sync import Client
    from .heartbeat import Heartbeat
    from .masking import Masker

NOT_CONFIGURED = (
    "bot_user has no server and no pool of accounts. Either name a server with "
    "--botfarm-url (or BOTFARM_URL, or botfarm_url in the ini file), or write the "
    "accounts into a file botfarm.toml beside the ini file, or name such a file with "
    "--botfarm-pool"
)
OF_THE_RUN = (
    ConnectionProblem,
    EmbeddedServerError,
    ForbiddenError,
    NoSuchPathError,
    UnauthorizedError,
    pytest.UsageError,
)
"""What meets all tests alike that want the same."""
T = TypeVar("T")


class LeaseSession:
    """Takes and gives back the leases of one process.

    Nothing that costs time is imported, opened or started before the first lease.
    """

    def __init__(
        self,
        identity: Identity,
        settings: Settings | pytest.UsageError,
        locate: Callable[[], Endpoint] | None,
        *,
        masker: Masker,
        say: Callable[[str], None],
        limit: Callable[[], Limit | None],
        embedded: EmbeddedServer | None = None,
    ) -> None:
        """`say` tells the person at the terminal a line, `limit` is until when the
        running test may wait.
        """
        self.identity = identity
        self.masker = masker
        self.embedded = embedded
        self.notes: list[str] = []
        """What the closing summary should mention."""
        self.faults: set[str] = set()
        """What tests were told to be wrong with the run, and so not with them."""
        self.making = Willingness()
        self.comparing = Comparing()
        self._settings = settings
        self._locate = locate
        self._say = say
        self._limit = limit
        self._open: dict[UUID, Place] = {}
        self._had: dict[Place, Sequence[UUID]] = {}
        """The users that each place had last: their sessions are warm."""
        self._idle = IdleLeases(self._release_idle)
        self._kept: defaultdict[str, list[Lease]] = defaultdict(list)
        self._opening, self._placing = Lock(), Lock()
        self._cut_off: list[tuple[Holding, Outcome, bool]] = []
        """What was being released when something else was raised, a timeout, say."""
        self._is_forked = False
        self._presence = Presence(identity.run_id)
        self._directory: str | None = None
        self._client: Client | None = None
        self._heartbeat: Heartbeat | None = None
        on_fork(self)

    @property
    def settings(self) -> Settings:
        """The settings. Raises pytest.UsageError if they are wrong, or say nothing of
        where accounts come from.
        """
        if isinstance(self._settings, pytest.UsageError):
            raise pytest.UsageError(*self._settings.args)
        if self._locate is None:
            raise pytest.UsageError(NOT_CONFIGURED)
        return self._settings

    @property
    def is_configured(self) -> bool:
        """Whether it is known where accounts come from."""
        return self._locate is not None

    @property
    def is_unsettled(self) -> bool:
        """Whether the server may know a lease of this process that has not ended."""
        return bool(self._open or self._idle) or (
            self._client is not None and self._client.protocol.failures > 0
        )

    @property
    def was_reached(self) -> bool:
        """Whether the server ever answered this process."""
        return self._client is not None and self._client.protocol.was_reached

    @property
    def may_have_leased(self) -> bool:
        """False only where no process of the run can have leased anything."""
        if self.embedded is not None:
            return self.embedded.was_started
        return self._locate is not None

    def acquire(
        self, holding: Holding, *, wait: float, test_id: str, keep_place: bool = False
    ) -> None:
        """Fill a holding with a lease. After an exception, too, it wants a release.

        With `keep_place` it waits on after an AcquireTimeoutError, for some seconds.
        """
        client = self.client()
        self._release_cut_off()
        if self._heartbeat is None:
            self._heartbeat = self._make_heartbeat()
        place = self._open.get(holding.id) or self._take_place(holding)
        # Behind the line above, which the release looks at: a thread that a cancelled
        # test left behind may come here while, or after, its teardown releases.
        self._refuse_if_over(holding, test_id)
        if holding.asked is None and self._take_up(holding, place, test_id):
            return
        lease = self._ask(
            client, holding, place, wait=wait, test_id=test_id, keep_place=keep_place
        )
        self._had[place] = [user.id for user in lease.users]
        for user in lease.users:
            self.masker.learn(user.password, *user.secrets.values())
        holding.file = in_use(holding.file, shortened(test_id))
        self._fill(holding, lease, self._heartbeat.watch(lease), test_id)

    def _ask(
        self,
        client: Client,
        holding: Holding,
        place: Place,
        *,
        wait: float,
        test_id: str,
        keep_place: bool,
    ) -> Lease:
        """Ask the server for what a holding wants."""
        asker, limit = self.identity.holder(test_id), self._limit()
        cut_short = limit if limit and clock() + wait > limit.ends else None
        keep_place = keep_place and cut_short is None

        def tell(waiting: Waiting) -> None:
            self._say(waiting_line(asker, holding.wants, waiting))

        def anew() -> UUID:
            self._forget(holding)
            holding.begin_anew()
            holding.asked = clock()
            self._open[holding.id] = place
            holding.file = make_file(self._directory, holding.id)
            self._refuse_if_over(holding, test_id)
            return holding.id

        holding.asked = holding.asked or clock()
        holding.file = holding.file or make_file(self._directory, holding.id)
        conversation = client.protocol.acquire(
            holding.id,
            holding.wants,
            asker,
            ttl=self.settings.ttl,
            wait=wait,
            prefer=self._had.get(place, ()),
            ends=None if limit is None else limit.ends,
            on_waiting=tell,
            since=holding.asked,
            keep_place=keep_place,
            anew=anew,
        )
        try:
            return client.run(conversation)
        except AcquireTimeoutError as error:
            if not keep_place:
                self._forget(holding)
            raise error.advising(advice(cut_short)) from None
        except ServerError as error:
            if error.status < 500:  # refused, so there is nothing to release
                self._forget(holding)
            raise
        finally:
            holding.answered = clock()

    def _take_up(self, holding: Holding, place: Place, test_id: str) -> bool:
        """Fill a holding with what the test before has left, if it is there still."""
        idle = self._idle.at(place)
        if idle is None:
            return False
        asked_as = holding.id
        # First of all: whatever interrupts the rest, the test's release ends the lease.
        self._open[idle.lease.id] = place
        holding.id, holding.lease = idle.lease.id, idle.lease
        holding.file, holding.lifetime = idle.file, idle.lifetime
        self._open.pop(asked_as, None)
        if not idle.take_up(shortened(test_id)):
            self._idle.give_back(place)
            holding.begin_anew()
            self._open[holding.id] = place
            self._open.pop(idle.lease.id, None)
            return False
        self._idle.forget(place)
        holding.asked = holding.answered = clock()
        lease = replace(idle.lease, waited=0.0)
        self._fill(holding, lease, idle.lifetime, test_id)
        if holding.is_over:  # its release may have come before, and found nothing
            self.release(holding, outcome="passed", clean=True)
            self._refuse_if_over(holding, test_id)
        return True

    def _fill(
        self, holding: Holding, lease: Lease, lifetime: Lifetime | None, test_id: str
    ) -> None:
        holding.lease, holding.lifetime = lease, lifetime
        holding.test_id, holding.keeping = test_id, keeping_of(self.settings)
        put_in_quarantine = partial(self._put_in_quarantine, holding, test_id)
        holding.users = tuple(
            BotUser(
                user,
                put_in_quarantine,
                KeptState(
                    user, lease, self._connected, self._note, self.masker.learn_state
                ),
            )
            for user in lease.users
        )

    def holds(self, holding: Holding) -> bool:
        """Whether it is to be given back, by this process, held or waiting."""
        return holding.process == os.getpid() and holding.id in self._open

    def release(
        self, holding: Holding, *, outcome: Outcome, clean: bool
    ) -> LeaseLostError | None:
        """End a holding, whatever became of it, or keep it. Returns an error if lost.

        A server that cannot be reached is only noted: the TTL ends the lease. What is
        cut off, by the timeout of a test, say, is done before the next lease.
        """
        if not self.holds(holding):
            return None  # the parent's, in a forked child; or never asked for
        try:
            return self._release(holding, outcome, clean=clean)
        except BaseException:
            self._cut_off.append((holding, outcome, clean))
            raise

    def _release_cut_off(self) -> None:
        while self._cut_off:
            holding, outcome, clean = self._cut_off.pop()
            lost = self.release(holding, outcome=outcome, clean=clean)
            if lost is not None:
                self.notes.append(str(lost))

    def _release(
        self, holding: Holding, outcome: Outcome, *, clean: bool
    ) -> LeaseLostError | None:
        # Before it is left or sent: the next holder may have it before the answer.
        holding.ended = clock()
        place = self._open[holding.id]
        if self._idle.leave(place, holding, outcome, clean=clean):
            holding.file = None
            self._open.pop(holding.id, None)
            return None
        client = self.client()
        if self._heartbeat is not None:
            self._heartbeat.forget(holding.id)
        loss: Loss | None = None
        try:
            if not self._keep(holding, outcome):
                client.run(
                    client.protocol.release(
                        holding.id,
                        fence=holding.lease.fence if holding.lease else None,
                        outcome=outcome,
                        clean=clean,
                    )
                )
        except LeaseEndedError as error:
            self._forget(holding)
            loss = Loss(clock() - (error.ended_ago or 0), error.detail, error.users)
        except BotfarmError as error:
            if client.protocol.was_reached and holding.lease is not None:
                names = names_of(holding.lease)
                self.notes.append(
                    f"{names} of {holding.test_id}: not given back, and free again by "
                    f"the TTL of lease {holding.id}: {error}"
                )
            self._close_file(holding)
        else:
            self._forget(holding)
        noticed = holding.lifetime.loss if holding.lifetime else None
        if noticed and loss:
            loss = Loss(noticed.at, noticed.reason, loss.users or noticed.users)
        holding.loss = loss = loss or noticed
        return (
            None if holding.lease is None or loss is None else lost_error(holding, loss)
        )

    def give_back_idle(self) -> None:
        """End what tests have left to each other: none will come."""
        self._release_cut_off()
        self._idle.end()

    def _release_idle(self, lease: Lease) -> bool:
        """Returns whether the server knows that it is over."""
        if self._heartbeat is not None:
            self._heartbeat.forget(lease.id)
        client = self.client()
        ending = client.protocol.release(lease.id, fence=lease.fence, outcome="passed")
        try:
            client.run(ending)
        except LeaseEndedError:
            return True
        except BotfarmError:
            return False
        return True

    def _forget(self, holding: Holding) -> None:
        """Nothing of it is left to be given back."""
        self._open.pop(holding.id, None)
        if holding.file is not None:
            holding.file.remove()
            holding.file = None

    def _close_file(self, holding: Holding) -> None:
        """Keep nothing open of a lease that cannot be given back; its tests are told
        in the file, if there were any.
        """
        if holding.file is not None:
            if holding.lease is None:
                holding.file.remove()
            else:
                holding.file.close()
            holding.file = None

    def give_back_kept(self, test_id: str) -> list[UUID]:
        """End what an earlier run of a test kept: the one that begins tells more."""
        leases = self._kept.pop(test_id, [])
        for lease in leases:
            client = self.client()
            with suppress(BotfarmError):  # its time ends it
                client.run(client.protocol.release(lease.id, fence=lease.fence))
        return [lease.id for lease in leases]

    def _refuse_if_over(self, holding: Holding, test_id: str) -> None:
        if holding.is_over:
            self._forget(holding)
            raise BotfarmError(f"{test_id} has ended before its account was leased")

    def _take_place(self, holding: Holding) -> Place:
        """The first of two alike leases of a test has its users, and the second its."""
        wants = tuple(want.key for want in holding.wants)
        with self._placing:  # threads of a test would take up the same lease there
            taken = set(self._open.values())
            place = next(it for it in zip(repeat(wants), count()) if it not in taken)
            self._open[holding.id] = place
        return place

    def _keep(self, holding: Holding, outcome: Outcome) -> bool:
        """Leave a failed test's accounts leased; whether that was wanted, and done.

        Raises LeaseEndedError.
        """
        lease, keeping = holding.lease, holding.keeping
        was_lost = holding.lifetime is not None and holding.lifetime.loss is not None
        if lease is None or was_lost or keeping is None or not keeping.is_for(outcome):
            return False
        client = self.client()
        try:
            expires_in = client.run(
                client.protocol.keep(
                    lease.id, lease.fence, seconds=keeping.seconds, outcome=outcome
                )
            )
        except LeaseEndedError:
            raise
        except BotfarmError as error:
            names = names_of(lease)
            self.notes.append(f"not kept for {holding.test_id}: {names}: {error}")
            return False
        self._kept[holding.test_id].append(lease)
        holding.kept_until = clock() + expires_in
        until = wall_time(holding.kept_until)
        holding.kept = keeping.result(lease, holding.test_id, until)
        return True

    def _put_in_quarantine(
        self, holding: Holding, test_id: str, user_id: UUID, login: str, reason: str
    ) -> None:
        client, author = self.client(), test_id[:MAXIMUM_AUTHOR]
        # Whoever may list users reads it. Tests give what they have caught, too.
        reason = self.masker.mask(str(reason))[:MAXIMUM_TEXT]
        client.run(client.protocol.quarantine(user_id, reason, author))
        holding.quarantined[login] = reason
        self.notes.append(f"{login} was put in quarantine by {test_id}: {reason}")

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _connected(self) -> AbstractContextManager[Client]:
        return nullcontext(self.client())

    def client(self) -> Client:
        """The connection to the server, which is started if it is this run's own."""
        with self._opening:
            if self._client is None:
                self._client = self._connect()
                if self._client.warning is not None:
                    self._note(self._client.warning)
            return self._client

    def aside(self, converse: Callable[[LeaseProtocol], Conversation[T]]) -> T:
        """Hold a conversation apart from those of the leases.

        What it learns of the server, that it is not there yet, say, is not theirs.
        """
        client = self._connect()
        try:
            return client.run(converse(client.protocol))
        finally:
            client.close()

    def sweep(self, worker_id: str | None = None) -> list[Freed]:
        """End what the run, or a worker of it that is dead, left held."""
        client = self.client()
        return client.run(
            client.protocol.release_holder(
                self.identity.run_id, worker_id, outcome="crashed", clean=False
            )
        )

    def finish(self, *, unsettled: bool, workers_reached: bool) -> None:
        """End the run: nothing of it is left held, and nothing of it runs on.

        A forked child that ends as a run does has no say in what its parent holds.
        `unsettled` is whether a worker may have left a lease behind, `workers_reached`
        whether the server may have answered one.
        """
        unsettled = (unsettled or self.is_unsettled) and not self._is_forked
        try:
            if unsettled and self.may_have_leased:
                self.sweep()
        except BotfarmError as error:
            if workers_reached or self.was_reached:
                # Not a line of the summary, which has been written.
                sys.stderr.write(
                    f"botfarm: what is left held ends by its TTL: {error}\n"
                )
        finally:
            self.close()

    def close(self) -> None:
        """Stop the heartbeat, the connection and the server of the run's own."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._client is not None:
            self._client.close()
        self._presence.end(settled=not self.is_unsettled)
        if self.embedded is not None:
            self.embedded.stop()

    def note_fault(self, error: BotfarmError | pytest.UsageError) -> None:
        """Remember what a test is told, if it is to be told once for all tests."""
        if isinstance(error, OF_THE_RUN):
            self.faults.add(str(error))

    def take_notes(self) -> list[str]:
        notes, self.notes = self.notes, []
        return [self.masker.mask(note) for note in notes]

    def closing_notes(self) -> list[str]:
        """What only the end of the run can tell, too."""
        notes = self.take_notes()
        if self.embedded is not None and (restarts := self.embedded.restarts):
            times = "once" if restarts == 1 else f"{restarts} times"
            notes.append(f"the server of this run ended and was started again {times}")
        return notes

    def after_fork_in_child(self) -> None:
        self._open = {}
        self._had = {}
        self._kept.clear()
        self._opening, self._placing = Lock(), Lock()
        self._cut_off.clear()
        self._is_forked = True

    def locate(self) -> Endpoint:
        """Where the server is. Raises EmbeddedServerError, pytest.UsageError."""
        if self._locate is None:
            raise pytest.UsageError(NOT_CONFIGURED)
        endpoint = self._locate()
        self._directory = endpoint.presence
        self._presence.show(endpoint.presence)
        return endpoint

    def _connect(self) -> Client:
        from .client.sync import Client  # noqa: PLC0415  # httpx takes 180 ms

        endpoint = self.locate()
        self.masker.learn(endpoint.token)
        if self.settings.url is not None:
            return Client(endpoint.url, endpoint.token)
        return Client(endpoint.url, endpoint.token, locate=lambda: self.locate().url)

    def _make_heartbeat(self) -> Heartbeat:
        from .heartbeat import Heartbeat  # noqa: PLC0415  # the same

        return Heartbeat(self._connect)

"""Leases outside pytest: in scripts, other test runners, load tests.

    with BotfarmClient("https://botfarm.example.com").lease("stage", "regular") as user:
        log_in(user.login, user.password)

Both clients keep their leases alive from a thread of their own until the block ends.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    closing,
    contextmanager,
)
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from anyio import CancelScope, to_thread

from .client.asynchronous import AsyncClient
from .client.clock import clock
from .client.environment import token_of
from .client.errors import BotfarmError, LeaseEndedError, LeaseLostError
from .client.lifetimes import Lifetime, Loss
from .client.models import Holder, Lease, Outcome, Want
from .client.sync import Client
from .heartbeat import Heartbeat
from .kept_state import KeptState
from .users import BotUser

if TYPE_CHECKING:
    from typing_extensions import Self

WAIT, TTL = 300.0, 60.0

_log = logging.getLogger(__name__)


def _address(url: str | None, token: str | None) -> tuple[str, str | None]:
    url = url or os.environ.get("BOTFARM_URL")
    if not url:
        raise BotfarmError(
            'Which Botfarm server? Name it: BotfarmClient("https://…"), or set '
            "BOTFARM_URL."
        )
    if token is None:
        try:
            token = token_of(os.environ)
        except ValueError as error:
            raise BotfarmError(f"{error}.") from None
    return url.rstrip("/"), token


def _tell(warning: str | None) -> None:
    if warning is not None:
        _log.warning("%s", warning)


def _program() -> str:
    return os.path.basename(sys.argv[0]) or "a program"  # noqa: PTH119


@dataclass(slots=True)
class _Held:
    lease: Lease
    heartbeat: Heartbeat
    lifetime: Lifetime | None
    users: Sequence[BotUser]


@dataclass(slots=True)
class _Asked:
    """What is asked for, until it is granted or given up."""

    id: UUID = field(default_factory=uuid4)

    def anew(self) -> UUID:
        self.id = uuid4()
        return self.id


class _Leases:
    """What both clients share: who asks, the heartbeat, what becomes of a lease."""

    def __init__(self, url: str, token: str | None, name: str | None) -> None:
        self._url, self._token, self._name = url, token, name or _program()
        self._run_id, self._numbers = uuid4().hex, count(1)
        self._lock = Lock()
        self._held = 0
        self._heartbeat: Heartbeat | None = None

    def holder(self) -> Holder:
        """Who asks for the next lease.

        Each is a worker of its own: which of a program's leases depend on one another
        is not known, and two of one worker would be taken to do so.
        """
        worker_id = f"process {os.getpid()}, lease {next(self._numbers)}"
        return Holder(self._run_id, worker_id, self._name, socket.gethostname())

    def begin(self, lease: Lease) -> _Held:
        with self._lock:
            self._held += 1
            if self._heartbeat is None:
                self._heartbeat = Heartbeat(self._client)
            heartbeat = self._heartbeat
            lifetime = heartbeat.watch(lease)
        users = tuple(
            BotUser(
                user,
                self._put_in_quarantine,
                KeptState(user, lease, self._connect, _log.warning),
            )
            for user in lease.users
        )
        return _Held(lease, heartbeat, lifetime, users)

    def _client(self) -> Client:
        return Client(self._url, self._token)

    def _connect(self) -> AbstractContextManager[Client]:
        """A connection for one call, from whichever thread."""
        return closing(self._client())

    def _put_in_quarantine(self, user_id: UUID, login: str, reason: str) -> None:
        with self._connect() as client:
            client.run(client.protocol.quarantine(user_id, reason, self._name))

    def forget(self, held: _Held) -> bool:
        """Renew it no more; whether it was the last one."""
        with self._lock:
            held.heartbeat.forget(held.lease.id)
            self._held -= 1
            is_last = not self._held
            if is_last:
                self._heartbeat = None
        if is_last:
            held.heartbeat.stop()
        return is_last


def _check(held: _Held, ended: LeaseEndedError | None) -> None:
    """Raise LeaseLostError if the lease was lost before it was given back."""
    loss = held.lifetime.loss if held.lifetime else None
    if ended is not None:
        at = loss.at if loss else clock() - (ended.ended_ago or 0.0)
        loss = Loss(at, loss.reason if loss else ended.detail, ended.users)
    if loss is not None:
        logins = ", ".join(user.login for user in held.users)
        raise LeaseLostError(
            f"The lease of {logins} was lost {max(0.0, clock() - loss.at):.1f} s ago: "
            f"{loss.reason} Somebody else may have used the account since.",
            users=loss.users,
        )


def _outcome() -> tuple[Outcome, bool]:
    """How the block ended, and whether its account is clean."""
    has_failed = sys.exc_info()[0] is not None
    return ("failed", False) if has_failed else ("passed", True)


class BotfarmClient:
    """Leases accounts from a server, for any program.

    May be used by several threads. A forked child has no part in its parent's leases.

    Raises BotfarmError where neither the call nor `BOTFARM_URL` names a server. The
    token is `BOTFARM_TOKEN`, or in the file `BOTFARM_TOKEN_FILE`, unless it is given.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        name: str | None = None,
    ) -> None:
        """`name` tells whoever waits for the same accounts who has them; the program's
        own name unless it is given.
        """
        self.url, token = _address(url, token)
        self._client = Client(self.url, token)
        _tell(self._client.warning)
        self._leases = _Leases(self.url, token, name)

    def __repr__(self) -> str:
        return f"BotfarmClient({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next lease opens a new one."""
        self._client.close()

    @contextmanager
    def lease(
        self,
        env: str,
        domain: str,
        *,
        project_id: UUID | None = None,
        labels: Mapping[str, str] | None = None,
        wait: float = WAIT,
        ttl: float = TTL,
    ) -> Iterator[BotUser]:
        """One account that is this block's alone.

        Waits for it up to `wait` seconds. `ttl` is how many seconds after this process
        vanished somebody else may have it.

        Raises:
            AcquireTimeoutError: none was free within `wait`.
            NoSuchPoolError, PoolTooSmallError: waiting could not end.
            LeaseLostError: at the end of the block, if the lease ended before it.
            BotfarmError: the server cannot be used.

        """
        want = Want(env, domain, project_id, dict(labels or {}))
        with self.lease_all(want, wait=wait, ttl=ttl) as (user,):
            yield user

    @contextmanager
    def lease_all(
        self, *wants: Want, wait: float = WAIT, ttl: float = TTL
    ) -> Iterator[Sequence[BotUser]]:
        """Accounts for several wants, all at once or none, in the order of the wants.

        Raises as `lease` does.
        """
        protocol, asked = self._client.protocol, _Asked()
        holder = self._leases.holder()
        asking = protocol.acquire(
            asked.id, wants, holder, ttl=ttl, wait=wait, anew=asked.anew
        )
        try:
            lease = self._client.run(asking)
        except BaseException:
            self._give_up(asked.id)
            raise
        held, ended = self._leases.begin(lease), None
        try:
            yield held.users
        finally:
            outcome, clean = _outcome()
            is_last = self._leases.forget(held)
            try:
                self._client.run(
                    protocol.release(
                        lease.id, fence=lease.fence, outcome=outcome, clean=clean
                    )
                )
            except LeaseEndedError as error:
                ended = error
            finally:
                if is_last:
                    self.close()
        _check(held, ended)

    def _give_up(self, lease_id: UUID) -> None:
        """An answer may have been lost that granted it."""
        try:
            self._client.run(self._client.protocol.release(lease_id, clean=True))
        except BotfarmError:
            pass  # the first error says more, and the TTL ends what was granted
        finally:
            self.close()


class AsyncBotfarmClient:
    """The same for asyncio and trio: `async with client.lease("stage", "regular")`.

    For one event loop. The heartbeat is a thread all the same, which a busy loop does
    not hold up.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        name: str | None = None,
    ) -> None:
        """As of BotfarmClient."""
        self.url, token = _address(url, token)
        self._client = AsyncClient(self.url, token)
        _tell(self._client.warning)
        self._leases = _Leases(self.url, token, name)

    def __repr__(self) -> str:
        return f"AsyncBotfarmClient({self.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. The next lease opens a new one."""
        await self._client.aclose()

    @asynccontextmanager
    async def lease(
        self,
        env: str,
        domain: str,
        *,
        project_id: UUID | None = None,
        labels: Mapping[str, str] | None = None,
        wait: float = WAIT,
        ttl: float = TTL,
    ) -> AsyncIterator[BotUser]:
        """One account that is this block's alone; see BotfarmClient.lease."""
        want = Want(env, domain, project_id, dict(labels or {}))
        async with self.lease_all(want, wait=wait, ttl=ttl) as (user,):
            yield user

    @asynccontextmanager
    async def lease_all(
        self, *wants: Want, wait: float = WAIT, ttl: float = TTL
    ) -> AsyncIterator[Sequence[BotUser]]:
        """Accounts for several wants, all at once or none; see BotfarmClient."""
        protocol, asked = self._client.protocol, _Asked()
        holder = self._leases.holder()
        asking = protocol.acquire(
            asked.id, wants, holder, ttl=ttl, wait=wait, anew=asked.anew
        )
        try:
            lease = await self._client.run(asking)
        except BaseException:
            with CancelScope(shield=True):
                await self._give_up(asked.id)
            raise
        held, ended = self._leases.begin(lease), None
        try:
            yield held.users
        finally:
            outcome, clean = _outcome()
            # A cancelled block gives its account back as well.
            with CancelScope(shield=True):
                is_last = await to_thread.run_sync(self._leases.forget, held)
                try:
                    await self._client.run(
                        protocol.release(
                            lease.id, fence=lease.fence, outcome=outcome, clean=clean
                        )
                    )
                except LeaseEndedError as error:
                    ended = error
                finally:
                    if is_last:
                        await self.aclose()
        _check(held, ended)

    async def _give_up(self, lease_id: UUID) -> None:
        try:
            await self._client.run(self._client.protocol.release(lease_id, clean=True))
        except BotfarmError:
            pass  # the first error says more, and the TTL ends what was granted
        finally:
            await self.aclose()

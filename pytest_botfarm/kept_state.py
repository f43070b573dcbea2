"""What one holder of an account leaves for the next: the state of a login, say."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from .client.core import STATE_PATIENCE
from .client.errors import (
    AskAgainError,
    BotfarmError,
    NoSealingKeyError,
    NoSuchPathError,
    ServerNotReachableError,
)

if TYPE_CHECKING:
    from anyio import Event

    from .client.core import LeaseProtocol
    from .client.exchange import Conversation
    from .client.models import Lease, LeasedUser
    from .client.sync import Client

State = str | Mapping[str, Any] | Sequence[Any]
"""Text, or a dict or a list of what JSON can tell."""
S = TypeVar("S", bound=State)

NOT_KEPT = (
    NoSealingKeyError,
    NoSuchPathError,  # a server of the version before
    ServerNotReachableError,
    AskAgainError,
)
"""Why a state is not kept, though nothing is wrong with it or with the lease."""


class KeptState:
    """The state of one account in the hands of its holder.

    It travels as JSON, so that text comes back as text and a dict as a dict. `connect`
    gives a client for one conversation, `note` tells people what went wrong, `learn` is
    told each state, so that it can be masked.
    """

    __slots__ = (
        "_connect",
        "_learn",
        "_lease",
        "_lock",
        "_note",
        "_signing_in",
        "_text",
        "_user",
    )

    def __init__(
        self,
        user: LeasedUser,
        lease: Lease,
        connect: Callable[[], AbstractContextManager[Client]],
        note: Callable[[str], None],
        learn: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._user = user
        self._lease = lease
        self._connect = connect
        self._note = note
        self._text = user.state
        self._lock = Lock()
        self._signing_in: Event | None = None
        self._learn = learn
        if self._text is not None:
            learn(self.value)

    @property
    def value(self) -> Any:
        """The state, a copy of its own for each who asks; None if there is none."""
        return None if self._text is None else _state_of(self._text)

    def save(self, state: State, expires_in: float | None) -> None:
        __tracebackhide__ = True
        text = self._told(state)
        self._send(text, expires_in, patience=math.inf)
        self._text = text

    def drop(self) -> None:
        __tracebackhide__ = True
        self._text = None
        self._hold(
            lambda protocol: protocol.drop_state(
                self._lease.id, self._user.id, fence=self._lease.fence
            )
        )

    def or_from(self, make: Callable[[], S], expires_in: float | None) -> S:
        """The state, made if there is none: of several threads by one."""
        __tracebackhide__ = True
        with self._lock:
            if self._text is None:
                self._keep(make(), expires_in)
            state: S = self.value
            return state

    async def or_awaited_from(
        self, make: Callable[[], Awaitable[S]], expires_in: float | None
    ) -> S:
        """The state, made if there is none: of several tasks by one."""
        __tracebackhide__ = True
        from anyio import Event, to_thread  # noqa: PLC0415  # not before it is wanted

        while self._signing_in is not None:
            await self._signing_in.wait()
        if self._text is None:
            # Of the loop that runs now: the account may outlive it.
            over = self._signing_in = Event()
            try:
                await to_thread.run_sync(self._keep, await make(), expires_in)
            finally:
                self._signing_in = None
                over.set()
        state: S = self.value
        return state

    def _keep(self, state: State, expires_in: float | None) -> None:
        """Save a state, or go on with it alone where the server cannot."""
        __tracebackhide__ = True
        text = self._told(state)
        try:
            self._send(text, expires_in, patience=STATE_PATIENCE)
        except NOT_KEPT as error:
            self._note(f"logins are not kept for the next test: {error}")
        self._text = text

    def _told(self, state: State) -> str:
        """What is sent of a state, once it is known what to mask of it."""
        __tracebackhide__ = True
        self._learn(state)  # before anything can fail that shows it
        return _text_of(state)

    def _send(self, text: str, expires_in: float | None, *, patience: float) -> None:
        __tracebackhide__ = True
        self._hold(
            lambda protocol: protocol.save_state(
                self._lease.id,
                self._user.id,
                text,
                fence=self._lease.fence,
                expires_in=expires_in,
                patience=patience,
            )
        )

    def _hold(
        self, conversation: Callable[[LeaseProtocol], Conversation[None]]
    ) -> None:
        __tracebackhide__ = True
        try:
            with self._connect() as client:
                client.run(conversation(client.protocol))
        except BotfarmError as error:
            # Without the way through the client, whose variables have the state.
            raise error.with_traceback(None) from None


def _text_of(state: State) -> str:
    __tracebackhide__ = True
    if not isinstance(state, (str, dict, list)):
        raise TypeError(
            "the state of a login is text, or a dict or a list of what JSON can tell, "
            f"and not {type(state).__name__}"
        )
    try:
        return json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the state of a login is what JSON can tell: {error}"
        ) from None
    except RecursionError:
        raise TypeError(
            "the state of a login is what JSON can tell, and not so deeply nested"
        ) from None


def _state_of(text: str) -> Any:
    """The state of a text, which may be that of a client of another kind."""
    try:
        state = json.loads(text)
    except ValueError:
        return text
    return state if isinstance(state, (str, dict, list)) else text

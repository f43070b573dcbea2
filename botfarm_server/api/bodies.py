"""The bodies of calls: read whole, within bounds of size and time, and let go of."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
from fastapi import Request

from botfarm_server.domain.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    InvalidRequestError,
    UnsupportedBodyError,
)
from botfarm_server.services.lanes import Turn

ORDINARY = 65_536
"""Bytes of a body: many times what suites send."""
LARGER: Mapping[str, int | None] = {
    "leases_renew": 131_072,  # a thousand leases
    "pools_check": 262_144,  # fifty leases, each with wants of its own
    "users_create": 262_144,  # 64 KiB of secrets, of which JSON may make three times
    "users_change": 262_144,
    "users_import_all": None,
    "leases_save": None,
}
"""By operation what a body may have where that is more; `None` for what is set."""
MOST_BODIES = 16
"""As many of the largest bodies are held at once. A body becomes some twenty times as
large once it is read as JSON, which is done to one after the other."""
MOST_IN_SHARE = MOST_BODIES - 1
"""Of them those of one caller. The rest is for its bodies that wait for no other."""
LARGE = 16_384
"""Bytes of a body that takes so long to parse that other calls come in between."""
MOST_NAMES = 4_000
"""Names in all objects of a large body: twice those of the longest renewal. To refuse a
hundred thousand that are unknown would take seconds, in which no other call goes on."""
LONG_LISTS = {"users_import_all"}
"""Operations whose bodies may have more: those of admins alone."""
LINGER = 2.0
"""Seconds for which a refused body is still taken, and dropped: a connection that is
closed before the client has sent all may lose the answer on its way."""
MOST_PIECES = 16
"""Pieces in which a body may come before they count as small, where they are."""
SMALL_PIECE = 1_024
"""Bytes that a piece has to have on the average of all that have come by then."""
PAUSE = 0.1
"""Seconds until the rest is looked for of a body that comes in small pieces: to wake a
call for each byte costs the server more than its sender."""
_SOMETHING = b"{}"


class ReadRequest(Request):
    """A request whose body has come. Whoever parses it takes it away.

    FastAPI keeps what it is given for as long as the call lasts, which may wait.
    """

    def __init__(
        self, request: Request, content: bytearray, *, has_long_lists: bool
    ) -> None:
        super().__init__(request.scope, request.receive)
        self._content = content
        self._has_long_lists = has_long_lists

    async def body(self) -> bytes:
        """Whether there is one, as FastAPI asks before it has it parsed."""
        return _SOMETHING if self._content else b""

    async def json(self) -> Any:
        """What it says. Raises ValueError if that is no JSON.

        Raises:
            InvalidRequestError: it has too many names.

        """
        content, self._content = self._content, bytearray()
        if len(content) <= LARGE or self._has_long_lists:
            return json.loads(content)
        return json.loads(content, object_pairs_hook=_CountedNames().object_of)


class _CountedNames:
    def __init__(self) -> None:
        self._count = 0

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._count += len(pairs)
        if self._count > MOST_NAMES:
            raise InvalidRequestError(
                [("body", f"must have at most {MOST_NAMES} names of fields")]
            )
        return dict(pairs)


class _Share:
    """What one caller's bodies may have of the bound, by the lengths that they tell."""

    def __init__(self) -> None:
        self._expected = 0
        self._first = anyio.Lock()
        self._less = anyio.Event()

    async def take(self, size: int, most: int) -> None:
        """Wait until the caller's own bodies leave room; whoever came first has it."""
        async with self._first:
            while self._expected and self._expected + size > most:
                self._less = anyio.Event()
                await self._less.wait()
            self._expected += size

    def give_back(self, size: int) -> None:
        self._expected -= size
        self._less.set()


class Bodies:
    """The bodies that one process has not parsed yet, within a bound of them all.

    A caller's own wait for each other before they are read, but for small ones and
    those of calls that keep or end leases: slow uploads would hold them up. Beside
    those of others one too many ends one of the caller who has most, which is the one
    that has been there for the longest. A body that is no JSON by its header is refused
    unread, and so is a compressed one: nothing that is sent grows here.
    """

    def __init__(self, *, maximum: int, timeout: float) -> None:
        self._maximum = maximum
        self._timeout = timeout
        self._held: dict[anyio.CancelScope, tuple[Hashable, int]] = {}
        """Of whom each body is, and its bytes; the first first."""
        # Kept beside, not added up: a body may come in as many pieces as it has bytes.
        self._of_each: Counter[Hashable] = Counter()
        self._in_all = 0
        self._before_large = anyio.Lock()
        # A share is there for as long as a body waits for it or has a part of it.
        self._shares: WeakValueDictionary[Hashable, _Share] = WeakValueDictionary()

    def limit_of(self, operation: str) -> int:
        """How many bytes the body of a call may have."""
        return min(LARGER.get(operation, ORDINARY) or self._maximum, self._maximum)

    async def read(
        self,
        request: Request,
        operation: str,
        *,
        sender: Hashable,
        turn: Turn,
        has_reserve: bool = False,
    ) -> ReadRequest:
        """The call of an operation with its body, once the turn for that has begun.

        With `has_reserve` it waits for no other body of its sender.

        Raises:
            UnsupportedBodyError, BodyTooLargeError: by what the head or the body says.
            BodyTimeoutError: it takes too long, or too much is held.

        """
        limit = self.limit_of(operation)
        _check(request, limit)
        size = _announced(request, limit)
        if has_reserve or size <= LARGE:
            return await self._read(request, operation, sender=sender, turn=turn)
        share = self._shares.get(sender)
        if share is None:
            share = self._shares[sender] = _Share()
        with anyio.move_on_after(self._timeout) as waited:
            await share.take(size, MOST_IN_SHARE * self._maximum)
        if waited.cancelled_caught:
            raise BodyTimeoutError(self._timeout)
        try:
            return await self._read(request, operation, sender=sender, turn=turn)
        finally:
            share.give_back(size)

    async def _read(
        self, request: Request, operation: str, *, sender: Hashable, turn: Turn
    ) -> ReadRequest:
        limit = self.limit_of(operation)
        content = bytearray()
        with anyio.move_on_after(self._timeout) as held:
            try:
                more, pieces = True, 0
                while more:
                    if pieces > max(MOST_PIECES, len(content) // SMALL_PIECE):
                        await anyio.sleep(PAUSE)
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise BodyTimeoutError(self._timeout)  # for nobody to read
                    content += message.get("body", b"")
                    more, pieces = message.get("more_body", False), pieces + 1
                    if len(content) > limit:
                        raise BodyTooLargeError(limit)
                    self._hold(held, sender, len(content))
                held.deadline = math.inf
                await turn.begin()
                if len(content) > LARGE:
                    async with self._before_large:
                        await anyio.lowlevel.checkpoint()
                return ReadRequest(
                    request, content, has_long_lists=operation in LONG_LISTS
                )
            finally:
                self._let_go(held)
        raise BodyTimeoutError(self._timeout)

    def _hold(self, body: anyio.CancelScope, sender: Hashable, size: int) -> None:
        """Note what there is of a body, and make room for it."""
        _, before = self._held.get(body, (sender, 0))
        self._held[body] = (sender, size)
        self._of_each[sender] += size - before
        self._in_all += size - before
        while self._in_all > MOST_BODIES * self._maximum:
            first = self._first_of_most()
            self._let_go(first)
            first.cancel()

    def _let_go(self, body: anyio.CancelScope) -> None:
        """Forget a body; again is no error."""
        if body not in self._held:
            return
        sender, size = self._held.pop(body)
        self._in_all -= size
        self._of_each[sender] -= size
        if not self._of_each[sender]:
            del self._of_each[sender]

    def _first_of_most(self) -> anyio.CancelScope:
        [(most, _)] = self._of_each.most_common(1)
        return next(it for it, (sender, _) in self._held.items() if sender == most)


def has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or _announced(request, 0) > 0


def _announced(request: Request, otherwise: int) -> int:
    """The body's length by its header, which the parser has found to be a number.

    Python refuses to read more than some thousand digits, which may all be zeros.
    """
    digits = request.headers.get("content-length", str(otherwise))
    return int(digits.lstrip("0") or 0)


async def is_drained(request: Request) -> bool:
    """Drop what still comes of a body; whether its end has."""
    with anyio.move_on_after(LINGER):
        message = await request.receive()
        while message.get("more_body", False):
            message = await request.receive()
        return "body" in message
    return False


def _check(request: Request, limit: int) -> None:
    headers = request.headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" or not _is_json(headers.get("content-type", "")):
        raise UnsupportedBodyError
    if _announced(request, 0) > limit:
        raise BodyTooLargeError(limit)


def _is_json(content_type: str) -> bool:
    media_type = content_type.split(";", 1)[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )

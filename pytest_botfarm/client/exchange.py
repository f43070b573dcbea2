"""One request and its answer, without any I/O: sent again until there is one.

Each conversation with the server is a generator: it yields a `Request` to be sent or
a `Sleep` to be slept, and is sent a `Response`, a `TransportFailure`, a `Moved` or,
after a sleep, `None`. The synchronous and the asynchronous client drive the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from . import wire
from .clock import clock as the_clock
from .clock import jitter as the_jitter
from .errors import (
    AskAgainError,
    BotfarmError,
    BusyError,
    NoSuchPathError,
    NotABotfarmServerError,
    ProtocolVersionError,
    ServerNotReachableError,
    WrongAnswerError,
)

PROTOCOL = 1
CONNECT_TIME = 5.0
FIRST_CONTACT = 5.0
"""Seconds for which a server that never answered is tried: it may just be starting,
but the URL may as well be wrong. The first call of a wait is no longer than that, so
that a server soon is one that answered."""
RECONNECT = 30.0
"""Seconds for which a server that answered before is tried: a restart fits in."""
SAME_OUTAGE = 10.0
"""Seconds without a try after which a failure is of another outage."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
MAXIMUM_RETRY_AFTER = 30.0

_GATEWAY_STATUSES = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Request:
    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    body: wire.Json = field(repr=False)
    """Empty for none."""
    timeout: float
    """Seconds to wait for the answer."""
    connect: float = CONNECT_TIME
    """Seconds to wait for a connection, if that is less."""
    waits: float = 0.0
    """Seconds for which the server may be silent, since the call waits there."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    content: bytes


@dataclass(frozen=True, slots=True)
class TransportFailure:
    """No answer; whether the server saw the request is not known."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The same, but now it is known that the server is elsewhere."""

    url: str


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


T = TypeVar("T")
Effect = Request | Sleep
Outcomes = Response | TransportFailure | Moved | None
Conversation = Generator[Effect, Outcomes, T]


class Exchange:
    """What all conversations with one server do, and what they learned of it.

    Made for one process; the conversations of several threads may interleave.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = the_clock,
        jitter: Callable[[float, float], float] = the_jitter,
    ) -> None:
        self.url = url
        self.failures = 0
        """How many requests got no answer: what became of them is not known."""
        self.was_reached = False
        """Whether a Botfarm server ever answered."""
        self._clock = clock
        self._jitter = jitter
        self._silent_since = self._silent_until = -math.inf
        """From when until when nobody answered, whichever conversation asked."""

    def call(
        self,
        request: Request | Callable[[], Request],
        *,
        patience: float = math.inf,
        busy_until: float | None = None,
        over_by: float = math.inf,
    ) -> Conversation[tuple[float, Response]]:
        """Send until answered. Returns when the answered request was sent, too.

        A request that depends on the time is made each time that it is sent. Trouble
        is borne for `patience` seconds on end, though not beyond `over_by`, a busy
        server's 429 until `busy_until`. A server that has moved is asked there at once.
        """
        trouble_since = math.inf
        pause = FIRST_PAUSE
        while True:
            asked = self._clock()
            sent = request() if callable(request) else request
            outcome = yield sent
            if isinstance(outcome, Moved):
                self.url, trouble_since = outcome.url, math.inf
                self._silent_until = -math.inf
                self.failures += 1
                continue
            problem = self._judge(outcome)
            if isinstance(problem, Response):
                return asked, problem
            if isinstance(problem, ServerNotReachableError):
                self.failures += 1
            elif not isinstance(problem, AskAgainError):
                raise problem
            now = self._clock()
            began = min(now, asked + sent.waits)
            # Some proxies cut every call that is silent for long.
            was_borne = CONNECT_TIME < now - asked < sent.waits
            trouble_since = began if was_borne else min(trouble_since, began)
            if isinstance(problem, ServerNotReachableError):
                # What is asked later in an outage need not find out as slowly.
                since = self._note_silence(began, now, is_new=was_borne)
                trouble_since = min(trouble_since, since)
            borne_until = trouble_since + min(patience, self._longest_trouble())
            until = min(borne_until, over_by)
            if busy_until is not None and isinstance(problem, BusyError):
                until = busy_until
            seconds = self._jitter(pause / 2, pause)
            if isinstance(problem, AskAgainError):
                seconds += problem.retry_after
            if now + seconds > until:
                # Who asks next would have shorter pauses to try in.
                self._silent_since -= min(seconds, max(0.0, borne_until - now))
                raise problem
            yield Sleep(seconds)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _longest_trouble(self) -> float:
        return RECONNECT if self.was_reached else FIRST_CONTACT

    def _note_silence(self, began: float, now: float, *, is_new: bool) -> float:
        """Since when nobody can be reached; it is no longer so if nobody tries."""
        if is_new or began - self._silent_until > SAME_OUTAGE:
            self._silent_since = began
        self._silent_since = min(self._silent_since, began)
        self._silent_until = now
        return self._silent_since

    def _judge(
        self, outcome: Response | TransportFailure | None
    ) -> Response | BotfarmError:
        if not isinstance(outcome, Response):
            reason = outcome.reason if outcome else "nothing was sent"
            return ServerNotReachableError(url=self.url, reason=reason)
        theirs = outcome.headers.get("botfarm-protocol")
        if theirs is None:
            if outcome.status in _GATEWAY_STATUSES:
                reason = f"a proxy in front of it answers with status {outcome.status}"
                return ServerNotReachableError(url=self.url, reason=reason)
            return NotABotfarmServerError(url=self.url, status=outcome.status)
        if theirs != str(PROTOCOL):
            return ProtocolVersionError(url=self.url, theirs=theirs, ours=PROTOCOL)
        self.was_reached = True
        self._silent_until = -math.inf
        if outcome.status >= 400:
            error = wire.error_of(outcome.status, outcome.content)
            if isinstance(error, AskAgainError):
                error.retry_after = _retry_after(outcome)
            return error.at(self.url) if isinstance(error, NoSuchPathError) else error
        return outcome

    def read(self, response: Response, reader: Callable[[wire.Json], T]) -> T:
        return self.parse(response, lambda content: reader(wire.decode(content)))

    def parse(self, response: Response, reader: Callable[[bytes], T]) -> T:
        try:
            return reader(response.content)
        except wire.MALFORMED as error:
            problem = f"an answer is not of the protocol's form ({error!r})"
            raise self.wrong(problem) from None

    def wrong(self, problem: str) -> WrongAnswerError:
        return WrongAnswerError(
            f"The Botfarm server at {self.url} gave a wrong answer: {problem}.",
            url=self.url,
        )


def _retry_after(response: Response) -> float:
    header = response.headers.get("retry-after")
    try:
        return min(max(0.0, float(header or 0)), MAXIMUM_RETRY_AFTER)
    except ValueError:
        return 0.0

"""The client's side of the lease protocol, without any I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal
from urllib.parse import urlencode
from uuid import UUID, uuid4

from . import wire
from .errors import (
    AcquireTimeoutError,
    AskAgainError,
    LeaseEndedError,
    LeaseNotFoundError,
    ServerNotReachableError,
)
from .exchange import (
    FIRST_CONTACT,
    Conversation,
    Exchange,
    Request,
    Response,
    Sleep,
)
from .models import (
    Freed,
    Holder,
    Lease,
    Lost,
    NewUser,
    Outcome,
    PoolSize,
    Prospect,
    Renewed,
    Waiting,
    Want,
)

SLICE = 20.0
"""Seconds that one call waits: below the idle timeouts of common proxies (30 to 60 s),
so that an acquire which waits for minutes is not cut off."""
FIRST_WORD, NEXT_WORD = 3.0, 30.0
"""Seconds after which a wait is told of, and between that and the next time. Others
than the first are told when the call under way ends, so up to 20 s later."""
ANSWER_TIME = 10.0
"""Seconds within which an answer must begin, beyond what the call itself waits."""
RELEASE_PATIENCE = 5.0
"""Seconds for which a release is tried; its TTL ends a lease that was not released."""
RELEASE_BUSY = 30.0
"""Seconds for which it is sent again to a server that says when: half of the TTL that
others would wait for by default."""
STATE_PATIENCE = 5.0
"""Seconds for what no test depends on: to save a state by the way, to compare a
password."""
SHORTEST_SLICE = 0.5
"""Seconds; a `202` that comes back sooner is followed by a pause of this length."""
LAST_ANSWER = 0.7
"""Seconds that an answer has after the end of a wait that has an end."""
MAXIMUM_RENEWALS = 1_000
MAXIMUM_PROSPECTS, MAXIMUM_CHECKED, MAXIMUM_CHECK = 50, 100, 131_072
"""Leases of one check, wants of all of them, and bytes: half of what a server takes,
and twice what a lease has that can be asked for."""
MAXIMUM_PREFERRED = 100
"""Users that one call may name as those which it would like best."""

_GIVEN_UP = frozenset({"abandoned", "expired"})
"""How a lease ends that its client did not hear of in time, waiting or granted."""


class LeaseProtocol(Exchange):
    """All conversations with one server."""

    def acquire(
        self,
        lease_id: UUID,
        wants: Sequence[Want],
        holder: Holder,
        *,
        ttl: float,
        wait: float,
        prefer: Sequence[UUID] = (),
        ends: float | None = None,
        on_waiting: Callable[[Waiting], None] | None = None,
        since: float | None = None,
        keep_place: bool = False,
        anew: Callable[[], UUID] | None = None,
    ) -> Conversation[Lease]:
        """Ask until granted, for `wait` seconds in all.

        Users to `prefer` are granted rather than others if they are free and nobody
        waits. Whatever the trouble, it is over shortly after the instant `ends`.
        `on_waiting` hears of the wait after 3 s, and about every 30 s from then on.
        A lease that the server gave up while it could not be asked for is asked for
        under another id, which `anew` makes; it is at the end of the queue then.

        Raises AcquireTimeoutError when they are over, having given up the place in
        the queue; with `keep_place` it can be asked again soon, `since` then being the
        instant before it was asked first. After any other exception the lease may
        exist: release it.
        """
        asked_first = self._clock() if since is None else since
        over_by = math.inf if ends is None else ends
        wait_ends = min(self._clock() + wait, over_by)
        words = _Words(on_waiting, self._clock())

        def request() -> Request:
            now = self._clock()
            longest = SLICE if self.was_reached else FIRST_CONTACT
            slice_ = max(0.0, min(longest, wait_ends - now, words.first_within(now)))
            left = max(0.0, over_by - now)
            return Request(
                "PUT",
                f"/api/v1/leases/{lease_id}",
                wire.lease_body(
                    wants,
                    holder,
                    ttl=ttl,
                    wait=slice_,
                    prefer=prefer[:MAXIMUM_PREFERRED],
                ),
                min(slice_ + ANSWER_TIME, left + LAST_ANSWER),
                waits=slice_,
            )

        in_vain = 0.0
        while True:
            try:
                asked, response = yield from self.call(
                    request, busy_until=wait_ends, over_by=over_by
                )
            except LeaseEndedError as error:
                if anew is None or error.state not in _GIVEN_UP:
                    raise
                now = self._clock()
                in_vain, asked_first = in_vain + now - asked_first, now
                lease_id = anew()
                continue
            answered = self._clock()
            answer = self._told(response, wire.Times(asked_first, asked, answered))
            if answer.id != lease_id:
                raise self.wrong(f"asked for lease {lease_id}, told of {answer.id}")
            answer = replace(answer, waited=answer.waited + in_vain)
            if isinstance(answer, Lease):
                return (yield from self._with_states(answer))
            if answered >= wait_ends:
                if not keep_place:
                    yield from self.release(lease_id)
                raise AcquireTimeoutError(
                    wants,
                    waited=answer.waited,
                    blockers=answer.blockers,
                    matching=answer.matching,
                    asker=holder,
                )
            words.tell(answer, answered)
            if answered - asked < SHORTEST_SLICE < wait_ends - asked:
                yield Sleep(self._jitter(SHORTEST_SLICE / 2, SHORTEST_SLICE))

    def _told(self, response: Response, times: wire.Times) -> Lease | Waiting:
        if response.status == 200:
            return self.read(response, partial(wire.lease_of, times=times))
        return self.read(response, wire.waiting_of)

    def release(
        self,
        lease_id: UUID,
        *,
        fence: int | None = None,
        outcome: Outcome | None = None,
        clean: bool = True,
    ) -> Conversation[None]:
        """End a lease, held or waiting or not even known to the server.

        Raises LeaseEndedError if it had expired or been revoked before.
        """
        request = Request(
            "DELETE",
            f"/api/v1/leases/{lease_id}",
            {"outcome": outcome, "clean": clean, "fence": fence},
            ANSWER_TIME,
        )
        try:
            yield from self._end(request)
        except LeaseNotFoundError:
            return

    def keep(
        self, lease_id: UUID, fence: int, *, seconds: float, outcome: Outcome
    ) -> Conversation[float]:
        """Leave a held lease for a person to look at; for how many seconds still.

        Nothing renews it from now on, and the end of its run leaves it alone.

        Raises LeaseEndedError if it had expired or been revoked before.
        """
        request = Request(
            "POST",
            f"/api/v1/leases/{lease_id}/keep",
            {"fence": fence, "seconds": seconds, "outcome": outcome},
            ANSWER_TIME,
        )
        response = yield from self._end(request)
        return self.read(response, lambda content: float(content["expires_in"]))

    def renew(
        self, fences: Mapping[UUID, int], *, timeout: float = ANSWER_TIME
    ) -> Conversation[dict[UUID, Renewed | Lost]]:
        """Renew leases by id and fence. Tried once: the heartbeat has its own beat."""
        answers: dict[UUID, Renewed | Lost] = {}
        pairs = list(fences.items())
        for start in range(0, len(pairs), MAXIMUM_RENEWALS):
            part = pairs[start : start + MAXIMUM_RENEWALS]
            request = Request(
                "POST",
                "/api/v1/leases/renew",
                {"leases": [{"id": str(id_), "fence": fence} for id_, fence in part]},
                timeout,
            )
            _, response = yield from self.call(request, patience=0.0)
            told = self.read(
                response,
                lambda content: [wire.renewal_of(item) for item in content["leases"]],
            )
            if {item.id for item in told} != {id_ for id_, _ in part}:
                raise self.wrong("a renewal was answered for other leases")
            answers |= {item.id: item for item in told}
        return answers

    def release_holder(
        self,
        run_id: str,
        worker_id: str | None = None,
        *,
        outcome: Outcome,
        clean: bool,
    ) -> Conversation[list[Freed]]:
        """End all leases of a run, or of a worker of it. Returns those with users."""
        request = Request(
            "POST",
            "/api/v1/leases/release",
            {
                "run_id": run_id,
                "worker_id": worker_id,
                "outcome": outcome,
                "clean": clean,
            },
            ANSWER_TIME,
        )
        response = yield from self._end(request)
        return self.read(response, wire.freed_of)

    def _end(self, request: Request) -> Conversation[Response]:
        """Send what ends the use of leases, for which others may wait."""
        _, response = yield from self.call(
            request,
            patience=RELEASE_PATIENCE,
            busy_until=self._clock() + RELEASE_BUSY,
        )
        return response

    def verify_password(self, user_id: UUID, password: str) -> Conversation[bool]:
        """Whether it is the password of a user that is held.

        Raises TooManyAttemptsError if it was asked too often of late.
        """
        path = f"/api/v1/users/{user_id}/verify-password"
        request = Request("POST", path, {"password": password}, ANSWER_TIME)
        _, response = yield from self.call(request, patience=STATE_PATIENCE)
        return self.read(response, lambda content: content["matches"] is True)

    def quarantine(
        self, user_id: UUID, reason: str, author: str | None
    ) -> Conversation[None]:
        """Take a user out of rotation; its holder keeps it. Again is no error."""
        request = Request(
            "POST",
            f"/api/v1/users/{user_id}/quarantine",
            {
                "reason": wire.readable(reason),
                "author": author and wire.readable(author),
            },
            ANSWER_TIME,
        )
        yield from self.call(request)

    def pools(self, *, patience: float) -> Conversation[list[PoolSize]]:
        """The pools that have users in rotation.

        A server that is not there is tried for `patience` seconds.
        """
        request = Request("GET", "/api/v1/pools/", {}, ANSWER_TIME, patience)
        _, response = yield from self.call(request, patience=patience)
        return self.read(response, wire.pools_of)

    def check(
        self, leases: Sequence[Sequence[Want]], *, patience: float
    ) -> Conversation[list[Prospect]]:
        """What leases with these wants could count on, without asking for any.

        `patience` as for the pools.
        """
        told: list[Prospect] = []
        for part in _checked_together(leases):
            body = {"leases": part}
            path = "/api/v1/pools/check"
            request = Request("POST", path, body, ANSWER_TIME, patience)
            _, response = yield from self.call(request, patience=patience)
            told += self.read(response, wire.prospects_of)
        if len(told) != len(leases):
            raise self.wrong("a check was answered for other leases")
        return told

    def _with_states(self, lease: Lease) -> Conversation[Lease]:
        """The lease, with the states that were too large to come along.

        One that does not come in time is left out: who gets none makes it anew.
        """
        users, ends = [], self._clock() + STATE_PATIENCE
        for user in lease.users:
            if user.state_is_apart:
                state = yield from self._state_of(lease.id, user.id, ends=ends)
                users.append(replace(user, state=state))
            else:
                users.append(user)
        return replace(lease, users=tuple(users))

    def _state_of(
        self, lease_id: UUID, user_id: UUID, *, ends: float
    ) -> Conversation[str | None]:
        path = f"/api/v1/leases/{lease_id}/users/{user_id}/state"
        request = Request("GET", path, {}, STATE_PATIENCE)
        try:
            _, response = yield from self.call(
                request, patience=STATE_PATIENCE, over_by=ends
            )
        except (AskAgainError, ServerNotReachableError):
            return None
        return self.read(response, wire.state_of)

    def save_state(
        self,
        lease_id: UUID,
        user_id: UUID,
        state: str,
        *,
        fence: int,
        expires_in: float | None = None,
        patience: float = math.inf,
    ) -> Conversation[None]:
        """Leave a state for the next holders of a user, in place of the one before.

        Trouble is borne for `patience` seconds, if not for as long as of other calls.

        Raises LeaseEndedError if the user is not held by this lease any more, and
        NoSealingKeyError if the server keeps no states.
        """
        body = {"state": state, "fence": fence, "expires_in": expires_in}
        yield from self._about_state("PUT", lease_id, user_id, body, patience)

    def drop_state(
        self, lease_id: UUID, user_id: UUID, *, fence: int
    ) -> Conversation[None]:
        """Leave the next holders of a user no state. Again is no error."""
        yield from self._about_state("DELETE", lease_id, user_id, {"fence": fence})

    def _about_state(
        self,
        method: Literal["PUT", "DELETE"],
        lease_id: UUID,
        user_id: UUID,
        body: wire.Json,
        patience: float = math.inf,
    ) -> Conversation[None]:
        path = f"/api/v1/leases/{lease_id}/users/{user_id}/state"
        request = Request(method, path, body, ANSWER_TIME)
        yield from self.call(request, patience=patience)

    def count_free(self, want: Want) -> Conversation[int]:
        """How many free users match a want; not more than it asks for are counted."""
        query: list[tuple[str, str | int]] = [
            *(("env", want.env), ("domain", want.domain), ("state", "free")),
            *(("label", f"{name}={text}") for name, text in want.labels.items()),
        ]
        if want.project_id is not None:
            query.append(("project_id", str(want.project_id)))
        count, further = 0, list[tuple[str, str]]()
        while True:
            asked = urlencode([*query, ("limit", want.count - count), *further])
            path = f"/api/v1/users?{asked}"
            _, response = yield from self.call(Request("GET", path, {}, ANSWER_TIME))
            count += self.parse(response, wire.count_of)
            # A page of users with long labels ends early.
            cursor = response.headers.get("botfarm-next-cursor")
            if cursor is None or count >= want.count:
                return count
            further = [("cursor", cursor)]

    def reserve(self, want: Want, *, limit: int) -> Conversation[UUID]:
        """Reserve a place for a user that is to be made for a want. Returns its id.

        Raises PoolFullError if the pool has `limit` users and places already, and
        TooManyPlacesError where so many are being made with this token.
        """
        reservation_id = uuid4()
        body = wire.reservation_body(reservation_id, want, limit=limit)
        yield from self.call(Request("POST", "/api/v1/reservations", body, ANSWER_TIME))
        return reservation_id

    def give_place_back(self, reservation_id: UUID) -> Conversation[None]:
        """Free a place that was reserved and is not needed. Again is no error."""
        path = f"/api/v1/reservations/{reservation_id}"
        request = Request("DELETE", path, {}, ANSWER_TIME)
        yield from self.call(request, patience=RELEASE_PATIENCE)

    def create_user(
        self, want: Want, new: NewUser, reservation_id: UUID
    ) -> Conversation[None]:
        """Store a user in the place that was reserved for it."""
        body = wire.new_user_body(want, new, reservation_id=reservation_id)
        yield from self.call(Request("POST", "/api/v1/users", body, ANSWER_TIME))


class _Words:
    """Tells of a wait, where somebody listens, now and then."""

    def __init__(
        self, listener: Callable[[Waiting], None] | None, since: float
    ) -> None:
        self._listener = listener
        self._first = self._next = since + FIRST_WORD

    def first_within(self, now: float) -> float:
        """Seconds until the first word, for which the answer of a call is needed."""
        is_to_come = self._listener is not None and self._next == self._first
        return self._first - now if is_to_come else math.inf

    def tell(self, waiting: Waiting, now: float) -> None:
        if self._listener is not None and now >= self._next:
            self._listener(waiting)
            self._next += NEXT_WORD


def _checked_together(leases: Sequence[Sequence[Want]]) -> Iterator[list[wire.Json]]:
    """The leases as a check has them, in as few parts as a server takes."""
    part: list[wire.Json] = []
    number = size = 0
    for wants in leases:
        lease: wire.Json = {"wants": wire.wants_body(wants)}
        own = len(json.dumps(lease))
        if part and (
            len(part) == MAXIMUM_PROSPECTS
            or number + len(wants) > MAXIMUM_CHECKED
            or size + own > MAXIMUM_CHECK
        ):
            yield part
            part, number, size = [], 0, 0
        part.append(lease)
        number += len(wants)
        size += own
    if part:
        yield part

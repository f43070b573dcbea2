"""What can be refused, and why.

    BotfarmError
    ├── DuplicateUserError
    ├── NotFoundError
    │   ├── UserNotFoundError
    │   ├── LeaseNotFoundError
    │   ├── ReservationNotFoundError
    │   └── TokenNotFoundError
    ├── InvalidRequestError
    ├── BodyTooLargeError
    ├── UnsupportedBodyError
    ├── BodyTimeoutError
    ├── UserLockedError
    ├── NoSuchPoolError
    ├── PoolTooSmallError
    ├── PoolFullError
    ├── TooManyPlacesError
    ├── LeaseMismatchError
    ├── NoSealingKeyError
    ├── DeadlockError
    ├── LeaseEndedError
    ├── UnauthorizedError
    │   ├── TokenMistypedError
    │   ├── TokenExpiredError
    │   └── TokenRevokedError
    ├── TooManyWrongTokensError
    ├── HostNotAllowedError
    ├── ForbiddenError
    ├── TooManyWaitingError
    ├── TooManyAttemptsError
    ├── TooManyRequestsError
    ├── SecretUnreadableError
    └── UnavailableError
        ├── DatabaseUnavailableError
        ├── SchemaMismatchError
        ├── HashingBusyError
        └── ShuttingDownError

An error carries facts; its `code` is what programs rely on and its `detail` what a
person acts on. Which HTTP status it becomes is decided in `api/errors.py` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from botfarm_server.domain.models import (
    EndedState,
    Holder,
    KnotMember,
    LeaseId,
    PassedOnUser,
    Quarantined,
    ReservationId,
    Role,
    UserId,
    Want,
)
from botfarm_server.domain.wording import (
    counted,
    describe_member,
    describe_quarantined,
    describe_want,
)


@dataclass
class BotfarmError(Exception):
    """The root of all refusals. Its fields are the facts that clients are told."""

    code: ClassVar[str] = "internal_error"

    @property
    def detail(self) -> str:
        """A sentence that says what was wrong and what to do next."""
        return "Something went wrong."

    @property
    def facts(self) -> Mapping[str, Any]:
        """Plain values, to be told beside the code and the detail."""
        return {}

    def __str__(self) -> str:
        return self.detail


@dataclass
class DuplicateUserError(BotfarmError):
    code: ClassVar[str] = "duplicate_user"
    login: str
    env: str
    of_import: bool = False
    """Whether it keeps out all that were to be imported with it, since its project is
    another one than the caller's."""

    @property
    def detail(self) -> str:
        if self.of_import:
            return (
                f"A user with login {self.login!r} already exists in env "
                f"{self.env!r}, of a project that this token does not know, so none of "
                "these users was imported. Choose another login, or ask an admin of "
                "all projects to import, move or remove that user."
            )
        return (
            f"A user with login {self.login!r} already exists in env {self.env!r}. "
            "Change that one instead, or choose another login."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"login": self.login, "env": self.env}


@dataclass
class NotFoundError(BotfarmError):
    pass


@dataclass
class UserNotFoundError(NotFoundError):
    code: ClassVar[str] = "user_not_found"
    user_id: UUID
    lease_id: UUID | None = None
    """Where it was looked for, if not among all."""

    @property
    def detail(self) -> str:
        where = f" in lease {self.lease_id}" if self.lease_id is not None else ""
        return f"There is no user {self.user_id}{where}."

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"user_id": self.user_id}


@dataclass
class LeaseNotFoundError(NotFoundError):
    code: ClassVar[str] = "lease_not_found"
    lease_id: UUID

    @property
    def detail(self) -> str:
        return f"There is no lease {self.lease_id}, or it ended long ago."

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"lease_id": self.lease_id}


@dataclass
class ReservationNotFoundError(NotFoundError):
    code: ClassVar[str] = "reservation_not_found"
    reservation_id: ReservationId

    @property
    def detail(self) -> str:
        return (
            f"There is no reservation {self.reservation_id}: it has expired, was used "
            "or was given back. Reserve a place anew."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"reservation_id": self.reservation_id}


@dataclass
class TokenNotFoundError(NotFoundError):
    code: ClassVar[str] = "token_not_found"
    token_id: UUID

    @property
    def detail(self) -> str:
        return f"There is no token {self.token_id}."

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"token_id": self.token_id}


@dataclass
class InvalidRequestError(BotfarmError):
    """A request whose fields are well-formed, but say what this server refuses."""

    code: ClassVar[str] = "invalid_request"
    errors: Sequence[tuple[str, str]]
    """Pairs of a field's name and what is wrong with it, without its value."""

    @property
    def detail(self) -> str:
        listed = "; ".join(f"{name}: {message}" for name, message in self.errors)
        return f"The request was refused: {listed}."

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "errors": [
                {"field": name, "message": message} for name, message in self.errors
            ]
        }


@dataclass
class BodyTooLargeError(BotfarmError):
    code: ClassVar[str] = "body_too_large"
    limit: int

    @property
    def detail(self) -> str:
        return (
            f"A body may have {self.limit} bytes in this call, and this one has more. "
            "Send less with one call; of imports and of kept states, "
            "BOTFARM_MAX_BODY_BYTES on the server allows more."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"limit": self.limit}


@dataclass
class UnsupportedBodyError(BotfarmError):
    code: ClassVar[str] = "unsupported_media_type"

    @property
    def detail(self) -> str:
        return (
            "A body is JSON and not compressed: send it with "
            "`Content-Type: application/json` and without `Content-Encoding`."
        )


@dataclass
class BodyTimeoutError(BotfarmError):
    code: ClassVar[str] = "body_timeout"
    retry_after: ClassVar[int] = 1
    seconds: float

    @property
    def detail(self) -> str:
        return (
            f"The body did not arrive within {self.seconds:g} s, or sooner where many "
            "large ones arrive at once. Send it again."
        )


@dataclass
class UserLockedError(BotfarmError):
    code: ClassVar[str] = "user_locked"
    user_id: UserId
    reason: str
    holder: Holder | None = None

    @property
    def detail(self) -> str:
        return f"User {self.user_id} is locked: {self.reason}."

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"user_id": self.user_id, "holder": self.holder}


@dataclass
class NoSuchPoolError(BotfarmError):
    """No user in rotation could ever meet a want, so waiting could not end."""

    code: ClassVar[str] = "no_such_pool"
    wants: Sequence[Want]
    pools: Sequence[Mapping[str, Any]]
    """The nearest pools that exist: `{env, domain, users}`, nearest first."""
    quarantined: Quarantined = field(default_factory=Quarantined)

    @property
    def detail(self) -> str:
        asked = " and ".join(describe_want(want) for want in self.wants)
        return f"No user in rotation matches {asked}. {self._way_out()}"

    def _way_out(self) -> str:
        if self.quarantined.count:
            return describe_quarantined(self.quarantined)
        if not self.pools:
            return (
                "Nor is there any other that you could ask for. Add users to the pool "
                "file, or with `botfarm users import`."
            )
        nearest = ", ".join(
            f"{pool['env']}/{pool['domain']} ({counted(pool['users'], 'user')})"
            for pool in self.pools
        )
        return (
            f"Pools that exist: {nearest}. Ask for one of these, or add users to the "
            "pool file or with `botfarm users import`."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "wants": [describe_want(want) for want in self.wants],
            "pools": list(self.pools),
            "quarantined": self.quarantined,
        }


@dataclass
class PoolTooSmallError(BotfarmError):
    """More users are asked for at once than are in rotation."""

    code: ClassVar[str] = "pool_too_small"
    wants: Sequence[Want]
    asked: int
    existing: int
    quarantined: Quarantined = field(default_factory=Quarantined)

    @property
    def detail(self) -> str:
        asked = " and ".join(describe_want(want) for want in self.wants)
        way_out = (
            describe_quarantined(self.quarantined)
            if self.quarantined.count
            else "Add users, or ask for fewer."
        )
        return (
            f"{asked} asks for {self.asked} users at once, and only {self.existing} "
            f"in rotation could meet it. {way_out}"
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "asked": self.asked,
            "existing": self.existing,
            "quarantined": self.quarantined,
        }


@dataclass
class PoolFullError(BotfarmError):
    """No place is left for a user that is still to be made."""

    code: ClassVar[str] = "pool_full"
    pool: Want
    limit: int
    existing: int
    reserved: int

    @property
    def detail(self) -> str:
        return (
            f"{describe_want(self.pool)} may have {self.limit} users, and it has "
            f"{self.existing}, with {self.reserved} more being made. "
            "Wait for one of them, or raise the limit."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "limit": self.limit,
            "existing": self.existing,
            "reserved": self.reserved,
        }


@dataclass
class TooManyPlacesError(BotfarmError):
    """A caller has as many places reserved as one may have."""

    code: ClassVar[str] = "too_many_places"
    limit: int

    @property
    def detail(self) -> str:
        return (
            f"This token has {self.limit} places reserved, as many as one may have at "
            "once. Make the users that they are for, give some back, or wait: each is "
            "free again after some minutes."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"limit": self.limit}


@dataclass
class LeaseMismatchError(BotfarmError):
    code: ClassVar[str] = "lease_mismatch"
    lease_id: LeaseId
    what: str = "wants"

    @property
    def detail(self) -> str:
        return (
            f"Lease {self.lease_id} was asked for before with another {self.what}. "
            "Use a new id for a new lease."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"lease_id": self.lease_id}


@dataclass
class NoSealingKeyError(BotfarmError):
    """The server was asked to keep what it keeps sealed or not at all."""

    code: ClassVar[str] = "no_sealing_key"

    @property
    def detail(self) -> str:
        return (
            "This server keeps no state of a user, since it could not seal it. Set "
            "BOTFARM_SECRET_KEYS; `botfarm secrets generate-key` prints a key."
        )


@dataclass
class DeadlockError(BotfarmError):
    """Every user that the lease waits for is with holders that wait themselves."""

    code: ClassVar[str] = "deadlock"
    lease_id: LeaseId
    knot: Sequence[KnotMember]

    @property
    def detail(self) -> str:
        told, whose = "these tests wait for accounts that only they have", "The"
        if self._is_of_one_worker:
            told, whose = "a worker waits for accounts that only it has itself", "Its"
        members = "; ".join(describe_member(member) for member in self.knot)
        has_others = any({*it.leased_for} - {None, it.test_id} for it in self.knot)
        return (
            f"Deadlock: {told}. {members}. {whose} youngest wait was ended. "
            f"{'Use what is leased already, ask' if has_others else 'Ask'} for all "
            "accounts of a test at once, with count=2 or a mark for each "
            "(@pytest.mark.bot_user), or add accounts."
        )

    @property
    def _is_of_one_worker(self) -> bool:
        workers = {(it.run_id, it.worker_id) for it in self.knot}
        # Those that are not named may be several.
        return len(self.knot) == 1 or (
            len(workers) == 1 and (None, None) not in workers
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"lease_id": self.lease_id, "knot": list(self.knot)}


@dataclass
class LeaseEndedError(BotfarmError):
    code: ClassVar[str] = "lease_ended"
    lease_id: LeaseId
    state: EndedState
    ended_ago: float
    reason: str | None = None
    users: Sequence[PassedOnUser] = ()

    @property
    def detail(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return (
            f"Lease {self.lease_id} ended {self.ended_ago:.1f} s ago "
            f"({self.state}{why}). Its users may have other holders now."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {
            "lease_id": self.lease_id,
            "state": self.state,
            "ended_ago": self.ended_ago,
            "users": list(self.users),
        }


@dataclass
class UnauthorizedError(BotfarmError):
    code: ClassVar[str] = "unauthorized"

    @property
    def detail(self) -> str:
        return (
            "This server asks for a token, and the request carries none or a wrong "
            "one. Set BOTFARM_TOKEN to one that an admin gives you (`botfarm tokens "
            "create`)."
        )


@dataclass
class TokenMistypedError(UnauthorizedError):
    code: ClassVar[str] = "token_mistyped"

    @property
    def detail(self) -> str:
        return (
            "The token is mistyped or cut off: its checksum does not fit. Copy it "
            "anew, as `botfarm tokens create` has shown it."
        )


@dataclass
class TokenExpiredError(UnauthorizedError):
    code: ClassVar[str] = "token_expired"
    name: str

    @property
    def detail(self) -> str:
        return f"The token {self.name!r} has expired. Ask an admin for a new one."


@dataclass
class TokenRevokedError(UnauthorizedError):
    code: ClassVar[str] = "token_revoked"
    name: str

    @property
    def detail(self) -> str:
        return f"The token {self.name!r} was revoked. Ask an admin for a new one."


@dataclass
class TooManyWrongTokensError(BotfarmError):
    code: ClassVar[str] = "too_many_wrong_tokens"
    retry_after: int
    """Whole seconds."""

    @property
    def detail(self) -> str:
        return (
            "The token is wrong or has ended, as those of many requests before it from "
            "the same address. Set BOTFARM_TOKEN to a token of this server."
        )


@dataclass
class HostNotAllowedError(BotfarmError):
    code: ClassVar[str] = "host_not_allowed"

    @property
    def detail(self) -> str:
        return (
            "This server does not answer under the host name of this request. It has "
            "those that BOTFARM_ALLOWED_HOSTS lists."
        )


@dataclass
class ForbiddenError(BotfarmError):
    code: ClassVar[str] = "forbidden"
    reason: str
    needed: Role | None = None
    """The role that may."""

    @property
    def detail(self) -> str:
        return self.reason

    @property
    def facts(self) -> Mapping[str, Any]:
        return {} if self.needed is None else {"needed": self.needed}


@dataclass
class TooManyWaitingError(BotfarmError):
    code: ClassVar[str] = "too_many_waiting"
    retry_after: ClassVar[int] = 1
    limit: int
    of_token: bool = False
    """Whether the limit is that of each token, and not of all together."""

    @property
    def detail(self) -> str:
        if self.of_token:
            return (
                f"As many calls of this token wait at this server as it takes "
                f"({self.limit}). Ask again shortly, run fewer tests at once, or raise "
                "BOTFARM_MAX_WAITING_PER_TOKEN."
            )
        return (
            f"As many calls wait at this server as it takes ({self.limit}). Ask again "
            "shortly, run fewer tests at once, or raise BOTFARM_MAX_WAITING."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"limit": self.limit}


@dataclass
class TooManyRequestsError(BotfarmError):
    code: ClassVar[str] = "too_many_requests"
    retry_after: ClassVar[int] = 1
    limit: int
    """Requests a second, or of those that wait for their turn."""
    at_once: bool = False

    @property
    def detail(self) -> str:
        if self.at_once:
            return (
                "As many requests wait for their turn at this server as it takes of a "
                f"token, or of an address without one that it knows ({self.limit}). "
                "Ask again shortly."
            )
        return (
            f"This token has sent more than {self.limit} requests a second to this "
            "server for a while. Ask again shortly."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"limit": self.limit}


@dataclass
class TooManyAttemptsError(BotfarmError):
    """A password was compared too often: it might be guessed."""

    code: ClassVar[str] = "too_many_attempts"
    user_id: UserId
    retry_after: int
    """Seconds."""

    @property
    def detail(self) -> str:
        return (
            f"The password of user {self.user_id} was compared too often within a "
            f"minute. Try again in {self.retry_after} s."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"user_id": self.user_id}


@dataclass
class SecretUnreadableError(BotfarmError):
    """A stored secret does not open, so that its user cannot be leased."""

    code: ClassVar[str] = "secret_unreadable"
    user_id: UserId
    key: str
    """The name of the key that sealed it."""
    has_key: bool

    @property
    def detail(self) -> str:
        if self.has_key:
            return (
                f"A secret of user {self.user_id} does not open with key {self.key}, "
                "which sealed it: it was changed in the database, or is another "
                "user's. Import the user again."
            )
        return (
            f"A secret of user {self.user_id} was sealed with key {self.key}, which "
            "this server does not have. Add that key to BOTFARM_SECRET_KEYS, behind "
            "the newest; if it is lost, import the user again with another key set."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"user_id": self.user_id, "key": self.key}


@dataclass
class UnavailableError(BotfarmError):
    """The request may be sent again; nothing is known to be wrong with it."""

    retry_after: ClassVar[int] = 1


@dataclass
class DatabaseUnavailableError(UnavailableError):
    code: ClassVar[str] = "database_unavailable"
    why: str = field(default="it does not answer")

    @property
    def detail(self) -> str:
        return f"The server cannot use its database: {self.why}. Ask again shortly."


@dataclass
class SchemaMismatchError(UnavailableError):
    code: ClassVar[str] = "schema_mismatch"
    found: str | None
    expected: str

    @property
    def detail(self) -> str:
        found = f"at revision {self.found}" if self.found else "without a schema"
        return (
            f"The database is {found}, and this server needs {self.expected}. "
            "Run `botfarm db upgrade`, or start the server's matching version."
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"found": self.found, "expected": self.expected}


@dataclass
class HashingBusyError(UnavailableError):
    code: ClassVar[str] = "hashing_busy"

    @property
    def detail(self) -> str:
        return (
            "This server hashes as many passwords as it takes, of all callers or of "
            "one token. Ask again shortly."
        )


@dataclass
class ShuttingDownError(UnavailableError):
    code: ClassVar[str] = "shutting_down"

    @property
    def detail(self) -> str:
        return "This server is shutting down. Ask again: another one will answer."

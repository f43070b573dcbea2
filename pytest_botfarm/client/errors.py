"""Everything that can go wrong between a test and the server.

BotfarmError
├── ConnectionProblem             no usable answer
│   ├── ServerNotReachableError   nobody answers at the URL
│   ├── CertificateError          the server's certificate is not accepted, or ours
│   ├── NotABotfarmServerError    something else answers at the URL
│   ├── ProtocolVersionError      the server speaks another version of the protocol
│   └── WrongAnswerError          an answer that does not belong to its request
├── ServerError                   the server refused; also any code unknown here
│   ├── DuplicateUserError        400 duplicate_user
│   ├── HostNotAllowedError       400 host_not_allowed
│   ├── UnauthorizedError         401 unauthorized
│   │   ├── TokenMistypedError    401 token_mistyped
│   │   ├── TokenExpiredError     401 token_expired
│   │   ├── TokenRevokedError     401 token_revoked
│   │   └── TooManyWrongTokensError  429 too_many_wrong_tokens
│   ├── ForbiddenError            403 forbidden
│   ├── NoSuchPathError           404 not_found
│   ├── MethodNotAllowedError     405 method_not_allowed
│   ├── NoSuchPoolError           404 no_such_pool
│   ├── UserNotFoundError         404 user_not_found
│   ├── LeaseNotFoundError        404 lease_not_found
│   ├── ReservationNotFoundError  404 reservation_not_found
│   ├── TokenNotFoundError        404 token_not_found
│   ├── PoolTooSmallError         409 pool_too_small
│   ├── PoolFullError             409 pool_full
│   ├── TooManyPlacesError        409 too_many_places
│   ├── UserLockedError           409 user_locked
│   ├── LeaseMismatchError        409 lease_mismatch
│   ├── NoSealingKeyError         409 no_sealing_key
│   ├── DeadlockError             409 deadlock
│   ├── LeaseEndedError           410 lease_ended
│   ├── BodyTooLargeError         413 body_too_large
│   ├── UnsupportedBodyError      415 unsupported_media_type
│   ├── InvalidRequestError       422 invalid_request
│   ├── InternalServerError       500 internal_error
│   ├── SecretUnreadableError     500 secret_unreadable
│   ├── TooManyAttemptsError      429 too_many_attempts
│   └── AskAgainError             repeated by the client for a while
│       ├── BodyTimeoutError           408 body_timeout
│       ├── BusyError                  told when to ask again
│       │   ├── TooManyWaitingError        429 too_many_waiting
│       │   └── TooManyRequestsError       429 too_many_requests
│       ├── DatabaseUnavailableError   503 database_unavailable
│       ├── SchemaMismatchError        503 schema_mismatch
│       ├── HashingBusyError           503 hashing_busy
│       └── ShuttingDownError          503 shutting_down
├── AcquireTimeoutError           no user became free in time
├── LeaseLostError                a lease ended before its test did
├── PasswordNotHeldError          the server holds the hash of a password alone
├── WrongPasswordError            a hook supplied another than the one of that hash
└── SecretNotHeldError            an account has no such secret, or none that will do
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .models import (
    Blocker,
    Holder,
    Matching,
    PassedOn,
    PoolSize,
    Quarantined,
    Want,
)
from .wording import timeout_message

ADVICE = "Wait longer (wait=…), add accounts to the pool, or lease fewer at once."
"""What a program may do that no account became free for."""
_OF_A_WANT = re.compile(r"^wants\[\d+\]\.")

E = TypeVar("E", bound="BotfarmError")


def public(kind: type[E]) -> type[E]:
    """Let reports and tracebacks name an error as it is imported."""
    kind.__module__ = "pytest_botfarm"
    return kind


def _remade(kind: type[E], told: tuple[object, ...], facts: dict[str, Any]) -> E:
    error = kind.__new__(kind, *told)
    vars(error).update(facts)
    return error


@public
class BotfarmError(Exception):
    """The root of all errors that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process, in which no `__init__` makes the message anew."""
        return _remade, (type(self), self.args, vars(self))


class ConnectionProblem(BotfarmError):  # noqa: N818  # a family, never raised itself
    """No usable answer came from the URL."""

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


@public
class ServerNotReachableError(ConnectionProblem):
    """Nobody answers at the URL, or only a proxy that cannot reach the server."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(
            f"The Botfarm server at {url} cannot be reached: {reason}. "
            "Is it running, and is the URL right?",
            url=url,
        )
        self.reason = reason


class CertificateError(ConnectionProblem):
    """One side does not accept the other's certificate."""


class NotABotfarmServerError(ConnectionProblem):
    """What answers at the URL does not speak the lease protocol."""

    def __init__(self, *, url: str, status: int) -> None:
        super().__init__(
            f"What answers at {url} (with status {status}) is not a Botfarm server: "
            "its answer lacks the header Botfarm-Protocol. Check the URL.",
            url=url,
        )
        self.status = status


class ProtocolVersionError(ConnectionProblem):
    """The server is of another generation than this client."""

    def __init__(self, *, url: str, theirs: str, ours: int) -> None:
        older = "the server" if theirs.isdigit() and int(theirs) < ours else "this side"
        super().__init__(
            f"The Botfarm server at {url} speaks protocol {theirs}, this plugin "
            f"protocol {ours}. Upgrade {older} "
            "(`pip install --upgrade pytest-botfarm`).",
            url=url,
        )
        self.theirs = theirs
        self.ours = ours


class WrongAnswerError(ConnectionProblem):
    """An answer that does not belong to its request, or has not its form."""


@public
class ServerError(BotfarmError):
    """The server refused a request; `detail` says why in a sentence."""

    code: str = ""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code or self.code
        self.facts: Mapping[str, Any] = facts or {}


class DuplicateUserError(ServerError):
    """A user of this login exists in the env."""

    code = "duplicate_user"


class HostNotAllowedError(ServerError):
    """The server does not answer under the host name that the URL has."""

    code = "host_not_allowed"


class UnauthorizedError(ServerError):
    """The token is missing or not one of the server's."""

    code = "unauthorized"


class TokenMistypedError(UnauthorizedError):
    """The token's checksum does not fit: it is cut off or changed."""

    code = "token_mistyped"


class TokenExpiredError(UnauthorizedError):
    """The token's time is over."""

    code = "token_expired"


class TokenRevokedError(UnauthorizedError):
    """An admin has ended the token."""

    code = "token_revoked"


class TooManyWrongTokensError(UnauthorizedError):
    """The token is wrong, and so were many others from the same address."""

    code = "too_many_wrong_tokens"


class ForbiddenError(ServerError):
    """The token does not allow this."""

    code = "forbidden"

    @property
    def needed(self) -> str | None:
        """The role that a token needs for it."""
        return self.facts.get("needed")


class NoSuchPathError(ServerError):
    """The server's API is not where the URL says."""

    code = "not_found"

    def at(self, url: str) -> NoSuchPathError:
        """The same, with what to do about the URL in place of the server's words."""
        detail = (
            f"The Botfarm server that answers at {url} has no such path. "
            "--botfarm-url (or BOTFARM_URL) takes the server's address, like "
            "https://botfarm.example.com."
        )
        return NoSuchPathError(detail, status=self.status, facts={"url": url})


class MethodNotAllowedError(ServerError):
    """A path of the server's API that does not take this method."""

    code = "method_not_allowed"


@public
class NoSuchPoolError(ServerError):
    """No user in rotation could ever match."""

    code = "no_such_pool"

    @property
    def pools(self) -> tuple[PoolSize, ...]:
        """The pools that exist."""
        return tuple(self.facts.get("pools", ()))

    @property
    def quarantined(self) -> Quarantined:
        """The users that would match if they were not in quarantine."""
        return _quarantined(self)


class UserNotFoundError(ServerError):
    """There is no user of this id."""

    code = "user_not_found"


class LeaseNotFoundError(ServerError):
    """There is no lease of this id."""

    code = "lease_not_found"


class ReservationNotFoundError(ServerError):
    """The place for a new user has expired, was used or was given back."""

    code = "reservation_not_found"


class TokenNotFoundError(ServerError):
    """There is no token of this id."""

    code = "token_not_found"


@public
class PoolTooSmallError(ServerError):
    """More users are asked for than exist."""

    code = "pool_too_small"

    @property
    def asked(self) -> int | None:
        return self.facts.get("asked")

    @property
    def existing(self) -> int | None:
        return self.facts.get("existing")

    @property
    def quarantined(self) -> Quarantined:
        """The users that would do as well if they were not in quarantine."""
        return _quarantined(self)


class PoolFullError(ServerError):
    """The pool has as many users, or places for new ones, as it may have."""

    code = "pool_full"

    @property
    def is_being_filled(self) -> bool:
        """Whether somebody is making a user at the moment."""
        return int(self.facts.get("reserved", 0)) > 0


class TooManyPlacesError(ServerError):
    """As many users are being made with this token as may be at once."""

    code = "too_many_places"


class UserLockedError(ServerError):
    """Someone else holds the user."""

    code = "user_locked"


class LeaseMismatchError(ServerError):
    """The lease's id is in use for another want."""

    code = "lease_mismatch"


@public
class NoSealingKeyError(ServerError):
    """The server keeps no state of a user, since it has no key to seal it with."""

    code = "no_sealing_key"


@public
class DeadlockError(ServerError):
    """Every user that could be granted is held by holders that wait themselves."""

    code = "deadlock"


@public
class LeaseEndedError(ServerError):
    """The lease has expired or was revoked."""

    code = "lease_ended"

    @property
    def state(self) -> str:
        return str(self.facts.get("state", "unknown"))

    @property
    def ended_ago(self) -> float | None:
        return self.facts.get("ended_ago")

    @property
    def users(self) -> tuple[PassedOn, ...]:
        """The users that the lease had, and who has them now."""
        return tuple(self.facts.get("users", ()))


class BodyTooLargeError(ServerError):
    """The request has more bytes than the server takes."""

    code = "body_too_large"


class UnsupportedBodyError(ServerError):
    """The request's body is not sent as JSON."""

    code = "unsupported_media_type"


@public
class InvalidRequestError(ServerError):
    """A field of the request is not what it must be."""

    code = "invalid_request"

    def __str__(self) -> str:
        """What is wrong, without where in the request: nobody has written that."""
        errors: Sequence[Mapping[str, str]] = self.facts.get("errors", ())
        problems = dict.fromkeys(
            f"{_OF_A_WANT.sub('', error['field'])}: {error['message']}"
            for error in errors
        )
        told = "; ".join(problems)
        return f"The server refused this: {told}." if told else self.detail


class InternalServerError(ServerError):
    """A defect of the server; its log has more under the incident's number."""

    code = "internal_error"

    @property
    def incident(self) -> str | None:
        return self.facts.get("incident")


class SecretUnreadableError(ServerError):
    """A secret was sealed with a key that the server no longer has."""

    code = "secret_unreadable"


class TooManyAttemptsError(ServerError):
    """The password of a user was compared too often within a minute."""

    code = "too_many_attempts"


class AskAgainError(ServerError):
    """A refusal that is expected to pass."""

    retry_after: float = 0.0
    """Seconds that the server asks to stay away, within reason."""


class BodyTimeoutError(AskAgainError):
    """The request came too slowly for the server to wait for its end."""

    code = "body_timeout"


class BusyError(AskAgainError):
    """The server takes no more of this for now."""


class TooManyWaitingError(BusyError):
    """The server has as many waiting calls as it takes."""

    code = "too_many_waiting"


class TooManyRequestsError(BusyError):
    """The token has sent more requests than the server takes from one."""

    code = "too_many_requests"


class DatabaseUnavailableError(AskAgainError):
    """The server has lost its database for now."""

    code = "database_unavailable"


class SchemaMismatchError(AskAgainError):
    """The server's database is not migrated to its version."""

    code = "schema_mismatch"


class HashingBusyError(AskAgainError):
    """The server hashes as many passwords as it takes at once."""

    code = "hashing_busy"


class ShuttingDownError(AskAgainError):
    """The replica of the server that answered is ending."""

    code = "shutting_down"


@public
class AcquireTimeoutError(BotfarmError):
    """No user became free within the time that the test was ready to wait."""

    def __init__(
        self,
        wants: Sequence[Want],
        *,
        waited: float,
        blockers: Sequence[Blocker],
        matching: Matching | None = None,
        asker: Holder | None = None,
        advice: str = ADVICE,
    ) -> None:
        super().__init__(
            timeout_message(wants, waited, blockers, matching, asker, advice)
        )
        self.wants = tuple(wants)
        self.waited = waited
        self.blockers = tuple(blockers)
        self.matching = matching
        self.asker = asker

    def advising(self, advice: str) -> AcquireTimeoutError:
        """The same, with another last sentence, on what to do."""
        return AcquireTimeoutError(
            self.wants,
            waited=self.waited,
            blockers=self.blockers,
            matching=self.matching,
            asker=self.asker,
            advice=advice,
        )


@public
class LeaseLostError(BotfarmError):
    """A lease ended before its test did, so that others may have used the account."""

    def __init__(self, message: str, *, users: Sequence[PassedOn] = ()) -> None:
        super().__init__(message)
        self.users = tuple(users)


@public
class PasswordNotHeldError(BotfarmError):
    """The server holds the hash of a password alone."""

    def __init__(self, login: str) -> None:
        super().__init__(
            f"The server did not hand out the password of {login}: it keeps only a "
            "hash. Set BOTFARM_SECRET_KEYS on the server (`botfarm secrets "
            "generate-key` prints a key) and import the account again, or let the "
            "suite supply passwords through the hook pytest_botfarm_password."
        )
        self.login = login


@public
class WrongPasswordError(BotfarmError):
    """A password that the suite supplied is not the one that the server knows."""

    def __init__(self, login: str) -> None:
        super().__init__(
            "The password that the hook pytest_botfarm_password supplied for "
            f"{login} is not the one that the server knows: its hash is of another. "
            "One of them was changed without the other. Correct where the hook takes "
            "it from, or import the account again with this password."
        )
        self.login = login


@public
class SecretNotHeldError(BotfarmError):
    """An account has no secret of this name, or one that is not what it should be."""

    def __init__(self, login: str, name: str, problem: str) -> None:
        super().__init__(
            f"{login} has no secret {name!r} {problem}. Write it into the pool file, "
            f'as secrets = {{ {name} = "…" }}, and import that again. A server without '
            "BOTFARM_SECRET_KEYS keeps no secrets."
        )
        self.login = login
        self.name = name


def _quarantined(error: ServerError) -> Quarantined:
    return error.facts.get("quarantined") or Quarantined(0, {})


def _kinds(family: type[ServerError]) -> Iterator[type[ServerError]]:
    for kind in family.__subclasses__():
        yield kind
        yield from _kinds(kind)


# Collected here, before a suite can derive kinds of its own.
_BY_CODE = {kind.code: kind for kind in _kinds(ServerError) if kind.code}


def server_error(
    code: str, detail: str, *, status: int, facts: Mapping[str, Any]
) -> ServerError:
    """The error that an error answer stands for."""
    kind = _BY_CODE.get(code, ServerError)
    return kind(detail, status=status, code=code, facts=facts)

"""The one place where refusals become HTTP answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from botfarm_server.api.addresses import address_of
from botfarm_server.api.schemas.errors import ErrorOut
from botfarm_server.api.state import state_of
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    BotfarmError,
    DatabaseUnavailableError,
    DeadlockError,
    DuplicateUserError,
    ForbiddenError,
    HashingBusyError,
    HostNotAllowedError,
    InvalidRequestError,
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
    NoSealingKeyError,
    NoSuchPoolError,
    PoolFullError,
    PoolTooSmallError,
    ReservationNotFoundError,
    SchemaMismatchError,
    SecretUnreadableError,
    ShuttingDownError,
    TokenExpiredError,
    TokenMistypedError,
    TokenNotFoundError,
    TokenRevokedError,
    TooManyAttemptsError,
    TooManyPlacesError,
    TooManyRequestsError,
    TooManyWaitingError,
    TooManyWrongTokensError,
    UnauthorizedError,
    UnsupportedBodyError,
    UserLockedError,
    UserNotFoundError,
)

STATUS: Mapping[type[BotfarmError], int] = {
    DuplicateUserError: 400,
    HostNotAllowedError: 400,
    UnauthorizedError: 401,
    TokenMistypedError: 401,
    TokenExpiredError: 401,
    TokenRevokedError: 401,
    ForbiddenError: 403,
    UserNotFoundError: 404,
    LeaseNotFoundError: 404,
    ReservationNotFoundError: 404,
    TokenNotFoundError: 404,
    NoSuchPoolError: 404,
    UserLockedError: 409,
    PoolTooSmallError: 409,
    PoolFullError: 409,
    TooManyPlacesError: 409,
    LeaseMismatchError: 409,
    NoSealingKeyError: 409,
    DeadlockError: 409,
    LeaseEndedError: 410,
    BodyTimeoutError: 408,
    BodyTooLargeError: 413,
    UnsupportedBodyError: 415,
    InvalidRequestError: 422,
    TooManyWaitingError: 429,
    TooManyAttemptsError: 429,
    TooManyWrongTokensError: 429,
    TooManyRequestsError: 429,
    SecretUnreadableError: 500,
    DatabaseUnavailableError: 503,
    SchemaMismatchError: 503,
    HashingBusyError: 503,
    ShuttingDownError: 503,
}

_SHAPE = {"schema": {"$ref": f"#/components/schemas/{ErrorOut.__name__}"}}
"""Named, and not given as `model`: FastAPI would build a validator for each of some
four hundred answers whenever a server starts, and most start for one run of tests."""
MOST_FLAWS = 100
"""Fields of a call that are told to be wrong: of thousands it would take longer to tell
than to find them, and nobody would read it."""
_SUBJECT = re.compile(r"^(Input|String|List|Dictionary) should ")
"""Pydantic's name for a field, in place of which ours stands."""
_log = structlog.get_logger("botfarm.api")


def documented(*errors: type[BotfarmError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: these errors and those of every call."""
    everywhere: tuple[type[BotfarmError], ...] = (
        HostNotAllowedError,
        UnauthorizedError,
        TokenMistypedError,
        TokenExpiredError,
        TokenRevokedError,
        TooManyWrongTokensError,
        ForbiddenError,
        BodyTimeoutError,
        BodyTooLargeError,
        UnsupportedBodyError,
        InvalidRequestError,
        TooManyRequestsError,
        DatabaseUnavailableError,
        SchemaMismatchError,
    )
    codes = _codes_by_status(*errors, *everywhere)
    codes.setdefault(500, []).append("internal_error")
    return _described(codes)


def answered(*errors: type[BotfarmError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: these errors alone."""
    return _described(_codes_by_status(*errors))


def _codes_by_status(*errors: type[BotfarmError]) -> dict[int, list[str]]:
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(STATUS[error], []).append(error.code)
    return by_status


def _described(by_status: Mapping[int, list[str]]) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": " or ".join(f"`{code}`" for code in codes),
            "content": {"application/json": {**_SHAPE, "examples": _shown(codes)}},
        }
        for status, codes in sorted(by_status.items())
    }


def _shown(codes: Sequence[str]) -> dict[str, Any]:
    return {code: {"$ref": f"#/components/examples/{code}"} for code in codes}


class ErrorAnswer(JSONResponse):
    """What tells of an error, and is counted by its code when it is sent."""

    def __init__(
        self,
        told: Mapping[str, Any],
        status_code: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(told, status_code, headers)
        self._code: str = told["error"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state_of(Request(scope)).metrics.refused(self._code)
        await super().__call__(scope, receive, send)


def error_response(error: BotfarmError) -> JSONResponse:
    headers: dict[str, str] = {}
    if (retry_after := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(retry_after)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return ErrorAnswer(
        told(error), status_code=STATUS.get(type(error), 500), headers=headers
    )


def told(error: BotfarmError) -> dict[str, Any]:
    """The shape that every error has, as `ErrorOut` tells it."""
    return {"error": error.code, "detail": error.detail, **_plain(error.facts)}


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = jsonable_encoder(
        {name: _as_mappings(fact) for name, fact in facts.items()}
    )
    return encoded


def _as_mappings(fact: Any) -> Any:
    if is_dataclass(fact) and not isinstance(fact, type):
        return asdict(fact)
    if isinstance(fact, Sequence) and not isinstance(fact, str):
        return [_as_mappings(part) for part in fact]
    return fact


async def refused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, BotfarmError):
        raise error
    if isinstance(error, SecretUnreadableError):
        _log.error(error.detail, user_id=str(error.user_id))
    if isinstance(error, ForbiddenError):
        _log_attempt(request, error)
    return error_response(error)


def _log_attempt(request: Request, error: BotfarmError) -> None:
    """Say who tried what in vain; wrong tokens are told where they are counted."""
    by: Caller | None = getattr(request.state, "by", None)
    _log.warning(
        "call refused",
        code=error.code,
        method=request.method,
        path=request.url.path,
        **(by.traits if by else {"address": address_of(request)}),
    )


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    # FastAPI's own handler repeats the input, and with a sibling field missing the
    # whole body, passwords included.
    if not isinstance(error, RequestValidationError):
        raise error
    found = error.errors()
    flaws = [(_field(it["loc"]), _message(it["msg"])) for it in found[:MOST_FLAWS]]
    if (more := len(found) - len(flaws)) > 0:
        flaws.append(("body", f"has {more} more flaws"))
    return error_response(InvalidRequestError(flaws))


def _field(location: Sequence[int | str]) -> str:
    parts = location[1:] if location and location[0] == "body" else location
    if len(parts) == 1 and isinstance(parts[0], int):
        return "body"  # where the JSON itself is broken, the position says little
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts
    )
    return text.lstrip(".") or "body"


def _message(told: str) -> str:
    """What Pydantic says of a field, put as our own messages are."""
    text = told.removeprefix("Value error, ").partition(" after validation,")[0]
    return _SUBJECT.sub("must ", text)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    if isinstance(error.__cause__, BotfarmError):
        return error_response(error.__cause__)  # of whoever parsed the body
    if error.status_code == 400:
        # What else but broken JSON json.loads raises: for a nesting that is too deep,
        # numbers of too many digits and bytes that are no text.
        return error_response(InvalidRequestError([("body", "is no JSON text")]))
    codes = {404: "not_found", 405: "method_not_allowed"}
    details = {
        404: "There is no such path. The API is under /api/v1; see /docs.",
        405: "This path does not take this method; see /docs.",
    }
    return ErrorAnswer(
        {
            "error": codes.get(error.status_code, "invalid_request"),
            "detail": details.get(error.status_code, str(error.detail)),
        },
        status_code=error.status_code,
        headers=_allowed(request) if error.status_code == 405 else error.headers,
    )


def _allowed(request: Request) -> dict[str, str]:
    """The methods of a path: Starlette names those of one of its routes alone."""
    methods = {
        method.upper()
        for path, operations in request.app.openapi()["paths"].items()
        if _paths_like(path).fullmatch(request.scope["path"])
        for method in operations
    }
    return {"Allow": ", ".join(sorted(methods))}


@cache
def _paths_like(documented: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", documented))


def internal_error(error: BaseException) -> JSONResponse:
    """Tell a stranger an incident's number, and the log the rest."""
    incident = uuid.uuid4().hex[:12]
    _log.error("request failed", incident=incident, exc_info=error)
    return ErrorAnswer(internal_failure(incident), status_code=500)


def internal_failure(incident: str) -> dict[str, Any]:
    """What a stranger is told of it, in the shape of all errors."""
    return {
        "error": "internal_error",
        "detail": "The server failed on this request. Its log has the reason "
        f"under incident {incident}.",
        "incident": incident,
    }


def install(app: FastAPI) -> None:
    app.add_exception_handler(BotfarmError, refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)

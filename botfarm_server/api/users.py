"""Users over HTTP, the first API among it."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.leases import holder_of, listing_of
from botfarm_server.api.listing import Listing
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.fields import MAXIMUM_LABELS, LabelText, Text
from botfarm_server.api.schemas.leases import LeaseOut
from botfarm_server.api.schemas.users import (
    AcquiredOut,
    AcquireIn,
    ImportIn,
    ImportOut,
    MessageOut,
    NewUserIn,
    QuarantineIn,
    RestoreIn,
    UserIn,
    UserOut,
    UserPatch,
    VerifiedPasswordOut,
    VerifyPasswordIn,
)
from botfarm_server.api.state import Acquiring, Imports, Leases, State, Users
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    DuplicateUserError,
    ForbiddenError,
    HashingBusyError,
    InvalidRequestError,
    ReservationNotFoundError,
    TooManyAttemptsError,
    UserLockedError,
    UserNotFoundError,
)
from botfarm_server.domain.models import (
    ReservationId,
    User,
    UserFilter,
    UserId,
    UserState,
)
from botfarm_server.domain.texts import unstorable
from botfarm_server.services.credentials import UserDraft

USERS_TOGETHER = 200
"""Users of a list that are read and encoded at once, each with labels of 40 KB at
most."""

router = APIRouter(
    prefix="/users",
    tags=["users"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Create a user",
    response_model=UserOut,
    responses=documented(
        DuplicateUserError, ReservationNotFoundError, HashingBusyError
    ),
)
@needs("lease")
async def create(body: NewUserIn, users: Users, by: By) -> Any:
    """With `reservation_id` it takes a place that was reserved for it, and the call can
    be repeated. A token of role `lease` makes users in reserved places alone.
    """
    if body.reservation_id is None and not by.may("admin"):
        raise ForbiddenError(
            "A token of role lease makes users in reserved places alone; without a "
            "reservation_id it takes the role admin.",
            needed="admin",
        )
    draft = draft_of(_within_project(body, by))
    if body.reservation_id is not None:
        draft = replace(draft, reservation_id=ReservationId(body.reservation_id))
    return await users.create(draft, by)


@router.post(
    "/import",
    summary="Create or update many users at once",
    response_model=ImportOut,
    responses=documented(DuplicateUserError, TooManyAttemptsError, HashingBusyError),
)
@needs("admin")
async def import_all(body: ImportIn, imports: Imports, by: By) -> Any:
    """All or none. A user is known by env and login; one unchanged is left alone.

    A dry run may have another password for a user than it has 10 times a minute.
    """
    drafts = [draft_of(_within_project(user, by)) for user in body.users]
    return await imports.import_all(drafts, dry_run=body.dry_run, by=by)


@router.get(
    "", summary="List users", response_model=list[UserOut], responses=documented()
)
@needs("read")
async def find(
    app: State,
    users: Users,
    by: By,
    env: Text | None = None,
    domain: Text | None = None,
    project_id: UUID | None = None,
    login: Text | None = None,
    state: UserState | None = None,
    label: Annotated[
        list[
            Annotated[
                LabelText,
                Field(pattern=r"^[^=]+=", json_schema_extra={"format": "label"}),
            ]
        ],
        Query(
            description="`name=value`; several must all match.",
            max_length=MAXIMUM_LABELS,
        ),
    ] = [],  # noqa: B006 - FastAPI reads it as a declaration
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
    cursor: Annotated[
        str | None, Query(max_length=2000, json_schema_extra={"format": "cursor"})
    ] = None,
) -> Any:
    """All users, or those that match. Passwords are never listed.

    With `limit`, the header `Botfarm-Next-Cursor` says how to go on where there are
    more: a page ends before `limit` where its users have long labels.
    """
    if project_id is not None and not by.knows(project_id):
        return []
    wanted = UserFilter(
        env=env,
        domain=domain,
        project_id=project_id or by.project_id,
        login=login,
        state=state,
        labels=_labels(label),
    )
    listing = Listing[User, tuple[str, str]](
        read=lambda after, limit: users.find(wanted, after=after, limit=limit),
        told=partial(UserOut.model_validate, from_attributes=True),
        key_of=lambda user: (user.env, user.login),
        rows_together=USERS_TOGETHER,
    )
    if limit is None:
        return await listing.whole(app.listing, by, after=_opened(cursor))
    return await listing.page(
        app.listing, by, after=_opened(cursor), limit=limit, cursor_of=_cursor
    )


@router.get(
    "/{user_id}",
    summary="Show a user",
    response_model=UserOut,
    responses=documented(UserNotFoundError),
)
@needs("read")
async def get(user_id: UUID, users: Users) -> Any:
    return await users.get(UserId(user_id))


@router.patch(
    "/{user_id}",
    summary="Change a user",
    response_model=UserOut,
    responses=documented(UserNotFoundError, HashingBusyError),
)
@needs("admin")
async def change(user_id: UUID, body: UserPatch, users: Users, by: By) -> Any:
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if "project_id" in changes:
        changes["project_id"] = by.project_for(body.project_id)
    if "password" in changes:
        changes["password"] = body.password.get_secret_value()
    return await users.change(UserId(user_id), changes, by)


@router.delete(
    "/{user_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a user that nobody holds",
    responses=documented(UserNotFoundError, UserLockedError),
)
@needs("admin")
async def remove(user_id: UUID, users: Users, by: By) -> None:
    await users.remove(UserId(user_id), by)


@router.post(
    "/{user_id}/acquire",
    summary="Lock a user, now or not at all",
    response_model=AcquiredOut,
    responses=documented(UserNotFoundError, UserLockedError),
)
@needs("lease")
async def acquire(
    user_id: UUID, acquiring: Acquiring, by: By, body: AcquireIn | None = None
) -> Any:
    """Without a `ttl` the user stays locked until it is released."""
    body = body or AcquireIn()
    acquired = await acquiring.acquire(
        UserId(user_id), ttl=body.ttl, holder=holder_of(body.holder), by=by
    )
    return {
        "message": "User acquired",
        "user_id": acquired.user_id,
        "lease_id": acquired.lease_id,
        "fence": acquired.fence,
        "locktime": acquired.granted_at,
        "expires_in": acquired.expires_in,
    }


@router.post(
    "/{user_id}/release",
    summary="Unlock a user that was acquired",
    response_model=MessageOut,
    responses=documented(UserNotFoundError, UserLockedError),
)
@needs("lease", has_reserve=True)
async def release(user_id: UUID, acquiring: Acquiring, by: By) -> Any:
    """`409` where a test holds the user by a lease of its own: that one ends by its
    lease's id, or is broken on purpose. So it is where another token has acquired it.
    """
    released = await acquiring.release(UserId(user_id), by)
    return {"message": "User released" if released else "User was not locked"}


@router.post(
    "/{user_id}/verify-password",
    summary="Compare a password with the stored hash",
    response_model=VerifiedPasswordOut,
    responses=documented(UserNotFoundError, TooManyAttemptsError, HashingBusyError),
)
@needs("lease")
async def verify_password(
    user_id: UUID, body: VerifyPasswordIn, users: Users, state: State, by: By
) -> Any:
    """Whether a password that a suite has from elsewhere is still the user's.

    A token of role `lease` may ask it of a user that it holds. The password of a user
    is compared at most 10 times a minute.
    """
    await state.access.check_holds(by, UserId(user_id))
    password = body.password.get_secret_value()
    return {"matches": await users.verify_password(UserId(user_id), password, by)}


@router.post(
    "/{user_id}/quarantine",
    summary="Take a user out of rotation",
    response_model=UserOut,
    responses=documented(UserNotFoundError),
)
@needs("lease")
async def quarantine(
    user_id: UUID, body: QuarantineIn, users: Users, state: State, by: By
) -> Any:
    """Whoever holds it keeps it until the release.

    A token of role `lease` may do so to a user that it holds. Of one that is in
    quarantine already it is answered with the reason that this has: only an admin
    replaces that.
    """
    await state.access.check_holds(by, UserId(user_id))
    return await users.quarantine(UserId(user_id), body.reason, body.author, by)


@router.post(
    "/{user_id}/restore",
    summary="Bring a user back into rotation",
    response_model=UserOut,
    responses=documented(UserNotFoundError),
)
@needs("admin")
async def restore(
    user_id: UUID, users: Users, by: By, body: RestoreIn | None = None
) -> Any:
    """A waiter may have it at once. Reason and author are logged."""
    body = body or RestoreIn()
    return await users.restore(UserId(user_id), body.reason, body.author, by)


@router.get(
    "/{user_id}/leases",
    summary="List the leases of a user",
    response_model=list[LeaseOut],
    responses=documented(UserNotFoundError),
)
@needs("read")
async def find_leases(
    user_id: UUID,
    app: State,
    users: Users,
    leases: Leases,
    by: By,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Any:
    """Newest first, ended ones included until the retention period is over.

    Where there are more, `Botfarm-Next-Cursor` says how to go on.
    """
    await users.get(UserId(user_id))
    listing = listing_of(
        partial(
            leases.find,
            states=None,
            user_id=UserId(user_id),
            project_id=by.project_id,
        )
    )
    return await listing.page(app.listing, by, after=cursor, limit=limit)


def _within_project(user: UserIn, by: Caller) -> UserIn:
    project_id = by.project_for(user.project_id)
    return user.model_copy(update={"project_id": project_id})


def draft_of(user: UserIn) -> UserDraft:
    """A user as the services take it: its secrets are in the clear."""
    return UserDraft(
        login=user.login,
        password=user.password.get_secret_value(),
        env=user.env,
        domain=user.domain,
        project_id=user.project_id,
        labels=user.labels,
        secrets={
            name: secret.get_secret_value() for name, secret in user.secrets.items()
        },
    )


def _labels(given: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in given:
        name, _, text = pair.partition("=")
        labels[name] = text
    return labels


def _cursor(key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _opened(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    try:
        env, login = json.loads(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        env, login = None, None
    if not (_is_storable(env) and _is_storable(login)):
        raise InvalidRequestError(
            [("cursor", "is not one that a Botfarm-Next-Cursor header gave")]
        )
    return env, login


def _is_storable(given: Any) -> bool:
    return isinstance(given, str) and unstorable(given) is None

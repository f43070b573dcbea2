"""Leases over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.listing import Listing
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.fields import Line
from botfarm_server.api.schemas.leases import (
    BreakIn,
    EndHolderIn,
    EndLeaseIn,
    HeldOut,
    KeepIn,
    KeptOut,
    LeaseIn,
    LeaseOut,
    ReleasedOut,
    RenewIn,
    RenewOut,
    WaitingOut,
)
from botfarm_server.api.schemas.wants import HolderIn, Wanted
from botfarm_server.api.state import Asking, Leases, State, Users, state_of
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    DeadlockError,
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
    NoSuchPoolError,
    PoolTooSmallError,
    SecretUnreadableError,
    ShuttingDownError,
    TooManyWaitingError,
)
from botfarm_server.domain.models import (
    EndedState,
    Fence,
    Holder,
    LeaseId,
    LeaseSelection,
    LeaseState,
    UserId,
    Want,
)
from botfarm_server.services.answers import Held, LeaseView, Waiting
from botfarm_server.services.calls import Asked
from botfarm_server.services.leases import LIVE_STATES

router = APIRouter(
    prefix="/leases",
    tags=["leases"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)

ENDED_STATES: tuple[LeaseState, ...] = get_args(EndedState)
LEASES_TOGETHER = 25
"""Leases of a list that are read and encoded at once, each with a hundred users and
64 KiB of wants at most."""
LeaseListing = Listing[LeaseView, int]


@router.put(
    "/{lease_id}",
    summary="Ask for a lease, or ask about it again",
    response_model=HeldOut,
    responses={
        202: {"model": WaitingOut, "description": "Still waiting; ask again."},
        **documented(
            NoSuchPoolError,
            PoolTooSmallError,
            LeaseMismatchError,
            LeaseNotFoundError,
            DeadlockError,
            LeaseEndedError,
            TooManyWaitingError,
            SecretUnreadableError,
            ShuttingDownError,
        ),
    },
)
@needs("lease", settles_ownership=True)
async def ask(
    lease_id: UUID,
    body: LeaseIn,
    request: Request,
    asking: Asking,
    users: Users,
    by: By,
) -> Any:
    """Grant all wants at once, or wait up to `wait` seconds for them.

    The client makes the id, so the call can be repeated: it gives the same lease, or
    keeps the same place in the queue.
    """
    wants = wants_of(body.wants, by)
    users.vocabulary.check_wants(wants)

    async def gone() -> None:
        request.state.turn.end()
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer = await asking.ask(
        Asked(
            lease_id=LeaseId(lease_id),
            wants=wants,
            ttl=body.ttl,
            wait=body.wait,
            holder=holder_of(body.holder),
            prefer=[UserId(user_id) for user_id in body.prefer],
            by=by,
        ),
        gone,
    )
    if isinstance(answer, Held) and answer.waited:
        await state_of(request).access.check_still(by)
    told = _told_held(answer) if isinstance(answer, Held) else _told_waiting(answer)
    return Response(
        told.model_dump_json(),
        status_code=200 if isinstance(answer, Held) else 202,
        media_type="application/json",
    )


@router.post(
    "/renew",
    summary="Renew all the leases of a process",
    response_model=RenewOut,
    responses=documented(),
)
@needs("lease", has_reserve=True)
async def renew(body: RenewIn, leases: Leases, by: By) -> Any:
    """Move each expiry to a full TTL from now; say of the others why they ended."""
    renewals = [(LeaseId(it.id), Fence(it.fence)) for it in body.leases]
    return {"leases": await leases.renew(renewals, by)}


@router.post(
    "/release",
    summary="End all leases of a run or worker that is dead",
    response_model=ReleasedOut,
    responses=documented(),
)
@needs("lease", has_reserve=True)
async def end_holder(body: EndHolderIn, leases: Leases, by: By) -> Any:
    """Their users are handed on at once, since nobody uses them any more.

    Leases that are kept go on. A token of role `lease` ends those that it took,
    whoever else names the same run.
    """
    endings = await leases.end_holder(
        body.run_id, body.worker_id, outcome=body.outcome, clean=body.clean, by=by
    )
    freed = [
        {
            "id": ending.lease.id,
            "test_id": ending.lease.holder.test_id,
            "logins": ending.logins,
            "quarantined": ending.quarantined,
        }
        for ending in endings
        if ending.logins and not ending.was_idle
    ]
    return {"released": len(endings), "freed": freed}


@router.delete(
    "/{lease_id}",
    status_code=204,
    response_class=Response,
    summary="Release a held lease or cancel a waiting one",
    responses=documented(LeaseNotFoundError, LeaseEndedError, LeaseMismatchError),
)
@needs("lease", settles_ownership=True, has_reserve=True)
async def end(
    lease_id: UUID, leases: Leases, by: By, body: EndLeaseIn | None = None
) -> None:
    """Again is no error. A later PUT with this id does not bring the lease back."""
    body = body or EndLeaseIn()
    await leases.end(
        LeaseId(lease_id),
        fence=None if body.fence is None else Fence(body.fence),
        outcome=body.outcome,
        clean=body.clean,
        by=by,
    )


@router.post(
    "/{lease_id}/keep",
    summary="Keep a lease for a person to look at",
    response_model=KeptOut,
    responses=documented(LeaseNotFoundError, LeaseEndedError, LeaseMismatchError),
)
@needs("lease")
async def keep(lease_id: UUID, body: KeepIn, leases: Leases, by: By) -> Any:
    """Its holder has done with it. It ends after `seconds`, or when somebody ends it.

    Nothing renews it, and the end of its run or worker leaves it alone. Its users are
    dirty for their next holder. Again is no error, and moves nothing.
    """
    expires_in = await leases.keep(
        LeaseId(lease_id),
        Fence(body.fence),
        seconds=body.seconds,
        outcome=body.outcome,
        by=by,
    )
    return {"id": lease_id, "expires_in": expires_in}


@router.post(
    "/{lease_id}/break",
    summary="Take a lease from its holder",
    response_model=LeaseOut,
    responses=documented(LeaseNotFoundError, LeaseEndedError),
)
@needs("admin")
async def break_lease(lease_id: UUID, body: BreakIn, leases: Leases, by: By) -> Any:
    """The holder is told at its next renewal, and its test fails.

    Its users rest until it must have heard of it, unless it is known to be dead.
    """
    await leases.break_lease(
        LeaseId(lease_id), body.reason, holder_is_dead=body.holder_is_dead, by=by
    )
    return shown(await leases.show(LeaseId(lease_id)))


@router.get(
    "", summary="List leases", response_model=list[LeaseOut], responses=documented()
)
@needs("read")
async def find(
    app: State,
    leases: Leases,
    by: By,
    state: LeaseSelection = "live",
    run_id: Line | None = None,
    worker_id: Line | None = None,
    user_id: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Any:
    """Newest first. Where there are more, `Botfarm-Next-Cursor` says how to go on.

    A page ends before `limit` where its leases are large.
    """
    listing = listing_of(
        partial(
            leases.find,
            states=_states(state),
            run_id=run_id,
            worker_id=worker_id,
            user_id=None if user_id is None else UserId(user_id),
            project_id=by.project_id,
        )
    )
    return await listing.page(app.listing, by, after=cursor, limit=limit)


@router.get(
    "/{lease_id}",
    summary="Show a lease",
    response_model=LeaseOut,
    responses=documented(LeaseNotFoundError),
)
@needs("read")
async def show(lease_id: UUID, leases: Leases) -> Any:
    return shown(await leases.show(LeaseId(lease_id)))


def _told_held(held: Held) -> HeldOut:
    return HeldOut.model_validate(
        {
            "id": held.lease.id,
            "fence": held.lease.fence,
            "ttl": held.lease.ttl,
            "expires_in": held.expires_in,
            "waited": held.waited,
            "users": held.users,
        },
        from_attributes=True,
    )


def _told_waiting(waiting: Waiting) -> WaitingOut:
    return WaitingOut.model_validate(
        {
            "id": waiting.lease.id,
            "place": waiting.place,
            "waited": waiting.waited,
            "ask_again_within": waiting.ask_again_within,
            "blockers": waiting.blockers,
            "matching": waiting.matching,
        },
        from_attributes=True,
    )


def wants_of(wants: Sequence[Wanted], by: Caller) -> list[Want]:
    """What is asked for; a want without a project is of the caller's."""
    return [
        by.within_project(
            Want(want.env, want.domain, want.project_id, want.labels, want.count)
        )
        for want in wants
    ]


def holder_of(holder: HolderIn) -> Holder:
    return Holder(**holder.model_dump())


def _states(state: LeaseSelection) -> tuple[LeaseState, ...] | None:
    match state:
        case "all":
            return None
        case "live":
            return tuple(LIVE_STATES)
        case "ended":
            return ENDED_STATES
        case one:
            return (one,)


def listing_of(find: Callable[..., Awaitable[list[LeaseView]]]) -> LeaseListing:
    """Leases, newest first, of which `find` has those `before` one up to a `limit`."""
    return Listing(
        read=lambda before, limit: find(before=before, limit=limit),
        told=lambda view: LeaseOut.model_validate(shown(view), from_attributes=True),
        key_of=lambda view: view.lease.queue_number or 0,
        rows_together=LEASES_TOGETHER,
    )


def shown(view: LeaseView) -> dict[str, Any]:
    """A lease as `LeaseOut` tells it."""
    lease, now = view.lease, view.now
    until = lease.granted_at or lease.ended_at or now
    held_until = lease.ended_at or now
    return {
        "id": lease.id,
        "state": lease.state,
        "wants": lease.wants,
        "holder": lease.holder,
        "users": view.users,
        "ttl": lease.ttl,
        "fence": lease.fence,
        "created_at": lease.created_at,
        "granted_at": lease.granted_at,
        "ended_at": lease.ended_at,
        "expires_in": (
            (lease.expires_at - now).total_seconds()
            if lease.state == "held" and lease.expires_at is not None
            else None
        ),
        "waited": (until - lease.created_at).total_seconds(),
        "held_for": (
            (held_until - lease.granted_at).total_seconds()
            if lease.granted_at is not None
            else None
        ),
        "outcome": lease.outcome,
        "end_reason": lease.end_reason,
        "kept_at": lease.kept_at,
        "idle": view.is_idle,
    }

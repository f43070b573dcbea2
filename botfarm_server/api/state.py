"""What the handlers are given: built by the app, found through the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from botfarm_server.api.bodies import Bodies
from botfarm_server.metrics import Metrics
from botfarm_server.services.access import AccessService
from botfarm_server.services.acquiring import AcquireService
from botfarm_server.services.asking import AskService
from botfarm_server.services.audit import AuditService
from botfarm_server.services.census import CensusService
from botfarm_server.services.guessing import WrongTokens
from botfarm_server.services.importing import ImportService
from botfarm_server.services.kept_states import KeptStateService
from botfarm_server.services.known_tokens import KnownTokens
from botfarm_server.services.lanes import Lanes
from botfarm_server.services.leases import LeaseService
from botfarm_server.services.pools import PoolService
from botfarm_server.services.readiness import Readiness
from botfarm_server.services.reservations import ReservationService
from botfarm_server.services.sharing import OneByOne
from botfarm_server.services.throttle import Throttle
from botfarm_server.services.tokens import TokenService
from botfarm_server.services.users import UserService


@dataclass(frozen=True)
class AppState:
    users: UserService
    imports: ImportService
    acquiring: AcquireService
    asking: AskService
    leases: LeaseService
    pools: PoolService
    kept_states: KeptStateService
    reservations: ReservationService
    readiness: Readiness
    access: AccessService
    throttle: Throttle
    lanes: Lanes
    known_tokens: KnownTokens
    bodies: Bodies
    tokens: TokenService
    wrong_tokens: WrongTokens
    census: CensusService
    metrics: Metrics
    public_pages: bool
    public_metrics: bool
    audit: AuditService
    listing: OneByOne


def state_of(request: Request) -> AppState:
    return cast("AppState", request.app.state.botfarm)


# Coroutines, though they wait for nothing: FastAPI runs plain functions in threads,
# and each such trip costs more than a statement of SQL. Each looks by itself: one that
# depends on another costs as much again.
async def app_state(request: Request) -> AppState:
    return state_of(request)


async def lease_service(request: Request) -> LeaseService:
    return state_of(request).leases


async def user_service(request: Request) -> UserService:
    return state_of(request).users


async def import_service(request: Request) -> ImportService:
    return state_of(request).imports


async def acquire_service(request: Request) -> AcquireService:
    return state_of(request).acquiring


async def pool_service(request: Request) -> PoolService:
    return state_of(request).pools


async def reservation_service(request: Request) -> ReservationService:
    return state_of(request).reservations


async def token_service(request: Request) -> TokenService:
    return state_of(request).tokens


async def audit_service(request: Request) -> AuditService:
    return state_of(request).audit


async def ask_service(request: Request) -> AskService:
    return state_of(request).asking


async def kept_state_service(request: Request) -> KeptStateService:
    return state_of(request).kept_states


State = Annotated[AppState, Depends(app_state)]
Acquiring = Annotated[AcquireService, Depends(acquire_service)]
Audit = Annotated[AuditService, Depends(audit_service)]
Asking = Annotated[AskService, Depends(ask_service)]
Imports = Annotated[ImportService, Depends(import_service)]
Leases = Annotated[LeaseService, Depends(lease_service)]
Pools = Annotated[PoolService, Depends(pool_service)]
KeptStates = Annotated[KeptStateService, Depends(kept_state_service)]
Reservations = Annotated[ReservationService, Depends(reservation_service)]
Tokens = Annotated[TokenService, Depends(token_service)]
Users = Annotated[UserService, Depends(user_service)]

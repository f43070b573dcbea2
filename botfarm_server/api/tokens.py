"""Tokens over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Response

from botfarm_server.api.auth import By, admitted, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.routes import BoundedRoute
from botfarm_server.api.schemas.tokens import NewTokenOut, TokenIn, TokenOut
from botfarm_server.api.state import Tokens
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import TokenNotFoundError
from botfarm_server.domain.models import TokenId
from botfarm_server.services.tokens import NewToken

_log = structlog.get_logger("botfarm.tokens")

router = APIRouter(
    prefix="/tokens",
    tags=["tokens"],
    dependencies=[Depends(admitted)],
    route_class=BoundedRoute,
)


@router.post(
    "",
    status_code=201,
    summary="Make a token",
    response_model=NewTokenOut,
    responses=documented(),
)
@needs("admin")
async def create(body: TokenIn, tokens: Tokens, by: By) -> Any:
    """The answer has the token, this once: the server keeps its hash alone.

    A token of a project makes tokens of that project, and sees and revokes no others.
    """
    made = await tokens.create(
        by,
        body.name,
        body.role,
        project_id=body.project_id,
        expires_in=body.expires_in,
    )
    _log.info("token created", **_facts(made.token.id, by), name=body.name)
    return told(made)


@router.get(
    "", summary="List tokens", response_model=list[TokenOut], responses=documented()
)
@needs("admin")
async def find(tokens: Tokens, by: By) -> Any:
    """Oldest first, with those that expired or were revoked."""
    return await tokens.find(by)


@router.delete(
    "/{token_id}",
    status_code=204,
    response_class=Response,
    summary="Revoke a token",
    responses=documented(TokenNotFoundError),
)
@needs("admin")
async def revoke(token_id: UUID, tokens: Tokens, by: By) -> None:
    """No server takes it from now on; again is no error.

    What was leased with it ends as any lease does that nobody renews.
    """
    await tokens.revoke(by, TokenId(token_id))
    _log.info("token revoked", **_facts(token_id, by))


def _facts(token_id: UUID, by: Caller) -> dict[str, str]:
    maker = "the bootstrap token" if by.token_id is None else str(by.token_id)
    return {"token_id": str(token_id), "by": maker}


def told(made: NewToken) -> dict[str, Any]:
    """A new token as `NewTokenOut` tells it."""
    return {**asdict(made.token), "token": made.secret}

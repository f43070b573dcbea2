"""Tokens: made, and shown without what is secret of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from botfarm_server.api.schemas.fields import Request, Text
from botfarm_server.domain.models import Role

MAXIMUM_TOKEN_LIFE = 10 * 365 * 86_400.0
"""Seconds; beyond, somebody has counted in another unit."""


class TokenIn(Request):
    name: Annotated[Text, Field(description="What it is for, to tell it apart.")]
    role: Role
    project_id: Annotated[
        UUID | None, Field(description="The only project that it is to know of.")
    ] = None
    expires_in: Annotated[
        float | None,
        Field(
            strict=True,
            ge=1,
            le=MAXIMUM_TOKEN_LIFE,
            description="Seconds; null is for ever.",
        ),
    ] = None


class TokenOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    role: Role
    project_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="To the minute.")]
    revoked_at: datetime | None


class NewTokenOut(TokenOut):
    token: Annotated[
        str, Field(description="What its holder sends; it is not told again.")
    ]

"""Places for users that are being made."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID, uuid4

from pydantic import BaseModel, Field

from botfarm_server.api.schemas.fields import NUMBER, Domain, Env, Request

MAXIMUM_LIMIT = 100_000


class ReservationIn(Request):
    id: Annotated[UUID, Field(default_factory=uuid4)]
    env: Env
    domain: Domain
    project_id: UUID | None = None
    limit: Annotated[
        int,
        Field(
            ge=1,
            le=MAXIMUM_LIMIT,
            description="How many users and reserved places the pool may have.",
        ),
        NUMBER,
    ]


class ReservationOut(BaseModel):
    id: UUID
    expires_in: Annotated[float, Field(description="Seconds until it is free again.")]

"""Whether the server is alive and ready."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class HealthOut(BaseModel):
    status: Literal["healthy"] = "healthy"
    warning: str | None = Field(
        default=None, description="Only where the server is open to all."
    )


class ReadyOut(BaseModel):
    ready: bool
    detail: str

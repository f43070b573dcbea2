"""The one shape of all errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class FieldError(BaseModel):
    field: str
    message: str


class ErrorOut(BaseModel):
    """Every error has this shape; some carry further facts beside it."""

    model_config = ConfigDict(extra="allow")

    error: Annotated[str, Field(description="A code that programs can rely on.")]
    detail: Annotated[str, Field(description="A sentence a person can act on.")]

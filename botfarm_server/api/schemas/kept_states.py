"""What a holder leaves for the next one."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from botfarm_server.api.schemas.fields import FenceIn, Request, stored_text

MAXIMUM_STATE_BYTES = 262_144
"""Many times what the cookies and the local storage of a browser take."""
MAXIMUM_STATE_LIFE = 31_536_000.0
"""Seconds: a year, as the longest of tokens."""


def _state(state: SecretStr) -> SecretStr:
    text = stored_text(state)
    if not text or len(text.encode()) > MAXIMUM_STATE_BYTES:
        msg = f"must have 1 to {MAXIMUM_STATE_BYTES} bytes in UTF-8"
        raise ValueError(msg)
    return state


class DropStateIn(Request):
    fence: FenceIn


class StateIn(DropStateIn):
    """What the holder of a user leaves for the next one."""

    state: Annotated[
        SecretStr,
        AfterValidator(_state),
        Field(
            description=f"{MAXIMUM_STATE_BYTES} bytes in UTF-8 at most.",
            json_schema_extra={"minLength": 1, "maxLength": MAXIMUM_STATE_BYTES},
        ),
    ]
    expires_in: Annotated[
        float | None,
        Field(
            strict=True,
            gt=0,
            le=MAXIMUM_STATE_LIFE,
            description="Seconds that it is kept: an hour if null.",
        ),
    ] = None


class StateOut(BaseModel):
    state: Annotated[
        str | None,
        Field(description="What its last holder left. Null if it left none or is old."),
    ]

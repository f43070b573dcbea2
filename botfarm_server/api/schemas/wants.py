"""What is asked for, and who asks."""

from __future__ import annotations

from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from botfarm_server.api.schemas.fields import (
    NUMBER,
    Domain,
    Env,
    Labels,
    Line,
    LongText,
    Request,
    Text,
)

MAXIMUM_COUNT = 100
"""Users of one lease: matching them to its wants takes more time the more there are."""
MAXIMUM_WANTS = 20


class Wanted(Request):
    env: Text
    domain: Text
    project_id: UUID | None = None
    labels: Labels = {}
    count: Annotated[int, Field(ge=1, le=MAXIMUM_COUNT), NUMBER] = 1


class WantIn(Wanted):
    env: Env
    domain: Domain


AnyWant = TypeVar("AnyWant", bound=Wanted)


def _few_enough(wants: list[AnyWant]) -> list[AnyWant]:
    if sum(want.count for want in wants) > MAXIMUM_COUNT:
        msg = f"must ask for at most {MAXIMUM_COUNT} users in all"
        raise ValueError(msg)
    return wants


Wants = Annotated[
    list[AnyWant],
    Field(
        min_length=1,
        max_length=MAXIMUM_WANTS,
        description=f"For at most {MAXIMUM_COUNT} users in all.",
    ),
    AfterValidator(_few_enough),
]


class HolderIn(Request):
    """Who asks. Shown to everyone who waits for the same users."""

    run_id: Line | None = None
    worker_id: Line | None = None
    test_id: LongText | None = None
    host: Line | None = None
    job_url: LongText | None = None


class HolderOut(BaseModel):
    run_id: str | None
    worker_id: str | None
    test_id: str | None
    host: str | None
    job_url: str | None


class WantOut(BaseModel):
    env: str
    domain: str
    project_id: UUID | None
    labels: dict[str, str]
    count: int

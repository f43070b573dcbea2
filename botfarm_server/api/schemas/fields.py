"""What the fields of several bodies may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)

from botfarm_server.domain.texts import no_label, no_name, unreadable, unstorable

MINIMUM_TTL, MAXIMUM_TTL = 5.0, 86_400.0
MAXIMUM_LABELS = 20
MAXIMUM_FENCE = 2**53 - 1
"""The largest number that every reader of JSON has exactly."""


def without(flaw: Callable[[str], str | None]) -> AfterValidator:
    """Let a text pass in which the rule finds no flaw."""

    def check(text: str) -> str:
        if (found := flaw(text)) is not None:
            raise ValueError(found)
        return text

    return AfterValidator(check)


def stored_text(secret: SecretStr) -> str:
    """A secret in the clear. Raises ValueError if it cannot be stored."""
    text = secret.get_secret_value()
    if (flaw := unstorable(text)) is not None:
        raise ValueError(flaw)
    return text


def _number(given: Any) -> Any:
    if isinstance(given, str | bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic's kind of error
    return given


Text = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "name"}),
    without(no_name),
]
Env = Annotated[Text, Field(json_schema_extra={"format": "env"})]
Domain = Annotated[Text, Field(json_schema_extra={"format": "domain"})]
"""The document lists those of the deployment."""
Line = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "text"}),
    without(unreadable),
]
LongText = Annotated[
    str,
    Field(min_length=1, max_length=2_000, json_schema_extra={"format": "text"}),
    without(unreadable),
]
LabelText = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"format": "name"}),
    without(no_label),
]
Labels = Annotated[dict[LabelText, LabelText], Field(max_length=MAXIMUM_LABELS)]
NUMBER = BeforeValidator(_number)
"""An integer may be written 2.0, as JSON has it, but not "2"."""
FenceIn = Annotated[
    int,
    Field(ge=1, le=MAXIMUM_FENCE, description="That of the lease."),
    NUMBER,
]
Ttl = Annotated[
    float,
    Field(strict=True, ge=MINIMUM_TTL, le=MAXIMUM_TTL, description="Seconds to live."),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

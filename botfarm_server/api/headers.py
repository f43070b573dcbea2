"""The headers of answers, as the OpenAPI document tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

PROTOCOL = "1"
PROTOCOL_HEADER = "Botfarm-Protocol"
NEXT_CURSOR_HEADER = "Botfarm-Next-Cursor"

HEADERS: Mapping[str, Json] = {
    PROTOCOL_HEADER: {
        "description": "The version of the protocol.",
        "required": True,
        "schema": {"const": PROTOCOL, "type": "string"},
    },
    "Cache-Control": {
        "description": "Nobody keeps an answer: it may tell a secret.",
        "required": True,
        "schema": {"const": "no-store", "type": "string"},
    },
    "X-Content-Type-Options": {
        "description": "It is of the kind that it says.",
        "required": True,
        "schema": {"const": "nosniff", "type": "string"},
    },
    "WWW-Authenticate": {
        "description": "That a token is asked for.",
        "required": True,
        "schema": {"const": "Bearer", "type": "string"},
    },
    "Retry-After": {
        "description": "Whole seconds to let pass before the call is sent again.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1",
    },
    NEXT_CURSOR_HEADER: {
        "description": "The `cursor` of the next page, where there may be one.",
        "schema": {"type": "string"},
        "example": "1041",
    },
}
"""As components of the document, by their names."""
_OF_ALL = (PROTOCOL_HEADER, "Cache-Control", "X-Content-Type-Options")
_OF_STATUS: Mapping[str, str] = {
    "401": "WWW-Authenticate",
    "408": "Retry-After",
    "429": "Retry-After",
    "503": "Retry-After",
}


def documented_headers(status: str, *, is_page: bool) -> Json:
    """The headers of an answer; `is_page` if the call takes a cursor."""
    names = [*_OF_ALL]
    if status in _OF_STATUS:
        names.append(_OF_STATUS[status])
    if is_page and status == "200":
        names.append(NEXT_CURSOR_HEADER)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}

"""The OpenAPI document: what FastAPI cannot tell of the server by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute

from botfarm_server.api.examples import EXAMPLES
from botfarm_server.api.middleware import PROTOCOL, PROTOCOL_HEADER
from botfarm_server.api.state import AppState

Json = dict[str, Any]

_PROTOCOL = {
    PROTOCOL_HEADER: {
        "description": "The version of the protocol.",
        "required": True,
        "schema": {"const": PROTOCOL, "type": "string"},
    }
}
_USER = {"user_id": "$response.body#/id"}
_LEASE = {"lease_id": "$response.body#/id"}
_STATE = {**_LEASE, "user_id": "$response.body#/users/0/id"}
_FENCE = {"fence": "$response.body#/fence"}
LINKS: Mapping[tuple[str, str], Mapping[str, tuple[Json, Json | None]]] = {
    ("users_create", "201"): {
        "users_get": (_USER, None),
        "users_change": (_USER, None),
        "users_acquire": (_USER, None),
        "users_release": (_USER, None),
        "users_quarantine": (_USER, None),
        "users_restore": (_USER, None),
        "users_verify_password": (_USER, None),
        "users_find_leases": (_USER, None),
        "users_remove": (_USER, None),
    },
    ("leases_ask", "200"): {
        "leases_show": (_LEASE, None),
        "leases_renew": ({}, {"leases": [{"id": _LEASE["lease_id"], **_FENCE}]}),
        "leases_save": (_STATE, {"state": "cookies", **_FENCE}),
        "leases_drop": (_STATE, _FENCE),
        "leases_keep": (_LEASE, {"seconds": 60, "outcome": "failed", **_FENCE}),
        "leases_end": (_LEASE, _FENCE),
        "leases_break_lease": (_LEASE, None),
    },
    ("leases_ask", "202"): {
        "leases_show": (_LEASE, None),
        "leases_end": (_LEASE, None),
    },
    ("reservations_reserve", "201"): {
        "reservations_give_back": ({"reservation_id": "$response.body#/id"}, None),
    },
    ("tokens_create", "201"): {
        "tokens_revoke": ({"token_id": "$response.body#/id"}, None),
    },
}
"""By operation and status, the operations that go on with the answer: the parameters
and the body that they take from it."""


class DocumentedApp(FastAPI):
    """FastAPI with the deployment's own words in its document."""

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            state = cast("AppState", self.state.botfarm)
            vocabulary = state.users.vocabulary
            names = {"env": vocabulary.envs, "domain": vocabulary.domains}
            _complete(super().openapi(), names)
        return super().openapi()


def operation_id(route: APIRoute) -> str:
    """`users_create`, as programs that are made from the document call it."""
    return "_".join([*map(str, route.tags), route.name])


def _complete(document: Json, names: Mapping[str, Sequence[str]]) -> None:
    for schema in _objects(document):
        if (allowed := names.get(schema.get("format", ""))) is not None:
            schema["enum"] = list(allowed)
    for methods in document["paths"].values():
        for operation in methods.values():
            if (example := EXAMPLES.get(operation["operationId"])) is not None:
                content = operation["requestBody"]["content"]
                content["application/json"]["example"] = example
            for status, response in operation["responses"].items():
                response.setdefault("headers", {}).update(_PROTOCOL)
                if links := LINKS.get((operation["operationId"], status)):
                    response["links"] = {
                        target: _link(target, *taken) for target, taken in links.items()
                    }


def _link(target: str, parameters: Json, body: Json | None) -> Json:
    link: Json = {"operationId": target, "parameters": parameters}
    return link if body is None else {**link, "requestBody": body}


def _objects(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        if isinstance(node.get("format"), str):
            yield node
        for inner in node.values():
            yield from _objects(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _objects(inner)

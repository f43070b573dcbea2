"""The OpenAPI document: what FastAPI cannot tell of the server by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from botfarm_server.api.bodies import Bodies
from botfarm_server.api.example_answers import answer_example
from botfarm_server.api.example_errors import error_examples
from botfarm_server.api.examples import EXAMPLES, parameter_example
from botfarm_server.api.headers import HEADERS, documented_headers
from botfarm_server.api.state import AppState

Json = dict[str, Any]

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
        "leases_fetch": (_STATE, None),
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

    _encoded: bytes | None = None

    def openapi(self) -> Json:
        if self.openapi_schema is None:
            state = cast("AppState", self.state.botfarm)
            vocabulary = state.users.vocabulary
            names = {"env": vocabulary.envs, "domain": vocabulary.domains}
            _complete(super().openapi(), names, state.bodies)
        return super().openapi()

    def encoded_document(self) -> bytes:
        """The document as JSON text, which is made once: it is long."""
        if self._encoded is None:
            self._encoded = bytes(JSONResponse(self.openapi()).body)
        return self._encoded


def operation_id(route: APIRoute) -> str:
    """`users_create`, as programs that are made from the document call it."""
    return "_".join([*map(str, route.tags), route.name])


def _complete(
    document: Json, names: Mapping[str, Sequence[str]], bodies: Bodies
) -> None:
    for schema in _objects(document):
        if (allowed := names.get(schema.get("format", ""))) is not None:
            schema["enum"] = list(allowed)
    document["components"] |= {"examples": error_examples(), "headers": dict(HEADERS)}
    for methods in document["paths"].values():
        for operation in methods.values():
            _complete_operation(operation)
            if (body := operation.get("requestBody")) is not None:
                limit = bodies.limit_of(operation["operationId"])
                body["description"] = f"{limit} bytes at most."


def _complete_operation(operation: Json) -> None:
    name, parameters = operation["operationId"], operation.get("parameters", [])
    if (body := EXAMPLES.get(name)) is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = body
    for parameter in parameters:
        parameter["example"] = parameter_example(name, parameter["name"])
    is_page = any(parameter["name"] == "cursor" for parameter in parameters)
    for status, response in operation["responses"].items():
        response["headers"] = documented_headers(status, is_page=is_page)
        content = response.get("content", {}).get("application/json", {})
        if "schema" in content and not content.keys() & {"example", "examples"}:
            content["example"] = answer_example(content["schema"])
        if links := LINKS.get((name, status)):
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

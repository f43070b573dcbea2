"""Calls of the API, the app that answers them, and what it says in short."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
from fastapi import FastAPI
from support.servers import TOKEN

from botfarm_server.api.state import AppState
from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

from .conftest import ALICE

USERS, LEASE = "/api/v1/users", f"/api/v1/leases/{uuid.UUID(int=1)}"
WANT = {"env": "stage", "domain": "regular"}
JSON = {"Content-Type": "application/json"}
MAXIMUM_BODY = 65_536
Call = tuple[str, str, Any]
Answer = tuple[int, str | None]


def user(**changes: Any) -> Call:
    return "POST", USERS, {**ALICE, **changes}


def lease(number: int = 1, **changes: Any) -> Call:
    path = f"/api/v1/leases/{uuid.UUID(int=number)}"
    return "PUT", path, {"wants": [WANT], **changes}


def listing(query: str = "limit=1") -> Call:
    return "GET", f"{USERS}?{query}", None


def bearing(token: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {token}"}


def app_of(folder: object, **given: Any) -> tuple[FastAPI, AppState]:
    """An app that asks for a token, over a database of its own, and its state."""
    settings = {
        "database_url": f"sqlite:///{folder}/farm.sqlite3",
        "bootstrap_token": TOKEN,
        **given,
    }
    app = create_app(fixed_settings(settings))
    return app, app.state.botfarm


async def answer_to(
    client: httpx.AsyncClient, call: Call, headers: dict[str, str] = JSON
) -> Answer:
    method, path, body = call
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    answer = await client.request(method, path, content=body, headers=headers)
    return answer.status_code, answer.json()["error"] if answer.is_error else None

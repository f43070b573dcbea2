"""All endpoints of an app, those that its document leaves out among them."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts


def endpoints(app: FastAPI) -> set[str]:
    """`GET /path` of each; what takes more than methods, as a mount, is `ANY /path`."""
    return {
        f"{method} {route.path}"
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ("ANY",)
    }

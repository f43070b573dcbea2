"""What people look at in a browser, which sends no token by itself."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from botfarm_server.api.auth import needs
from botfarm_server.api.document import DocumentedApp
from botfarm_server.api.routes import OpenRoute, PageRoute
from botfarm_server.board import page as board_page

SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/"
SWAGGER_JS, SWAGGER_CSS = f"{SWAGGER}swagger-ui-bundle.js", f"{SWAGGER}swagger-ui.css"
INTEGRITY: Mapping[str, str] = {
    SWAGGER_JS: "gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
    SWAGGER_CSS: "WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}
"""SHA-384 of the files of that npm package. Another script in their place could read
the token that the board keeps, on the same origin."""
FAVICON = "https://fastapi.tiangolo.com"
INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)

board_router = APIRouter(include_in_schema=False, route_class=OpenRoute)
router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/openapi.json")
@needs("read")
async def openapi(request: Request) -> Any:
    app = cast("DocumentedApp", request.app)
    return Response(app.encoded_document(), media_type="application/json")


@router.get("/docs")
@needs("read")
async def docs(request: Request) -> Any:
    page = get_swagger_ui_html(
        openapi_url=f"{request.scope.get('root_path', '').rstrip('/')}/openapi.json",
        title=request.app.title,
        swagger_js_url=SWAGGER_JS,
        swagger_css_url=SWAGGER_CSS,
    )
    page = _pinned(page)
    return _guarded(
        page,
        {
            "script-src": f"{_own(page, 'script')} {SWAGGER_JS}",
            "style-src": f"'unsafe-inline' {SWAGGER_CSS}",
            "img-src": f"'self' data: {FAVICON}",
        },
    )


@board_router.get("/board")
async def board() -> Any:
    """The page alone, which tells nothing: what it shows takes a token."""
    page = HTMLResponse(board_page())
    return _guarded(
        page,
        {
            "script-src": _own(page, "script"),
            "style-src": _own(page, "style"),
            "img-src": "data:",
            "require-trusted-types-for": "'script'",
        },
    )


def _pinned(page: HTMLResponse) -> HTMLResponse:
    """Have browsers refuse other files than those that are known."""
    text = bytes(page.body).decode()
    for url, digest in INTEGRITY.items():
        known = f'"{url}" integrity="sha384-{digest}" crossorigin="anonymous"'
        text = text.replace(f'"{url}"', known)
    return HTMLResponse(text)


def _own(page: HTMLResponse, kind: str) -> str:
    """What a policy calls the scripts or styles that stand in the page itself."""
    return " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
        for name, text in INLINE.findall(bytes(page.body))
        if name == kind.encode()
    )


def _guarded(page: HTMLResponse, sources: Mapping[str, str]) -> HTMLResponse:
    """Let it load what is named, call this server, and stand in no page's frame."""
    policy = {
        "default-src": "'none'",
        **sources,
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    page.headers["Content-Security-Policy"] = "; ".join(map(" ".join, policy.items()))
    page.headers["X-Frame-Options"] = "DENY"
    page.headers["Referrer-Policy"] = "no-referrer"
    return page
